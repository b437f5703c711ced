"""Normalisation of uint8 images with ImageNet's mean and standard deviation."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrseg.errors import DataError

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Normalize(nn.Module):
    """Normalise uint8 RGB images (B, 3, H, W) to float32 in channels-last memory format.

    Floats are refused, because images in 0..1 would be divided by 255 a second time.

    Args:
        mean: per channel, of images in 0..1.
        std: per channel, of images in 0..1.

    Raises:
        DataError: the images are not uint8.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self, mean: Sequence[float] = IMAGENET_MEAN, std: Sequence[float] = IMAGENET_STD
    ) -> None:
        super().__init__()
        self.mean, self.std = tuple(mean), tuple(std)
        std_, mean_ = (torch.tensor(values).view(3, 1, 1) for values in (std, mean))
        self.register_buffer("scale", 1 / (255 * std_), persistent=False)
        self.register_buffer("shift", -mean_ / std_, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype != torch.uint8:
            raise DataError(
                f"The images are {str(image.dtype).removeprefix('torch.')}.\n"
                "Expected: uint8 RGB (B, 3, H, W) of 0..255; hrseg normalises the images itself.\n"
                "Fix: leave out ToTensor and Normalize, for example with torchvision's PILToTensor."
            )
        image = image.to(memory_format=torch.channels_last)
        return torch.addcmul(self.shift, image.to(self.scale.dtype), self.scale)
