"""Networks: HRNet backbones, FCN and OCR heads, and the segmenter that joins them."""

from hrseg.models.pyramid import Backbone, create_backbone
from hrseg.models.segmenter import Segmenter, create_model

__all__ = [
    "Backbone",
    "Segmenter",
    "create_backbone",
    "create_model",
]
