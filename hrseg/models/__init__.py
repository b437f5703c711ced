"""Networks, and the way in and out for their weights."""

from hrseg.models.pyramid import Backbone, create_backbone
from hrseg.models.segmenter import Segmenter, create_model

__all__ = [
    "Backbone",
    "Segmenter",
    "create_backbone",
    "create_model",
]
