"""Normalisation of images: RGB to the bit as before, and value ranges of other channels."""

import pytest
import torch

from hrseg.errors import DataError
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from hrseg.utils.channels import Channels


def test_8_bit_rgb_is_scaled_by_one_multiplication_and_one_addition():
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 3, 1, 1)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    expected = torch.addcmul(-mean / std, image.float(), 1 / (255 * std))
    assert torch.equal(Normalize()(image), expected)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_value_range_becomes_0_to_1_and_is_clipped(kind):
    normalize = Normalize([0.5, 0.0], [0.25, 1.0], Channels.of((2, 7), kind, [(50, 150), (0, 200)]))
    values = torch.tensor([0, 50, 100, 150, 200]).to(getattr(torch, kind))
    result = normalize(values.view(1, 1, 1, 5).repeat(1, 2, 1, 1))
    # ((x - 50) / 100 clipped to 0..1 - 0.5) / 0.25, and x / 200.
    torch.testing.assert_close(result[0, 0, 0], torch.tensor([-2.0, -2.0, 0.0, 2.0, 2.0]))
    torch.testing.assert_close(result[0, 1, 0], torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))


def test_images_of_another_type_or_number_of_channels_are_refused():
    normalize = Normalize([0.5] * 2, [0.25] * 2, Channels.of((2, 7), "uint16"))
    with pytest.raises(DataError, match=r"The images are uint8.\nExpected: uint16 \(B, 2, H, W\)"):
        normalize(torch.zeros(1, 2, 4, 4, dtype=torch.uint8))
    with pytest.raises(DataError, match=r"The images are uint16 \(1, 3, 4, 4\)"):
        normalize(torch.zeros(1, 3, 4, 4, dtype=torch.uint16))
