"""OCR head: object-contextual representations (arXiv 1909.11065)."""

import torch
from torch import Tensor, nn

from hrseg.models.blocks import initialise
from hrseg.models.fcn import concatenate

MIDDLE, KEY = 512, 256  # channels of the pixel representation, and of the attention
DROPOUT = 0.05


class OCRHead(nn.Module):
    """OCR head: soft object regions, their representations, and attention of pixels to them.

    The attribute names are those of the authors' state dict (`lib/models/seg_hrnet_ocr.py`).
    """

    output_names = ("out", "aux")  # keys of the result; a loss refers to one of them

    def __init__(
        self,
        channels: list[int],
        num_classes: int,
        align_corners: bool = False,
        bn_momentum: float = 0.01,
    ) -> None:
        super().__init__()
        self.align_corners = align_corners
        width = sum(channels)
        regions = nn.Conv2d(width, num_classes, 1)
        self.aux_head = nn.Sequential(
            nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU(inplace=True), regions
        )
        self.conv3x3_ocr = nn.Sequential(
            nn.Conv2d(width, MIDDLE, 3, padding=1), nn.BatchNorm2d(MIDDLE), nn.ReLU(inplace=True)
        )
        self.ocr_distri_head = _ObjectContext()
        self.cls_head = nn.Conv2d(MIDDLE, num_classes, 1)
        initialise(self, bn_momentum)
        # As in the FCN head, the first loss is log(num_classes). All regions start equal.
        for classifier in (regions, self.cls_head):
            nn.init.normal_(classifier.weight, std=0.001)

    def forward(self, features: list[Tensor]) -> dict[str, Tensor]:
        """Return logits (B, K, H_0, W_0) named "out" and "aux"; "aux" defines the regions."""
        joined = concatenate(features, self.align_corners)
        aux = self.aux_head(joined)
        pixels = self.conv3x3_ocr(joined)
        context = self.ocr_distri_head(pixels, gather(pixels, aux))
        return {"out": self.cls_head(context), "aux": aux}


def gather(pixels: Tensor, logits: Tensor) -> Tensor:
    """Return the mean (B, C, K, 1) of pixels (B, C, H, W), weighted by logits (B, K, H, W)."""
    # In float32, because the sum runs over all pixels of the image.
    weights = logits.flatten(2).float().softmax(2).to(pixels.dtype)
    return (pixels.flatten(2) @ weights.transpose(1, 2)).unsqueeze(3)


class _ObjectContext(nn.Module):
    """Attention of pixels (B, C, H, W) to objects (B, C, K, 1), joined with the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.object_context_block = _ObjectAttention()
        self.conv_bn_dropout = nn.Sequential(*_conv(2 * MIDDLE, MIDDLE), nn.Dropout2d(DROPOUT))

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        context = self.object_context_block(pixels, objects)
        return self.conv_bn_dropout(torch.cat([context, pixels], dim=1))  # type: ignore[no-any-return]


class _ObjectAttention(nn.Module):
    """Scaled dot-product attention: pixels are queries, objects are keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.f_pixel = nn.Sequential(*_conv(MIDDLE, KEY), *_conv(KEY, KEY))
        self.f_object = nn.Sequential(*_conv(MIDDLE, KEY), *_conv(KEY, KEY))
        self.f_down = nn.Sequential(*_conv(MIDDLE, KEY))
        self.f_up = nn.Sequential(*_conv(KEY, MIDDLE))

    def forward(self, pixels: Tensor, objects: Tensor) -> Tensor:
        query = self.f_pixel(pixels).flatten(2).transpose(1, 2)  # (B, HW, key)
        key = self.f_object(objects).flatten(2)  # (B, key, K)
        value = self.f_down(objects).flatten(2).transpose(1, 2)  # (B, K, key)
        # The factor 1/16 precedes the product, which would overflow float16; the result is equal.
        attention = (query @ (KEY**-0.5 * key)).float().softmax(2).to(value.dtype)
        context = (attention @ value).transpose(1, 2).unflatten(2, pixels.shape[-2:])
        return self.f_up(context)  # type: ignore[no-any-return]


def _conv(channels_in: int, channels_out: int) -> tuple[nn.Module, nn.Module]:
    """Return a 1x1 convolution and a norm, nested to match the authors' `f_pixel.1.0.weight`."""
    norm = nn.Sequential(nn.BatchNorm2d(channels_out), nn.ReLU(inplace=True))
    return nn.Conv2d(channels_in, channels_out, 1, bias=False), norm
