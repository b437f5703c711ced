"""ImageNet classifier on HRNet, the network of pretrained weights (arXiv 1908.07919, appendix)."""

from itertools import pairwise

from torch import Tensor, nn

from hrseg.models.blocks import Bottleneck
from hrseg.models.hrnet import HRNet

WIDTHS = (32, 64, 128, 256)  # bottleneck channels per stream; their outputs have four times as many
FEATURES = 2048


class ImageNetClassifier(nn.Module):
    """HRNet with the authors' classification head: 1000 ImageNet classes.

    The names of its state dict are those of the published files (the authors', timm). The
    classifier serves to verify these files; segmentation uses only the backbone. The authors'
    `cls_hrnet.py` upsamples by nearest neighbour, so `HRNet(variant, upsample="nearest")`
    reproduces their logits.

    Args:
        backbone: an HRNet with four streams (output "v2").
        num_classes: number of logits; 1000 in the published files.
        conv_bias: bias in the convolutions of the head; False in PaddlePaddle's SSLD files.
    """

    def __init__(self, backbone: HRNet, num_classes: int = 1000, conv_bias: bool = True) -> None:
        super().__init__()
        self.backbone = backbone
        outputs = [width * Bottleneck.expansion for width in WIDTHS]
        self.incre_modules = nn.ModuleList(
            nn.Sequential(Bottleneck(channels, width))
            for channels, width in zip(backbone.channels, WIDTHS, strict=True)
        )
        self.downsamp_modules = nn.ModuleList(
            _conv_bn_relu(nn.Conv2d(fine, coarse, 3, stride=2, padding=1, bias=conv_bias))
            for fine, coarse in pairwise(outputs)
        )
        self.final_layer = _conv_bn_relu(nn.Conv2d(outputs[-1], FEATURES, 1, bias=conv_bias))
        self.classifier = nn.Linear(FEATURES, num_classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, num_classes) of a normalised image (B, 3, H, W)."""
        streams = zip(self.incre_modules, self.backbone(image), strict=True)
        first, *others = (module(feature) for module, feature in streams)
        total: Tensor = first
        for downsample, feature in zip(self.downsamp_modules, others, strict=True):
            total = feature + downsample(total)
        pooled = self.final_layer(total).mean(dim=(-2, -1))
        return self.classifier(pooled)  # type: ignore[no-any-return]


def _conv_bn_relu(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))
