import pytest
import torch
import torch.nn.functional as F

from hrseg.inference.score_maps import mean_of_windows, resized, tensor_rows
from hrseg.inference.windows import Windows


def random_map(height, width, views=2, classes=3):
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
def test_bands_equal_the_interpolation_of_the_whole_map(size, align_corners, step):
    x = random_map(24, 32)
    whole = F.interpolate(x, size, mode="bilinear", align_corners=align_corners)
    bands = in_bands(resized(tensor_rows(x), size, align_corners), step)
    # PyTorch computes the positions of rows in float32.
    torch.testing.assert_close(bands, whole, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("rows", [[0, 3, 6, 8], [0, 10, 20], list(range(7)), list(range(9))])
def test_the_mean_of_equal_values_is_exactly_that_value(rows):
    windows = Windows(rows, [0, 1, 2, 4, 7], 10, 9)
    whole = random_map(rows[-1] + 10, 16).exp()
    parts = [whole[..., y : y + 10, x : x + 9] for y in windows.rows for x in windows.columns]
    for step in (1, 4, 100):
        mean = mean_of_windows(windows, [tensor_rows(part) for part in parts], whole.shape[-2:])
        assert torch.equal(in_bands(mean, step), whole)
