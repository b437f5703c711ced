import cv2
import numpy as np
import pytest
import torch

from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.errors import ConfigError
from hrseg.inference.windows import Windows, check_cost, find_windows, prepare, size_at
from tests.conftest import batch_of, picture

CITYSCAPES = PROTOCOLS["official_cityscapes"]
PASCAL = PROTOCOLS["official_pascal_context"]


def test_resize_to_a_fixed_size_equals_opencv():
    pixels = picture((60, 45))
    image = batch_of(pixels)
    prepared, content = prepare(image, Protocol(resize=(40, 50)))
    assert content == (40, 50)
    np.testing.assert_array_equal(prepared[0].permute(1, 2, 0), cv2.resize(pixels, (50, 40)))


@pytest.mark.parametrize(
    ("size", "content", "padded"),
    [
        ((375, 500), (520, 693), (520, 696)),  # 500 * 520 / 375 = 693.33
        ((500, 375), (693, 520), (696, 520)),
    ],
)
def test_the_short_side_is_520_and_the_padding_the_mean_colour(size, content, padded):
    image = torch.full((1, 3, *size), 9, dtype=torch.uint8)
    prepared, content_size = prepare(image, PASCAL)
    assert content_size == content and prepared.shape == (1, 3, *padded)
    assert (prepared[..., : content[0], : content[1]] == 9).all()
    for border in (prepared[..., content[0] :, :], prepared[..., content[1] :]):
        assert (border == torch.tensor([124, 116, 104]).view(1, 3, 1, 1)).all()


def test_ade20k_keeps_the_padding_of_the_same_prepared_image():
    image = batch_of(picture((375, 500)))
    cropped, content = prepare(image, PASCAL)
    padded, kept = prepare(image, PROTOCOLS["official_ade20k"])
    assert content == (520, 693) and kept == (520, 696) == padded.shape[2:]
    assert torch.equal(padded, cropped)


def test_scales_are_relative_to_the_long_side():
    assert size_at((520, 696), 1.0, PASCAL) == (389, 520)  # 520 * 520 / 696 = 388.5
    assert size_at((1024, 2048), 1.75, CITYSCAPES) == (1792, 3584)
    assert size_at((512, 1024), 0.5, CITYSCAPES) == (512, 1024)
    assert size_at((45, 62), 1.5, Protocol()) == (68, 93)
    assert size_at((20, 100), 0.25, Protocol()) == (32, 32)  # the smallest input of the network


def test_windows_of_cityscapes_are_shifted_inside_the_border():
    assert find_windows((1024, 2048), 1.0, CITYSCAPES) == Windows([0], [0], 1024, 2048)
    windows = find_windows((1280, 2560), 1.25, CITYSCAPES)
    assert windows == Windows([0, 256], [0, 512], 1024, 2048)
    # An image narrower than the window has narrower windows.
    windows = find_windows((2560, 1280), 1.25, CITYSCAPES)
    assert windows == Windows([0, 1024, 1536], [0], 1024, 1280)


def test_windows_of_pascal_context_extend_over_the_border():
    # ceil((1040 - 520) / 346) + 1 = 3 windows; the last ends at 692 + 520 = 1212.
    windows = find_windows((700, 1040), 2.0, PASCAL)
    assert windows == Windows([0, 346], [0, 346, 692], 520, 520)
    assert find_windows((194, 260), 0.5, PASCAL) == Windows([0], [0], 520, 520)


@pytest.mark.parametrize("border", ["shift", "pad"])
@pytest.mark.parametrize("side", [32, 33, 64, 65, 100, 129])
def test_windows_cover_every_pixel(border, side):
    protocol = Protocol(window=(40, 40), stride=(24, 40), window_border=border)
    windows = find_windows((side, side), 1.0, protocol)
    for starts, length in ((windows.rows, windows.height), (windows.columns, windows.width)):
        covered = {pixel for start in starts for pixel in range(start, start + length)}
        assert covered >= set(range(side))
        assert border == "pad" or max(covered) < side


@pytest.mark.parametrize(
    "changed",
    [{"resize": (65536, 65536)}, {"pad_multiple": 65536}, {"scales": (100.0,)},
     {"resize": (8192, 8192), "window": (64, 64), "stride": (1, 1)}]
)  # fmt: skip
def test_a_protocol_with_too_many_pixels_is_refused(changed):
    with pytest.raises(ConfigError, match=r"pixels .* of an image of 480x360"):
        check_cost((360, 480), Protocol(**changed))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_named_protocols_support_the_largest_image_without_tiles(name):
    check_cost((5793, 5793), PROTOCOLS[name])
