"""Feature pyramid: HRNet as a backbone for torchvision's detectors, with named maps."""

from collections import OrderedDict

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.models.fcn import concatenate
from hrseg.models.hrnet import HRNet
from hrseg.utils.registry import find

REPRESENTATIONS = {"v1": "v1", "v2": "v2", "v2p": "v2"}  # -> output of the HRNet
PYRAMID = {"0": 1, "1": 2, "2": 4, "3": 8, "pool": 16}  # name of a level -> pooling of stride 4
PYRAMID_CHANNELS = 256


def create_backbone(
    backbone: str,
    output: str = "v2p",
    align_corners: bool = False,
    bn_momentum: float = 0.1,
) -> "FeaturePyramid":
    """Build an HRNet with random weights that returns named maps.

    Args:
        backbone: a key of VARIANTS, for example "hrnet_w18".
        output: "v1", the stream of stride 4; "v2", all four, concatenated at stride 4; or "v2p", a
            pyramid of five maps with 256 channels, at strides 4 to 64.
        align_corners: see `create_model`.
        bn_momentum: see `create_model`.

    Examples:
        >>> import torch
        >>> maps = create_backbone("hrnet_w18_small_v1").eval()(torch.zeros(1, 3, 64, 64))
        >>> tuple(maps["0"].shape), tuple(maps["1"].shape)
        ((1, 256, 16, 16), (1, 256, 8, 8))
    """
    streams = find(REPRESENTATIONS, output, "output")
    return FeaturePyramid(HRNet(backbone, align_corners, bn_momentum, streams), output)


class FeaturePyramid(nn.Module):
    """The three representations of the paper (arXiv 1908.07919, section 3.1; 1904.04514)."""

    def __init__(self, backbone: HRNet, output: str) -> None:
        super().__init__()
        self.backbone = backbone
        self.output = output
        width = sum(backbone.channels)
        self.channels, self.strides = [width], [4]
        if output == "v2p":
            self.channels = [PYRAMID_CHANNELS] * len(PYRAMID)
            self.strides = [4 * pooling for pooling in PYRAMID.values()]
            self.reduction_conv = nn.Conv2d(width, PYRAMID_CHANNELS, 1)
            self.fpn_convs = nn.ModuleList(
                nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1) for _ in PYRAMID
            )
            for conv in (self.reduction_conv, *self.fpn_convs):
                # No ReLU follows. The authors' initialisation keeps the scale of the features.
                nn.init.kaiming_uniform_(conv.weight, a=1)
                nn.init.zeros_(conv.bias)
        self.out_channels = self.channels[0]  # used by torchvision

    def forward(self, image: Tensor) -> OrderedDict[str, Tensor]:
        """Return maps i (B, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) by name."""
        joined = concatenate(self.backbone(image), self.backbone.align_corners)
        if self.output != "v2p":
            return OrderedDict({"0": joined})
        reduced = self.reduction_conv(joined)
        levels = zip(PYRAMID.items(), self.fpn_convs, strict=True)
        return OrderedDict(
            (name, conv(F.avg_pool2d(reduced, side, ceil_mode=True) if side > 1 else reduced))
            for (name, side), conv in levels
        )
