"""HRNet backbone: streams at strides 4, 8, 16 and 32 exchange features (arXiv 1908.07919)."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.models.activation_checkpointing import recomputed
from hrseg.models.blocks import BasicBlock, Bottleneck, conv3x3, conv_bn_relu, initialise, resize
from hrseg.utils.registry import find


class Variant(NamedTuple):
    """Row of the authors' table; stream i of a stage has `width * 2**i` channels."""

    stage1_blocks: int
    stage1_channels: int
    modules: tuple[int, int, int]
    blocks: int
    width: int


VARIANTS = {
    "hrnet_w18_small_v1": Variant(1, 32, (1, 1, 1), 2, 16),
    "hrnet_w18_small_v2": Variant(2, 64, (1, 3, 2), 2, 18),
    "hrnet_w18": Variant(4, 64, (1, 4, 3), 4, 18),
    "hrnet_w30": Variant(4, 64, (1, 4, 3), 4, 30),
    "hrnet_w32": Variant(4, 64, (1, 4, 3), 4, 32),
    "hrnet_w40": Variant(4, 64, (1, 4, 3), 4, 40),
    "hrnet_w44": Variant(4, 64, (1, 4, 3), 4, 44),
    "hrnet_w48": Variant(4, 64, (1, 4, 3), 4, 48),
    "hrnet_w64": Variant(4, 64, (1, 4, 3), 4, 64),
}

# Output streams of a representation, finest 0 (section 3.1 and the ablations of the paper).
OUTPUTS = {
    "v1": (0,),
    "v1h": (0,),
    "v2": (0, 1, 2, 3),
    "stream_2": (1,),
    "stream_3": (2,),
    "stream_4": (3,),
}
# Modules with a fusion of the streams (ablation of the paper): all, the last of each stage, or only
# the last of the network.
EXCHANGES = {"all": "all", "stages": "stages", "final": "final"}
# Interpolation of coarse streams in the exchange. The authors' ImageNet network uses "nearest".
UPSAMPLES = {"bilinear": "bilinear", "nearest": "nearest"}


class HRNet(nn.Module):
    """HRNet backbone, with the attribute names of the authors' state dict.

    Set `recompute` for activation checkpointing: training keeps only the inputs of each part, and
    computes the activations again in the backward pass.

    Args:
        variant: a key of VARIANTS.
        align_corners: see `create_model`.
        bn_momentum: see `create_model`.
        output: a key of OUTPUTS; see `create_model`.
        upsample: interpolation of coarse streams in the exchange, "bilinear" or "nearest".
        in_channels: see `create_model`.
        exchange: a key of EXCHANGES; see `create_model`.
    """

    def __init__(
        self,
        variant: str,
        align_corners: bool = False,
        bn_momentum: float = 0.01,
        output: str = "v2",
        upsample: str = "bilinear",
        in_channels: int = 3,
        exchange: str = "all",
    ) -> None:
        super().__init__()
        row = find(VARIANTS, variant, "backbone")
        self.variant, self.upsample = variant, find(UPSAMPLES, upsample, "upsample")
        self.output, streams = output, find(OUTPUTS, output, "output")
        self.exchange = find(EXCHANGES, exchange, "exchange")
        widths = [row.width * 2**i for i in range(4)]
        self.channels, self.strides = [widths[i] for i in streams], [4 * 2**i for i in streams]
        self.align_corners = align_corners
        self.recompute = False

        self.in_channels = in_channels
        self.conv1 = conv3x3(in_channels, 64, stride=2)
        self.bn1 = nn.BatchNorm2d(64)
        self.conv2 = conv3x3(64, 64, stride=2)
        self.bn2 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        stage1 = row.stage1_channels * Bottleneck.expansion
        self.layer1 = nn.Sequential(
            Bottleneck(64, row.stage1_channels),
            *(Bottleneck(stage1, row.stage1_channels) for _ in range(row.stage1_blocks - 1)),
        )
        self.transition1 = _transition([stage1], widths[:2])
        self.stage2 = self._stage(2, row)
        self.transition2 = _transition(widths[:2], widths[:3])
        self.stage3 = self._stage(3, row)
        self.transition3 = _transition(widths[:3], widths)
        self.stage4 = self._stage(4, row, streams)
        if output == "v1h":
            self.channels = [sum(widths)]
            self.widen = nn.Sequential(
                nn.Conv2d(widths[0], sum(widths), 1, bias=False),
                nn.BatchNorm2d(sum(widths)),
                nn.ReLU(inplace=True),
            )
        initialise(self, bn_momentum)

    def _stage(self, streams: int, row: Variant, outputs: Sequence[int] = ()) -> nn.Sequential:
        channels = [row.width * 2**i for i in range(streams)]
        targets: list[Sequence[int]] = [range(streams)] * row.modules[streams - 2]
        if self.exchange != "all":
            targets[:-1] = [()] * (len(targets) - 1)
        if self.exchange == "final":
            targets[-1] = ()
        if outputs:
            targets[-1] = outputs
        return nn.Sequential(
            *(
                ExchangeModule(channels, row.blocks, self.align_corners, kept, self.upsample)
                for kept in targets
            )
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return features i (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])).

        Args:
            image: normalised RGB, (B, 3, H, W) with H and W at least 32; or `in_channels` instead
                of 3 channels.

        Raises:
            ConfigError: the image has another shape.
        """
        count = self.in_channels
        if image.dim() != 4 or image.shape[1] != count or min(image.shape[-2:]) < 32:
            layout = f"{'RGB ' if count == 3 else ''}batch (B, {count}, H, W)"
            raise ConfigError(
                f"The image batch has the shape {tuple(image.shape)}.\n"
                f"Expected: a normalised {layout} with H and W at least 32.\n"
                "Fix: add the batch dimension, convert to RGB, or enlarge the image or crop."
            )
        x = self.relu(self.bn1(self.conv1(image)))
        x = self.relu(self.bn2(self.conv2(x)))
        features: list[Tensor] = [self._run(self.layer1, x)]
        for transition, stage in (
            (self.transition1, self.stage2),
            (self.transition2, self.stage3),
            (self.transition3, self.stage4),
        ):
            # The last entry of a transition derives the new stream from the coarsest feature.
            sources = [*features, features[-1]]
            features = [layer(x) for layer, x in zip(transition, sources, strict=True)]
            for module in stage:
                features = self._run(module, features)
        return [self._run(self.widen, features[0])] if self.output == "v1h" else features

    def _run(self, module: nn.Module, x: Any) -> Any:
        return recomputed(module, x) if self.recompute and self.training else module(x)


class ExchangeModule(nn.Module):
    """Residual blocks on every stream; then each output stream is the sum over all streams.

    Args:
        channels: channels of the streams, finest first.
        blocks: residual blocks per stream.
        align_corners: see `create_model`.
        targets: output streams, finest 0. Others are not built, because DDP fails at unused
            parameters. Empty: no fusion; the output is the streams after their residual blocks.
            The ReLU of the fusion would not change them, because each block ends with a ReLU.
        upsample: see `HRNet`.
    """

    def __init__(
        self,
        channels: list[int],
        blocks: int,
        align_corners: bool,
        targets: Sequence[int],
        upsample: str = "bilinear",
    ) -> None:
        super().__init__()
        self.align_corners, self.upsample = align_corners, upsample
        self.branches = nn.ModuleList(
            nn.Sequential(*(BasicBlock(width) for _ in range(blocks))) for width in channels
        )
        self.fuse_layers = nn.ModuleDict(
            {
                str(target): nn.ModuleList(
                    _exchange(channels, source, target) for source in range(len(channels))
                )
                for target in targets
            }
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        streams = [branch(x) for branch, x in zip(self.branches, features, strict=True)]
        if not self.fuse_layers:
            return streams
        return [self.relu(self._fuse(int(target), streams)) for target in self.fuse_layers]

    def _fuse(self, target: int, streams: list[Tensor]) -> Tensor:
        layers = self.fuse_layers[str(target)]
        assert isinstance(layers, nn.ModuleList)
        # The authors' order of summation: finest stream first.
        total = layers[0](streams[0])
        for source in range(1, len(streams)):
            x = layers[source](streams[source])
            if source > target:
                x = resize(x, streams[target], self.align_corners, self.upsample)
            total = total + x
        return total  # type: ignore[no-any-return]


def _exchange(channels: list[int], source: int, target: int) -> nn.Module:
    """Return layers from stream `source` to the channels and, if coarser, the size of `target`."""
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(
            nn.Conv2d(channels[source], channels[target], 1, bias=False),
            nn.BatchNorm2d(channels[target]),
        )
    halvings = [channels[source]] * (target - source) + [channels[target]]
    steps = [conv_bn_relu(c_in, c_out, stride=2) for c_in, c_out in pairwise(halvings)]
    # The last step has no ReLU, because one ReLU follows the sum over streams.
    return nn.Sequential(*steps[:-1], steps[-1][:2])


def _transition(before: list[int], after: list[int]) -> nn.ModuleList:
    """Return layers from the streams of a stage to the next stage, with one more at half size."""
    existing = [
        nn.Identity() if c_in == c_out else conv_bn_relu(c_in, c_out, stride=1)
        for c_in, c_out in zip(before, after, strict=False)
    ]
    # Nested to match the authors' key `transition1.1.0.0.weight`.
    new = nn.Sequential(conv_bn_relu(before[-1], after[-1], stride=2))
    return nn.ModuleList([*existing, new])
