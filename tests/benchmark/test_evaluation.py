"""`hrseg benchmark evaluation`: seconds per image of network, other computation and reading."""

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


def test_network_reading_and_the_rest_are_measured_separately(camvid, here, capsys):
    changed = config(camvid, "inference.scales=[0.75,1.0]", "inference.flip=true")
    result = json.loads(json.dumps(benchmark_evaluation(changed, images=2)))
    assert result["images"] == 2 and result["precision"] == "32"
    assert result["protocol"]["flip"] is True
    assert all(result[part]["steps"] == 2 and result[part]["median"] > 0 for part in PARTS)
    evaluating = result["network"]["mean"] + result["after_network"]["mean"]
    assert result["images_per_second"] == pytest.approx(1 / evaluating)
    assert "precision 32" in output_with_table(capsys, lines=7)


def test_matching_weights_are_loaded_and_others_are_refused(camvid, tmp_path):
    base = config(camvid)
    matching = tmp_path / "matching.ckpt"
    torch.save(build_task(base, build_data(base), weights=False).model.state_dict(), matching)
    assert evaluation(base, "32-true", 1, matching)["images"] == 1
    with pytest.raises(ConfigError, match=r"classes|shape"):
        evaluation(base, "32-true", 1, save_untrained(tmp_path / "other.ckpt"))
