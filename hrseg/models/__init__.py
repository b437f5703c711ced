"""Segmentation networks: HRNet backbones, FCN and OCR heads, and the segmenter that joins them.

`@hrseg.models.register_backbone("name")` adds a class or function that returns a `Backbone`.
`@hrseg.models.register_head("name")` adds a class or function (channels, num_classes, ...) that
returns a module; the module maps the list of features to `{"out": logits}`. Both also receive
`align_corners` and `bn_momentum` if they have these parameters.
"""

from hrseg.models.pyramid import FeaturePyramid, create_backbone
from hrseg.models.segmenter import (
    Backbone,
    Segmenter,
    create_model,
    register_backbone,
    register_head,
)

__all__ = [
    "Backbone",
    "FeaturePyramid",
    "Segmenter",
    "create_backbone",
    "create_model",
    "register_backbone",
    "register_head",
]
