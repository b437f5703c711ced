"""Segmenter: a backbone and a head, with the upsampling to image size."""

from collections.abc import Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.models.activation_checkpointing import recomputed
from hrseg.models.fcn import FCNHead
from hrseg.models.hrnet import VARIANTS, HRNet
from hrseg.models.ocr import OCRHead
from hrseg.utils.registry import find

HEADS: dict[str, type[FCNHead] | type[OCRHead]] = {"fcn": FCNHead, "ocr": OCRHead}


def create_model(
    backbone: str,
    head: str = "fcn",
    num_classes: int = 19,
    align_corners: bool = False,
    bn_momentum: float = 0.01,
    output: str = "v2",
) -> "Segmenter":
    """Build a segmentation model with random weights.

    Args:
        backbone: a key of `hrnet.VARIANTS`, for example "hrnet_w48".
        head: a key of HEADS.
        num_classes: 1 to 255.
        align_corners: the rule of every bilinear interpolation in the model; a released checkpoint
            reproduces its figures only under the rule that it was trained with.
        bn_momentum: weight of the newest batch in the running statistics, 0 to 1.
        output: what the head sees: "v1", the stream of stride 4 alone, or "v2", all four.

    Raises:
        ConfigError: unknown name, or a number of classes out of range.
    """
    find(VARIANTS, backbone, "backbone")
    head_type = find(HEADS, head, "head")
    if not 1 <= num_classes <= 255:
        raise ConfigError(f"num_classes is {num_classes}, expected 1 to 255 (255 marks void).")
    body = HRNet(backbone, align_corners, bn_momentum, output)
    model = Segmenter(body, head_type(body.channels, num_classes, align_corners, bn_momentum))
    model.architecture = {
        "backbone": backbone,
        "head": head,
        "num_classes": num_classes,
        "align_corners": align_corners,
        "bn_momentum": bn_momentum,
        "output": output,
    }
    return model


class Segmenter(nn.Module):
    """Backbone and head.

    Attributes:
        architecture: plain data with which `create_model(**architecture)` builds the same model.
    """

    architecture: dict[str, Any]

    def __init__(self, backbone: HRNet, head: nn.Module) -> None:
        """Join a backbone and a head that takes the list of its features."""
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.architecture = {}

    @property
    def align_corners(self) -> bool:
        """The rule of every bilinear interpolation in the model."""
        return self.backbone.align_corners

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits (B, K, H, W) of a normalised image (B, 3, H, W), H and W >= 32."""
        return self.upsample(self.outputs(image)["out"], image.shape[-2:])

    def outputs(self, image: Tensor) -> dict[str, Tensor]:
        """Return logits at head resolution, `{"out": (B, K, ceil(H / 4), ceil(W / 4))}`.

        An OCR head adds "aux", of the same shape.
        """
        features = self.backbone(image)
        if self.backbone.recompute and self.training:
            return recomputed(self.head, features)  # type: ignore[no-any-return]
        return self.head(features)  # type: ignore[no-any-return]

    def upsample(self, logits: Tensor, size: Sequence[int]) -> Tensor:
        """Interpolate logits (B, K, h, w) bilinearly to `size` (height, width), in float32."""
        # Reduced precision ends here: argmax, softmax and losses need float32.
        return F.interpolate(
            logits.float().contiguous(),
            size=tuple(size),
            mode="bilinear",
            align_corners=self.backbone.align_corners,
        )
