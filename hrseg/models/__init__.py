"""Networks, and the way in and out for their weights."""

from hrseg.models.segmenter import Segmenter, create_model

__all__ = ["Segmenter", "create_model"]
