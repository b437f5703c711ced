"""Published weights: ImageNet weights of backbones, and the authors' segmentation checkpoints."""

from typing import NamedTuple

from hrseg.errors import ConfigError
from hrseg.utils.registry import find

RELEASE_URL = "https://github.com/hsfzxjy/models.storage/releases/download/HRNet-OCR"
LICENCE = "MIT"  # licence in the authors' repositories and timm's model cards


class Start(NamedTuple):
    """ImageNet weights of a backbone on the Hugging Face Hub, in timm's repositories.

    Attributes:
        word: value of `model.weights`.
        backbone: a key of VARIANTS.
        repository: repository on the Hub, with the file model.safetensors.
        megabytes: size of the file in MB.
    """

    word: str
    backbone: str
    repository: str
    megabytes: int


# Source of the names: timm 1.0.31, timm/models/hrnet.py. Sizes are in float32.
STARTS = (
    Start("imagenet", "hrnet_w18_small_v1", "timm/hrnet_w18_small.ms_in1k", 53),
    Start("imagenet", "hrnet_w18_small_v2", "timm/hrnet_w18_small_v2.ms_in1k", 63),
    Start("imagenet", "hrnet_w18", "timm/hrnet_w18.ms_in1k", 85),
    Start("imagenet", "hrnet_w30", "timm/hrnet_w30.ms_in1k", 151),
    Start("imagenet", "hrnet_w32", "timm/hrnet_w32.ms_in1k", 165),
    Start("imagenet", "hrnet_w40", "timm/hrnet_w40.ms_in1k", 231),
    Start("imagenet", "hrnet_w44", "timm/hrnet_w44.ms_in1k", 269),
    Start("imagenet", "hrnet_w48", "timm/hrnet_w48.ms_in1k", 310),
    Start("imagenet", "hrnet_w64", "timm/hrnet_w64.ms_in1k", 513),
    Start("ssld", "hrnet_w18", "timm/hrnet_w18_ssld.paddle_in1k", 85),
    Start("ssld", "hrnet_w48", "timm/hrnet_w48_ssld.paddle_in1k", 310),
)
WORDS = {
    "imagenet": "the authors' ImageNet classifiers",
    "ssld": "PaddlePaddle's ImageNet classifiers, trained with SSLD distillation",
}


class Release(NamedTuple):
    """A segmentation checkpoint of the authors.

    Attributes:
        name: file name without .pth.
        data: data set and split of the score.
        miou: published mIoU in percent.
        protocol: evaluation protocol of the score.
        config: shipped config of the network, with overrides.
        megabytes: size of the network's tensors in MB.
    """

    name: str
    data: str
    miou: float
    protocol: str
    config: str
    megabytes: int

    @property
    def url(self) -> str:
        """Address of the file."""
        return f"{RELEASE_URL}/{self.name}.pth"


# Source: README of HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR, which has no checksums.
RELEASES = tuple(Release(*row) for row in (
    ("hrnet_cs_8090_torch11", "Cityscapes val", 80.9, "single scale", "cityscapes_w48", 264),
    ("hrnet_ocr_cs_8162_torch11", "Cityscapes val", 81.6, "single scale",
     "cityscapes_w48_ocr", 282),
    ("hrnet_ocr_cs_trainval_8227_torch11", "Cityscapes test", 82.3, "multi-scale, flip",
     "cityscapes_w48_ocr_trainval", 282),
    ("hrnet_lip_5583_torch04", "LIP val", 55.8, "flip", "lip_w48", 264),
    ("hrnet_ocr_lip_5648_torch04", "LIP val", 56.5, "flip", "lip_w48_ocr", 282),
    ("hrnet_pascal_ctx_5410_torch11", "PASCAL-Context 59", 54.1, "multi-scale, flip",
     "pascal_context_59_w48", 264),
    ("hrnet_ocr_pascal_ctx_5618_torch11", "PASCAL-Context 59", 56.2, "multi-scale, flip",
     "pascal_context_59_w48_ocr", 282),
    ("hrnet_cocostuff_3617_torch04", "COCO-Stuff 10K test", 36.2, "single scale",
     "cocostuff10k_w48", 265),
    ("hrnet_ocr_cocostuff_3965_torch04", "COCO-Stuff 10K test", 39.7, "single scale",
     "cocostuff10k_w48_ocr", 283),
    ("hrnet_ade20k_4312_torch04", "ADE20K val", 43.1, "single scale", "ade20k_w48", 265),
    ("hrnet_ocr_ade20k_4451_torch04", "ADE20K val", 44.5, "single scale", "ade20k_w48_ocr", 283),
))  # fmt: skip


def start_of(word: str, backbone: str) -> Start:
    """Return the ImageNet weights of a backbone for a word of `model.weights`.

    Raises:
        ConfigError: if no such weights are published for this backbone.
    """
    rows = {start.backbone: start for start in STARTS if start.word == word}
    if backbone not in rows:
        others = {start.word for start in STARTS if start.backbone == backbone}
        instead = [f"model.weights={other}" for other in sorted(others)]
        raise ConfigError(
            f"model.weights={word}: no such weights are published for the backbone {backbone}.\n"
            f"Expected: one of {', '.join(rows)}.\n"
            f"Fix: {' or '.join([*instead, 'model.weights=null'])}"
        )
    return rows[backbone]


def release_of(name: str) -> Release:
    """Return a segmentation checkpoint by its name.

    Raises:
        ConfigError: if the name is unknown; the message contains the nearest name.
    """
    return find({release.name: release for release in RELEASES}, name, "published checkpoint")
