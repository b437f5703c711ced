"""Evaluation protocols: named presets of explicit fields, stored with each score.

The scores of one checkpoint differ by several points between the usual protocols, so that a score
is meaningful only with its protocol. `inference/evaluator.py` implements the fields.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from hrseg.utils.registry import find
from hrseg.utils.validation import Arguments, expected, option

Average = Literal["softmax", "exp_logits", "logits"]
ScoresAt = Literal["window", "image"]
Side = Annotated[int, Field(ge=32, le=2**16)]
Step = Annotated[int, Field(ge=1, le=2**16)]
Byte = Annotated[int, Field(ge=0, le=255)]
Color = tuple[Byte, Byte, Byte]


def _each_once(scales: tuple[float, ...]) -> tuple[float, ...]:
    if len(set(scales)) < len(scales):
        raise expected("each scale once, e.g. [0.75, 1.0].")
    return scales


Scales = Annotated[
    tuple[Annotated[float, Field(ge=0.01, le=100)], ...],
    Field(min_length=1, max_length=32),
    AfterValidator(_each_once),
]


class Protocol(Arguments, frozen=True):  # type: ignore[misc]
    """Settings of an evaluation; part of every score and of the config's section `inference`.

    An evaluation first resizes and pads the image. For each scale it resizes the image again, cuts
    it into windows, runs the windows and their mirror images, and joins the results. It crops the
    padding, resizes the results to the size of the ground truth and sums them over the scales.

    Raises:
        ConfigError: an invalid value.

    Example:
        >>> protocol = Protocol(scales=(0.75, 1.0), flip=True)
        >>> print(protocol.changed(window=(512, 1024)))
        plain: scales 0.75, 1, flip, window 512x1024
    """

    prefix = "inference."

    name: Annotated[str, Field(strict=True, pattern=r"^[^\x00-\x1f]{1,200}$")] = option(
        "name of the preset with the other values", "plain"
    )
    resize: Annotated[tuple[Side, ...], Field(max_length=2)] = option(
        "size before all other steps, in pixels: [] unchanged, [short side], or [height, width]",
        (),
        examples=[(520,)],
    )
    pad_multiple: int = option(
        "multiple, in pixels, to which the resized image is padded at the bottom and right",
        1,
        ge=1,
        le=2**16,
    )
    pad_color: Color = option("RGB colour of that padding", (0, 0, 0))
    crop_padding: bool = option(
        "crop that padding from the scores; false: resize the padded scores to the ground truth",
        True,
    )
    scales: Scales = option("scales of multi-scale inference", (1.0,))
    base_size: int = option(
        "long side of the image at scale 1, in pixels; 0: the image's own", 0, ge=0, le=2**16
    )
    window: tuple[()] | tuple[Side, Side] = option(
        "sliding window (height, width), in pixels; []: the whole image",
        (),
        examples=[(512, 1024)],
    )
    stride: tuple[()] | tuple[Step, Step] = option(
        "steps of the sliding window (height, width), in pixels; []: the size of the window",
        (),
        examples=[(256, 512)],
    )
    window_above: float = option("largest scale without sliding windows", 0.0, ge=0)
    window_border: Literal["shift", "pad"] = option(
        "windows beyond the border: shift moves them back, pad pads them", "shift"
    )
    window_color: Color = option("RGB colour of the padding of windows", (0, 0, 0))
    flip: bool = option("average over the image and its mirror image", False)
    flip_average: Literal["logits", "scores"] = option(
        "values averaged over image and mirror image", "logits"
    )
    # The authors sum exp(logits), mmsegmentation softmax, MIC-DKFZ/semantic_segmentation raw
    # logits: three rules, three scores.
    average: Average = option("scores summed over scales and windows", "softmax")
    scores_at: ScoresAt = option(
        "logits become scores in each window, or after joining at the size of the image", "window"
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | None = option(
        "smallest probability of the foreground, for two classes; null: the likelier class",
        None,
        examples=[0.35],
    )
    absent_classes: Literal["skipped", "zero"] = option(
        "classes without a pixel: skipped in the mean over classes, or counted as zero", "skipped"
    )

    @field_validator("stride")
    @classmethod
    def _within_the_window(cls, stride: tuple[int, ...], info: ValidationInfo) -> tuple[int, ...]:
        window = info.data.get("window", stride)
        if any(step > side for step, side in zip(stride, window or (0, 0), strict=False)):
            raise expected(f"at most the window, {list(window)}.")
        return stride

    def changed(self, **values: Any) -> Self:
        """Return a protocol with other values of some fields, validated."""
        return type(self)(**{**dict(self), **values})

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `Protocol(**data)` makes the same protocol.

        Fields of `_OMITTED` are left out at their default, so that earlier versions can read the
        data.
        """
        values = ((key, list(v) if isinstance(v, tuple) else v) for key, v in self)
        omitted = _OMITTED.items()
        return {key: value for key, value in values if (key, value) not in omitted}

    def __str__(self) -> str:
        """Return the preset, the scales, the flip, and the other fields that differ from plain."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        shown = ("name", "scales", "flip")
        others = [
            f"{name} {'x'.join(map(str, value)) if isinstance(value, tuple) else value}".lower()
            for name, value in self
            if name not in shown and value != type(self).model_fields[name].default
        ]
        return ", ".join([f"{self.name}: scales {scales}{', flip' * self.flip}", *others])


# Defaults of the fields added after the first format of checkpoints.
_OMITTED: Mapping[str, Any] = {"crop_padding": True, "threshold": None}

_SIX_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
_OFFICIAL: dict[str, Any] = {"flip": True, "average": "exp_logits", "absent_classes": "zero"}
# Branch HRNet-OCR, lib/datasets/pascal_ctx.py; cocostuff.py does the same. The stride is
# int(520 * 2 / 3); the padding is the mean colour of ImageNet.
_PASCAL_CONTEXT = Protocol(
    name="official_pascal_context",
    resize=(520,),
    pad_multiple=8,
    pad_color=(124, 116, 104),
    scales=(*_SIX_SCALES, 2.0),
    base_size=520,
    window=(520, 520),
    stride=(346, 346),
    window_border="pad",
    **_OFFICIAL,
)

PROTOCOLS: dict[str, Protocol] = {
    "plain": Protocol(),
    # HRNet-Semantic-Segmentation: lib/datasets/cityscapes.py, multi_scale_inference.
    "official_cityscapes": Protocol(
        name="official_cityscapes",
        scales=_SIX_SCALES,
        base_size=2048,
        window=(1024, 2048),
        stride=(1024, 2048),
        window_above=1.0,
        **_OFFICIAL,
    ),
    "official_pascal_context": _PASCAL_CONTEXT,
    # lib/datasets/ade20k.py returns no size of the padding, so that nothing crops it: the padded
    # scores are resized to the ground truth.
    "official_ade20k": _PASCAL_CONTEXT.changed(name="official_ade20k", crop_padding=False),
    # lib/datasets/lip.py: no scales, only the mirror image, its left and right classes swapped.
    "official_lip": Protocol(name="official_lip", resize=(473, 473), **_OFFICIAL),
    # mmsegmentation 1.2: every view is resized to the image before its softmax.
    "mmseg": Protocol(
        name="mmseg", scales=_SIX_SCALES, flip=True, flip_average="scores", scores_at="image"
    ),
}


def make_protocol(name: str, changed: Mapping[str, Any]) -> Protocol:
    """Return the preset `name` with the values of `changed`, without None, validated."""
    preset = dict(find(PROTOCOLS, name, "inference.protocol"))
    values = {key: changed[key] for key in preset if changed.get(key) is not None}
    return Protocol(**{**preset, **values})
