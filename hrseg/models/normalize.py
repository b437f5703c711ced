"""Normalisation of images: value range, mean and standard deviation of each channel."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from hrseg.errors import DataError
from hrseg.utils.channels import RGB, Channels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def default_mean_and_std(count: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and std of images of `count` channels in 0..1: ImageNet's for three."""
    if count == len(IMAGENET_MEAN):
        return IMAGENET_MEAN, IMAGENET_STD
    return (0.5,) * count, (0.25,) * count


class Normalize(nn.Module):
    """Normalise integer images (B, N, H, W) to float32 in channels-last memory format.

    The value range of each channel becomes 0..1, and values outside of it are clipped; then
    (x - mean) / std. Floats are refused, because images in 0..1 would be divided a second time.

    Args:
        mean: per channel, of images in 0..1.
        std: per channel, of images in 0..1.
        channels: data type and value ranges of the images; None: RGB uint8.

    Raises:
        DataError: the images have another data type or number of channels.
    """

    scale: Tensor
    shift: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(
        self,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        channels: Channels | None = None,
    ) -> None:
        super().__init__()
        self.mean, self.std, self.channels = tuple(mean), tuple(std), channels
        self.dtype = torch.uint16 if channels and channels.dtype == "uint16" else torch.uint8
        std_, mean_ = (torch.tensor(values).view(-1, 1, 1) for values in (std, mean))
        limits = (channels or Channels.of(RGB)).limits
        low, high = torch.tensor(limits, dtype=torch.float32).T.unsqueeze(-1).unsqueeze(-1)
        width = high - low
        self.register_buffer("scale", 1 / (width * std_), persistent=False)
        self.register_buffer("shift", -(mean_ + low / width) / std_, persistent=False)
        self.register_buffer("lowest", -mean_ / std_, persistent=False)
        self.register_buffer("highest", (1 - mean_) / std_, persistent=False)

    def affine(self, image: Tensor) -> Tensor:
        """Return the normalised image in the memory layout of `image`, without checks."""
        # 16 bits exceed the range of float16.
        values = image.float() if self.dtype == torch.uint16 else image.to(self.scale.dtype)
        normalised = torch.addcmul(self.shift, values, self.scale)
        # Values of 8-bit RGB are always inside of 0..255.
        return normalised.clamp(self.lowest, self.highest) if self.channels else normalised

    def forward(self, image: Tensor) -> Tensor:
        if image.dtype != self.dtype or image.shape[1] != len(self.mean):
            layout = "RGB (B, 3, H, W) of 0..255"
            if self.channels:
                layout = f"(B, {self.channels.count}, H, W), {self.channels}"
            shape = f" {tuple(image.shape)}" if image.dtype == self.dtype else ""
            raise DataError(
                f"The images are {_name(image.dtype)}{shape}.\n"
                f"Expected: {_name(self.dtype)} {layout}; hrseg normalises the images itself.\n"
                "Fix: leave out ToTensor and Normalize, for example with torchvision's PILToTensor."
            )
        return self.affine(image.to(memory_format=torch.channels_last))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
