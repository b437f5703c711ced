"""Backbone plugin: plain convolutions, `model.backbone=tiny` or `{name: tiny, width: 32}`."""

from itertools import pairwise

from torch import Tensor, nn

import hrseg


@hrseg.models.register_backbone("tiny")
class Tiny(nn.Module):
    """Three stages at strides 2, 4 and 8. The last two give the features.

    Args:
        width: channels of the first stage; each later stage doubles them.
    """

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.channels, self.strides = [2 * width, 4 * width], [4, 8]
        sizes = (3, width, 2 * width, 4 * width)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            )
            for inputs, outputs in pairwise(sizes)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the features of a normalised image (B, 3, H, W), highest resolution first."""
        features = [image]
        for stage in self.stages:
            features.append(stage(features[-1]))
        return features[2:]
