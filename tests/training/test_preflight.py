"""What is refused before a training or an evaluation begins."""

from types import SimpleNamespace

import pytest

from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.training.preflight import check_norms, check_settings
from tests.conftest import tiny_task


@pytest.fixture(scope="module")
def task():
    return tiny_task(["road", "sky"])


@pytest.fixture
def facts(task):
    """What a checkpoint of this very task says of itself."""
    content = {}
    task.on_save_checkpoint(content)
    return content["hrseg"]


def test_a_checkpoint_of_the_same_settings_and_one_that_says_none_pass(task, facts, tmp_path):
    check_settings(task, facts, tmp_path / "a.ckpt")
    check_settings(task, None, tmp_path / "a.pth")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("class_names", ["sky", "road"], r"class names \['sky', 'road'\], the config says"),
        ("mean", [0.5, 0.5, 0.5], r"mean \[0\.5, 0\.5, 0\.5\]"),
        ("std", [0.2, 0.2, 0.2], r"std \[0\.2, 0\.2, 0\.2\]"),
    ],
)
def test_other_settings_than_the_checkpoints_are_refused(task, facts, tmp_path, key, value, words):
    with pytest.raises(ConfigError, match=rf"a\.ckpt was trained with {words}"):
        check_settings(task, {**facts, key: value}, tmp_path / "a.ckpt")


@pytest.mark.parametrize(
    ("processes", "shares", "more", "fits"),
    [
        (1, 1, [], True),
        (1, 2, [], False),  # a batch of two in two halves
        (2, 1, [], False),  # in two processes
        (2, 1, ["trainer.sync_batchnorm=true"], True),
        (2, 1, ["model.freeze_backbone=true"], True),
    ],
)
def test_one_image_of_one_pixel_at_the_end_is_refused(processes, shares, more, fits):
    words = ["data.batch_size=2", "data.crop_size=[32,32]", *more]
    trainer = SimpleNamespace(accumulate_grad_batches=shares, world_size=processes)
    config = load_config("synthetic_tiny", words)
    if fits:
        check_norms(config, trainer)
    else:
        with pytest.raises(ConfigError, match="batch norm cannot normalise a single value"):
            check_norms(config, trainer)
