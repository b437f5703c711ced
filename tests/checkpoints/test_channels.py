"""Channels in checkpoints: metadata, and the stem's weights for other numbers of channels."""

import pytest
import torch

import hrseg
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.errors import ConfigError
from hrseg.utils.channels import Channels
from tests.conftest import tiny_task
from tests.untrained import save_checkpoint, save_untrained

STEM = "backbone.conv1.weight"


def model(count):
    return hrseg.create_model("hrnet_w18_small_v1", num_classes=2, in_channels=count)


@pytest.fixture(scope="module")
def rgb():
    return hrseg.create_model("hrnet_w18_small_v1", num_classes=2).state_dict()


@pytest.mark.parametrize("count", [1, 2, 4, 12])
def test_channel_i_of_the_stem_has_the_weights_of_i_mod_3_times_3_over_n(rgb, count):
    other = model(count)
    report = hrseg.load_weights(other, rgb, purpose="initialise")
    stem = other.state_dict()[STEM]
    for channel in range(count):
        assert torch.allclose(stem[:, channel], rgb[STEM][:, channel % 3] * 3 / count)
    assert f"stem inflated from 3 to {count} channels" in str(report)
    assert not report.mismatched and not report.missing


def test_twelve_equal_channels_give_the_features_of_a_grey_rgb_image(rgb):
    other = model(12).eval()
    hrseg.load_weights(other, rgb, purpose="initialise")
    plain = hrseg.create_model("hrnet_w18_small_v1", num_classes=2).eval()
    plain.load_state_dict(rgb)
    grey = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected, actual = plain(grey.expand(-1, 3, -1, -1)), other(grey.expand(-1, 12, -1, -1))
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_evaluation_refuses_weights_of_another_number_of_channels(rgb):
    with pytest.raises(ConfigError, match=r"conv1.weight is \(64, 3, 3, 3\) instead of \(64, 4"):
        hrseg.load_weights(model(4), rgb)


def test_a_checkpoint_keeps_the_channels_and_one_of_rgb_stays_as_it_was(tmp_path):
    channels = Channels.of((4, 3, 2, 8), "uint16", [(10, 4000)] * 4)
    task = hrseg.SegmentationTask(model(4), ["a", "b"], channels=channels)
    path = save_checkpoint(task, tmp_path / "a.ckpt")
    loaded = hrseg.SegmentationTask.load_from_checkpoint(path)
    assert loaded.normalize.channels == channels == hrseg.load(path).channels
    assert loaded.normalize.mean == (0.5,) * 4 and loaded.normalize.std == (0.25,) * 4
    assert read_checkpoint(path)["hrseg"]["format"] == 2  # earlier versions would misread it
    stored = read_checkpoint(save_untrained(tmp_path / "rgb.ckpt"))["hrseg"]
    assert stored["format"] == 1 and "channels" not in stored
    assert "in_channels" not in stored["architecture"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bands": [1]}, "not one range"),
        ({"ranges": [[5, 5]] * 4}, "not one range"),
        ({"kind": "int8"}, "channels.kind"),
        ({"bands": [0, 1, 2, 3]}, "greater than or equal to 1"),
        ({"bands": [1, 2], "ranges": [[0, 1]] * 2}, "channels: 2 for 4 channels"),
    ],
)
def test_damaged_channels_of_a_file_are_refused(tmp_path, change, words):
    path = save_checkpoint(hrseg.SegmentationTask(model(4), ["a", "b"]), tmp_path / "a.ckpt")
    metadata = read_checkpoint(path)["hrseg"]
    metadata["channels"] |= change
    with pytest.raises(ConfigError, match=words):
        read_metadata(metadata, path)


def test_a_task_refuses_channels_that_the_model_does_not_have():
    with pytest.raises(ConfigError, match=r"model has 3 input channels, but the images have 1"):
        tiny_task(channels=Channels.of((1,)))
