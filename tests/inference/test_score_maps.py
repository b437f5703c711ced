import pytest
import torch
import torch.nn.functional as F

from hrseg.inference.score_maps import held, joined, resized
from hrseg.inference.windows import Windows


def some(height, width, views=2, classes=3):
    random = torch.Generator().manual_seed(height * width)
    return torch.randn(views, classes, height, width, generator=random)


def in_bands(rows, step):
    height = rows.size[0]
    bands = [rows.read(first, min(first + step, height)) for first in range(0, height, step)]
    return torch.cat(bands, 2)


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    "size", [(96, 128), (97, 131), (24, 32), (24, 100), (100, 32), (5, 7), (1, 1), (23, 33)]
)
@pytest.mark.parametrize("step", [1, 7, 1000])
def test_bands_are_those_of_the_whole_interpolation(size, align_corners, step):
    x = some(24, 32)
    whole = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    bands = in_bands(resized(held(x), size, align_corners), step)
    # PyTorch finds the places of rows in float32.
    torch.testing.assert_close(bands, whole, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("rows", [[0, 3, 6, 8], [0, 10, 20], list(range(7)), list(range(9))])
def test_the_mean_of_equal_values_is_that_value_to_the_bit(rows):
    windows = Windows(rows, [0, 1, 2, 4, 7], 10, 9)
    whole = some(rows[-1] + 10, 16).exp()
    parts = [whole[..., y : y + 10, x : x + 9] for y in windows.rows for x in windows.columns]
    for step in (1, 4, 100):
        join = joined(windows, [held(part) for part in parts], whole.shape[-2:])
        assert torch.equal(in_bands(join, step), whole)
