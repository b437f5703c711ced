"""Building blocks of HRNet: residual blocks, convolutions, interpolation, initialisation."""

import torch.nn.functional as F
from torch import Tensor, nn

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut: (B, C, H, W) to the same shape."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut: (B, C, H, W) to (B, 4 * channels, H, W)."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        channels_out = channels * self.expansion
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, channels_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: nn.Module = nn.Identity()
        if channels_in != channels_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, 1, bias=False), nn.BatchNorm2d(channels_out)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + self.downsample(x))  # type: ignore[no-any-return]


def resize(
    x: Tensor, like: Tensor, align_corners: bool = False, upsample: str = "bilinear"
) -> Tensor:
    """Interpolate `x` to the height and width of `like`; `upsample` is "bilinear" or "nearest"."""
    # A target size, unlike a scale factor, fits every input size and can be exported.
    if upsample == "nearest":
        return F.interpolate(x, size=like.shape[-2:], mode="nearest")
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


def initialise(module: nn.Module, bn_momentum: float) -> None:
    """Draw the convolution weights of `module` (He et al.) and set its batch norm momentum."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # The authors draw normal(std=0.001) and then load ImageNet weights. In training from
            # scratch, such small weights before batch norm cause very large first steps.
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = bn_momentum


def conv_bn_relu(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Return a 3x3 convolution, a batch norm and a ReLU."""
    return nn.Sequential(
        conv3x3(channels_in, channels_out, stride),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    """Return a 3x3 convolution without a bias, because a batch norm follows."""
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)
