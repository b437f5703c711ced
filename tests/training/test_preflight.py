"""Checks before training and evaluation."""

from types import SimpleNamespace

import pytest

from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.training.preflight import check_norms, check_settings
from tests.conftest import tiny_task


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("class_names", ["sky", "road"], r"class names \['sky', 'road'\], the config has"),
        ("mean", [0.5, 0.5, 0.5], r"mean \[0\.5, 0\.5, 0\.5\]"),
    ],
)
def test_other_settings_than_those_of_the_checkpoint_are_refused(tmp_path, key, value, words):
    task, content = tiny_task(["road", "sky"]), {}
    task.on_save_checkpoint(content)
    check_settings(task, content["hrseg"], tmp_path / "a.ckpt")
    with pytest.raises(ConfigError, match=rf"a\.ckpt was trained with {words}"):
        check_settings(task, {**content["hrseg"], key: value}, tmp_path / "a.ckpt")


@pytest.mark.parametrize(("processes", "accumulated"), [(1, 2), (2, 1)])
def test_a_single_value_per_batch_norm_channel_is_refused(processes, accumulated):
    words = ["data.batch_size=2", "data.crop_size=[32,32]"]
    trainer = SimpleNamespace(accumulate_grad_batches=accumulated, world_size=processes)
    with pytest.raises(ConfigError, match="Batch norm cannot normalise a single value"):
        check_norms(load_config("synthetic_tiny", words), trainer)
    check_norms(load_config("synthetic_tiny", [*words, "model.freeze_backbone=true"]), trainer)
