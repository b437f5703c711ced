"""HRNetV2: streams at strides 4, 8, 16 and 32 that exchange features (arXiv 1908.07919)."""

from itertools import pairwise
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.lookup import find


class Variant(NamedTuple):
    """One row of the authors' table; stream i of a stage has `width * 2**i` channels."""

    stage1_blocks: int
    stage1_channels: int
    modules: tuple[int, int, int]
    blocks: int
    width: int


# Stage 1 blocks and channels, exchange modules of stages 2 to 4, blocks per stream, width.
VARIANTS = {
    "hrnet_w18_small_v1": Variant(1, 32, (1, 1, 1), 2, 16),
    "hrnet_w18_small_v2": Variant(2, 64, (1, 3, 2), 2, 18),
    "hrnet_w18": Variant(4, 64, (1, 4, 3), 4, 18),
    "hrnet_w32": Variant(4, 64, (1, 4, 3), 4, 32),
    "hrnet_w40": Variant(4, 64, (1, 4, 3), 4, 40),
    "hrnet_w48": Variant(4, 64, (1, 4, 3), 4, 48),
}


class HRNet(nn.Module):
    """The backbone. Attributes are named as in the authors' state dict.

    Attributes:
        channels: channels of the four features.
        strides: their strides.
        align_corners: the rule of every bilinear interpolation in this network.
    """

    def __init__(
        self, variant: str, align_corners: bool = False, bn_momentum: float = 0.01
    ) -> None:
        """Build the row `variant` of VARIANTS; an unknown one raises ConfigError."""
        super().__init__()
        row = find(VARIANTS, variant, "backbone")
        self.channels = [row.width * 2**i for i in range(4)]
        self.strides = [4, 8, 16, 32]
        self.align_corners = align_corners

        self.conv1 = _conv3x3(3, 64, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = _conv3x3(64, 64, stride=2)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        stage1 = row.stage1_channels * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(64, row.stage1_channels),
            *(Bottleneck(stage1, row.stage1_channels) for _ in range(row.stage1_blocks - 1)),
        )
        self.transition1 = _transition([stage1], self.channels[:2])
        self.stage2 = self._stage(2, row)
        self.transition2 = _transition(self.channels[:2], self.channels[:3])
        self.stage3 = self._stage(3, row)
        self.transition3 = _transition(self.channels[:3], self.channels)
        self.stage4 = self._stage(4, row)
        initialise(self, bn_momentum)

    def _stage(self, streams: int, row: Variant) -> nn.Sequential:
        channels, modules = self.channels[:streams], row.modules[streams - 2]
        return nn.Sequential(
            *(ExchangeModule(channels, row.blocks, self.align_corners) for _ in range(modules))
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Compute the four features of a normalised image.

        Args:
            image: (B, 3, H, W), H and W from 32 up, not necessarily multiples of 32.

        Returns:
            Feature i: (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])).

        Raises:
            ConfigError: the image has another number of channels, or is too small.
        """
        _check(image)
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        features: list[Tensor] = self.stage2(_widen(self.transition1, [self.layer1(x)]))
        features = self.stage3(_widen(self.transition2, features))
        features = self.stage4(_widen(self.transition3, features))
        return features


class ExchangeModule(nn.Module):
    """Residual blocks on every stream, then each stream receives the sum of all."""

    def __init__(self, channels: list[int], blocks: int, align_corners: bool) -> None:
        """Build one stream of `blocks` residual blocks for each entry of `channels`."""
        super().__init__()
        self.align_corners = align_corners
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels
        )
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(_exchange(channels, source, target) for source in range(len(channels)))
            for target in range(len(channels))
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        """Map the features of all streams to as many of the same shapes."""
        streams = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        return [self.relu(self._fuse(target, streams)) for target in range(len(streams))]

    def _fuse(self, target: int, streams: list[Tensor]) -> Tensor:
        layers = self.fuse_layers[target]
        assert isinstance(layers, nn.ModuleList)
        # Finest stream first, the authors' order of summation.
        total = layers[0](streams[0])
        for source in range(1, len(streams)):
            x = layers[source](streams[source])
            if source > target:
                x = resize(x, streams[target], self.align_corners)
            total = total + x
        return total  # type: ignore[no-any-return]


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels: int) -> None:
        """Build a block that keeps the number of channels."""
        super().__init__()
        self.conv1 = _conv3x3(channels, channels)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to the same shape."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.bn2(self.conv2(residual))
        return self.relu(residual + x)  # type: ignore[no-any-return]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions and a shortcut, projected where the number of channels changes."""

    expansion = 4

    def __init__(self, channels_in: int, channels: int) -> None:
        """Build a block that ends with `4 * channels` channels."""
        super().__init__()
        channels_out = channels * self.expansion
        self.conv1 = nn.Conv2d(channels_in, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = _conv3x3(channels, channels)
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
        """Map (B, C, H, W) to (B, 4 * channels, H, W)."""
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        residual = self.bn3(self.conv3(residual))
        return self.relu(residual + self.downsample(x))  # type: ignore[no-any-return]


def resize(x: Tensor, like: Tensor, align_corners: bool) -> Tensor:
    """Interpolate `x` bilinearly to the height and width of `like`."""
    # By size, never by factor: right for every input size, and exportable.
    return F.interpolate(x, size=like.shape[-2:], mode="bilinear", align_corners=align_corners)


def initialise(module: nn.Module, bn_momentum: float) -> None:
    """Draw the convolution weights of `module` and set the momentum of its batch norms."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d):
            # The authors draw normal(std=0.001), and then load ImageNet weights over it. From
            # scratch, weights that small make the first steps under batch norm enormous.
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(layer, nn.BatchNorm2d):
            layer.momentum = bn_momentum


def _exchange(channels: list[int], source: int, target: int) -> nn.Module:
    """Layers that bring stream `source` to the channels, and if finer to the size, of `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[target], 1, bias=False),
            nn.BatchNorm2d(channels[target]),
        )
    halvings = [channels[source]] * (target - source) + [channels[target]]
    steps = [_conv_bn_relu(c_in, c_out, stride=2) for c_in, c_out in pairwise(halvings)]
    # The sum over streams passes one common ReLU, so that the last step has none.
    return nn.Sequential(*steps[:-1], steps[-1][:2])


def _transition(before: list[int], after: list[int]) -> nn.ModuleList:
    """Layers from the streams of one stage to those of the next: one more, at half the size."""
    kept = [
        nn.Identity() if c_in == c_out else _conv_bn_relu(c_in, c_out, stride=1)
        for c_in, c_out in zip(before, after, strict=False)
    ]
    # Nested only because the authors' key is `transition1.1.0.0.weight`.
    new = nn.Sequential(_conv_bn_relu(before[-1], after[-1], stride=2))
    return nn.ModuleList([*kept, new])


def _widen(transition: nn.ModuleList, features: list[Tensor]) -> list[Tensor]:
    """Apply `transition`: its last entry makes the new stream from the coarsest feature."""
    sources = [*features, features[-1]]
    return [layer(x) for layer, x in zip(transition, sources, strict=True)]


def _conv_bn_relu(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _conv3x3(channels_in, channels_out, stride),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )


def _conv3x3(channels_in: int, channels_out: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=False)


def _check(image: Tensor) -> None:
    if image.dim() != 4 or image.shape[1] != 3 or min(image.shape[-2:]) < 32:
        raise ConfigError(
            f"HRNet cannot take an image batch of shape {tuple(image.shape)}.\n"
            f"Expected (B, 3, H, W) with H and W at least 32: a normalised RGB batch.\n"
            "Add the batch dimension, convert to RGB, or enlarge the image or crop."
        )
