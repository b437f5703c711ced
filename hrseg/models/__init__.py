"""Networks: HRNet backbones, FCN and OCR heads, and the segmenter that joins them.

`@hrseg.models.register_backbone("name")` adds a class or function that returns a `Backbone`, and
`@hrseg.models.register_head("name")` one (channels, num_classes, ...) -> module that maps the list
of features to `{"out": logits}`. Both also get align_corners and bn_momentum if they take them.
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
