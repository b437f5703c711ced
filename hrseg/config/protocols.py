"""Evaluation protocols: named presets of explicit fields, stored with each score.

One checkpoint scores several points apart under the protocols that are in use, so that a figure
says something only together with its protocol. `inference.py` carries them out.
"""

from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from hrseg.errors import ConfigError
from hrseg.utils.registry import did_you_mean, find

Color = tuple[int, int, int]

CHOICES = {
    # What is summed over scales and windows. The authors sum exp(logits), mmsegmentation softmax,
    # MIC-DKFZ/semantic_segmentation raw logits: three rules, three scores.
    "average": ("softmax", "exp_logits", "logits"),
    "scores_at": ("window", "image"),
    "flip_average": ("logits", "scores"),
    "window_border": ("shift", "pad"),
    "absent_classes": ("skipped", "zero"),
}
# Lists: how many numbers, the least, the most, in words.
_LARGE = 2**16
_SIDES = "[] or [height, width] in pixels"
_COLOR = "[red, green, blue], each 0 to 255"
_LISTS: dict[str, tuple[Container[int], float, float, str]] = {
    "scales": (range(1, 33), 0.01, 100, "a list of positive numbers, each once, e.g. [0.75, 1.0]"),
    "resize": ((0, 1, 2), 32, _LARGE, "[], [short side] or [height, width] in pixels from 32 up"),
    "window": ((0, 2), 32, _LARGE, f"{_SIDES}, from 32 up"),
    "stride": ((0, 2), 1, _LARGE, _SIDES),
    "pad_color": ((3,), 0, 255, _COLOR),
    "window_color": ((3,), 0, 255, _COLOR),
}


@dataclass(frozen=True)
class Protocol:
    """How an image is evaluated; part of every score.

    The order of the steps: resize and pad the image; for each scale resize it again, cut it into
    windows, run them and their mirror images, join; bring to the size of the truth; sum over
    scales.

    Attributes:
        name: the preset it started from.
        resize: what is done to the image first: () nothing; (side,) its short side is brought to
            `side`, its shape is kept; (height, width) it is squashed to that.
        pad_multiple: pad it at the bottom and right to a multiple of this.
        pad_color: RGB 0..255 of that padding.
        scales: sizes that the image is then evaluated at.
        base_size: long side in pixels at scale 1; 0: the image's own.
        window: (height, width) of a sliding window; () runs every scale whole.
        stride: (height, width) from one window to the next; () is the window itself.
        window_above: scales up to this are run whole in any case.
        window_border: a window that would reach over the border is moved back ("shift"), or the
            image is padded ("pad").
        window_color: RGB 0..255 of that padding.
        flip: average with the mirror image.
        flip_average: what of the two is averaged: "logits", or "scores".
        average: what is summed over scales: "softmax", "exp_logits", "logits".
        scores_at: where logits become scores by that rule: in each "window", or when the windows
            are joined and have the size of the truth ("image").
        absent_classes: "skipped" or "zero" in the mean over classes.

    Raises:
        ConfigError: a value that cannot be evaluated.
    """

    name: str = "plain"
    resize: tuple[int, ...] = ()
    pad_multiple: int = 1
    pad_color: Color = (0, 0, 0)
    scales: tuple[float, ...] = (1.0,)
    base_size: int = 0
    window: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    window_above: float = 0.0
    window_border: str = "shift"
    window_color: Color = (0, 0, 0)
    flip: bool = False
    flip_average: str = "logits"
    average: str = "softmax"
    scores_at: str = "window"
    absent_classes: str = "skipped"

    def __post_init__(self) -> None:
        """Check the values; any sequence is taken for a tuple."""
        for name, rule in _LISTS.items():
            self._check_list(name, *rule)
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                hint = did_you_mean(str(getattr(self, name)), choices)
                raise ConfigError(f"unknown inference.{name} {getattr(self, name)!r}{hint}")
        if not isinstance(self.flip, bool):
            raise self._error("flip", "true or false")
        if self.pad_multiple < 1:
            raise self._error("pad_multiple", "1 or more")
        if self.base_size < 0:
            raise self._error("base_size", "pixels, or 0")
        steps = zip(self.stride, self.window or (0, 0), strict=False)
        if any(step > side for step, side in steps):
            raise self._error("stride", f"at most the window, {list(self.window)}")

    def _check_list(
        self, name: str, counts: Container[int], least: float, most: float, wanted: str
    ) -> None:
        """Turn a field into a tuple of numbers between `least` and `most`, `counts` of them."""
        kind = float if name == "scales" else int
        try:
            values = tuple(kind(value) for value in getattr(self, name))
            exact = list(values) == list(getattr(self, name))
        except (TypeError, ValueError, OverflowError):
            raise self._error(name, wanted) from None
        in_range = all(least <= value <= most for value in values)
        repeated = name == "scales" and len(set(values)) < len(values)
        if len(values) not in counts or not (exact and in_range) or repeated:
            raise self._error(name, wanted)
        object.__setattr__(self, name, values)

    def _error(self, name: str, wanted: str) -> ConfigError:
        return ConfigError(f"inference.{name} is {getattr(self, name)!r}; expected {wanted}.")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `Protocol(**data)` makes the same protocol."""
        plain = asdict(self)
        return {key: list(v) if isinstance(v, tuple) else v for key, v in plain.items()}

    def __str__(self) -> str:
        """Name the preset, the scales, the flip, and whatever else differs from plain."""
        scales = ", ".join(f"{scale:g}" for scale in self.scales)
        said = f"{self.name}: scales {scales}{', flip' * self.flip}"
        shown = ("name", "scales", "flip")
        others = [
            f"{field.name} {_plain(getattr(self, field.name))}"
            for field in fields(self)
            if field.name not in shown and getattr(self, field.name) != field.default
        ]
        return ", ".join([said, *others])


def _plain(value: Any) -> str:
    return "x".join(map(str, value)) if isinstance(value, tuple) else str(value)


_SIX_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)

PROTOCOLS: dict[str, Protocol] = {
    "plain": Protocol(),
    # HRNet-Semantic-Segmentation: lib/datasets/cityscapes.py, multi_scale_inference.
    "official_cityscapes": Protocol(
        "official_cityscapes",
        scales=_SIX_SCALES,
        base_size=2048,
        window=(1024, 2048),
        stride=(1024, 2048),
        window_above=1.0,
        flip=True,
        average="exp_logits",
        absent_classes="zero",
    ),
    # Branch HRNet-OCR, lib/datasets/pascal_ctx.py; ade20k.py and cocostuff.py do the same. The
    # stride is int(520 * 2 / 3); the padding is the mean colour of ImageNet.
    "official_pascal_context": Protocol(
        "official_pascal_context",
        resize=(520,),
        pad_multiple=8,
        pad_color=(124, 116, 104),
        scales=(*_SIX_SCALES, 2.0),
        base_size=520,
        window=(520, 520),
        stride=(346, 346),
        window_border="pad",
        flip=True,
        average="exp_logits",
        absent_classes="zero",
    ),
    # lib/datasets/lip.py: no scales, only the mirror image, its left and right classes swapped.
    "official_lip": Protocol(
        "official_lip", resize=(473, 473), flip=True, average="exp_logits", absent_classes="zero"
    ),
    # mmsegmentation 1.2: every view is resized to the image before its softmax.
    "mmseg": Protocol(
        "mmseg", scales=_SIX_SCALES, flip=True, flip_average="scores", scores_at="image"
    ),
}


def make_protocol(name: str, changed: Mapping[str, Any]) -> Protocol:
    """Return the preset `name` with the fields of `changed` that are not None.

    Raises:
        ConfigError: no such preset, or a value that cannot be evaluated.
    """
    preset = find(PROTOCOLS, name, "inference.protocol").to_dict()
    given = {key: changed[key] for key in preset if changed.get(key) is not None}
    return Protocol(**{**preset, **given})
