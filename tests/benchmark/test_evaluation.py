"""`hrseg benchmark evaluation`: the parts of scoring an image."""

import json

import pytest
import torch

from hrseg.benchmark.evaluation import benchmark_evaluation, evaluation
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.training.factory import build_data, build_task
from tests.benchmark.conftest import output_with_table
from tests.camvid_tree import fit_overrides
from tests.untrained import save_untrained

PARTS = ("network", "after_network", "reading")


def config(camvid, *overrides):
    return load_config("camvid_w18_small", [*fit_overrides(camvid), *overrides])


def test_the_parts_of_an_image_are_measured_apart(camvid, here, tmp_path, capsys):
    out = tmp_path / "evaluation.json"
    changed = config(camvid, "inference.scales=[0.75,1.0]", "inference.flip=true")
    result = benchmark_evaluation(changed, images=2, out=out)
    assert json.loads(out.read_text()) == json.loads(json.dumps(result))
    assert result["images"] == 2 and result["precision"] == "32"
    assert result["protocol"]["flip"] is True
    assert all(result[part]["steps"] == 2 and result[part]["median"] > 0 for part in PARTS)
    evaluating = result["network"]["mean"] + result["after_network"]["mean"]
    assert result["images_per_second"] == pytest.approx(1 / evaluating)
    assert "precision 32" in output_with_table(capsys, lines=7)


def test_the_weights_of_a_checkpoint_are_taken_or_refused(camvid, tmp_path):
    tried = config(camvid)
    good = tmp_path / "good.ckpt"
    torch.save(build_task(tried, build_data(tried), weights=False).model.state_dict(), good)
    assert evaluation(tried, "32-true", 1, good)["images"] == 1
    with pytest.raises(ConfigError, match=r"classes|shape"):
        evaluation(tried, "32-true", 1, save_untrained(tmp_path / "other.ckpt"))
