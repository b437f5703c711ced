import pytest

from hrseg.config.loader import load_config
from hrseg.training.preflight import batch, scaled_lr


@pytest.mark.parametrize(
    ("devices", "accumulated", "line"),
    [
        (2, 3, "batch 12 = 2 devices x 2 images x 3 accumulated, largest lr 0.01"),
        (1, 1, "batch 12, largest lr 0.01"),
    ],
)
def test_the_parts_of_the_batch_size_are_printed(devices, accumulated, line):
    assert batch(load_config("cityscapes_w48"), devices, accumulated) == line


def test_another_batch_size_than_the_recipe_suggests_an_lr_without_changing_it():
    config = load_config("cityscapes_w48", ["data.batch_size=24"])
    assert "optimizer.lr=0.02" in scaled_lr(config)
    assert config.optimizer.lr == 0.01
    assert "optimizer.lr=0.0025" in scaled_lr(load_config("cityscapes_w48", ["data.batch_size=3"]))


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["data.batch_size=24", "optimizer.lr=0.02"],  # the user sets a learning rate
        ["data.batch_size=24", "name=mine"],  # the config is not a shipped recipe
    ],
)
def test_no_learning_rate_is_suggested_for_other_configs(overrides):
    assert scaled_lr(load_config("cityscapes_w48", overrides)) == ""
