"""From a normalised image to class ids: several scales, flips, and how their scores are joined.

Takes a callable from images to logits and knows neither data sets nor models. The order of the
steps is the authors' (HRNet-Semantic-Segmentation, lib/datasets/base_dataset.py): logits are
brought to the size of the scaled image, averaged over the flip, turned into scores by the
averaging rule, brought to the size of the truth, and summed over scales.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.errors import ConfigError, ProofError
from hrseg.lookup import did_you_mean, find

Model = Callable[[Tensor], Tensor]

# What is summed over the scales. The authors sum exp(logits), mmsegmentation softmax,
# MIC-DKFZ/semantic_segmentation raw logits: three rules, three scores for one checkpoint.
AVERAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda logits: logits.softmax(1),
    # In float64: exp(89) is infinite in float32, and two infinities have no order.
    "exp_logits": lambda logits: logits.double().exp(),
    # A copy, since the scores of the other scales are added in place.
    "logits": torch.clone,
}
ABSENT_CLASSES = ("skipped", "zero")
MIN_SIZE = 32


@dataclass(frozen=True)
class Protocol:
    """How an image is evaluated; part of every score.

    Attributes:
        name: the preset it started from.
        scales: sizes the image is evaluated at, relative to its own.
        flip: average the logits with those of the mirrored image.
        average: what is summed over scales: softmax, exp_logits or logits.
        absent_classes: "skipped" or "zero" in the mean over classes.

    Raises:
        ConfigError: a value that cannot be evaluated.
    """

    name: str = "plain"
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    average: str = "softmax"
    absent_classes: str = "skipped"

    def __post_init__(self) -> None:
        """Check the values; any sequence of numbers is taken for the scales."""
        try:
            scales = tuple(float(scale) for scale in self.scales)
        except (TypeError, ValueError):
            scales = ()
        usable = [0 < scale < math.inf for scale in scales]
        if not scales or not all(usable) or len(set(scales)) < len(scales):
            raise ConfigError(
                f"inference.scales is {self.scales!r}; expected a list of positive numbers, "
                "each once, for example [0.75, 1.0, 1.25]."
            )
        object.__setattr__(self, "scales", scales)
        if not isinstance(self.flip, bool):
            raise ConfigError(f"inference.flip is {self.flip!r}; expected true or false.")
        find(AVERAGES, self.average, "averaging rule (inference.average)")
        if self.absent_classes not in ABSENT_CLASSES:
            hint = did_you_mean(self.absent_classes, ABSENT_CLASSES)
            raise ConfigError(f"unknown inference.absent_classes {self.absent_classes!r}{hint}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data from which `Protocol(**data)` makes the same protocol."""
        return {**asdict(self), "scales": list(self.scales)}


PROTOCOLS: dict[str, Protocol] = {"plain": Protocol()}


@dataclass
class Result:
    """What was seen in one image.

    Attributes:
        pred: fused ids (H, W), uint8.
        per_scale: ids (H, W), uint8, of each scale alone.
        scores: fused scores (1, K, H, W), float32, if they were asked for.
    """

    pred: Tensor
    per_scale: dict[float, Tensor]
    scores: Tensor | None = None


@torch.inference_mode()
def multi_scale(
    model: Model,
    image: Tensor,
    protocol: Protocol,
    size: Sequence[int] | None = None,
    flip_pairs: Sequence[Sequence[int]] = (),
    align_corners: bool = False,
    keep_scores: bool = False,
) -> Result:
    """Evaluate one image at every scale of the protocol, holding one scale's scores at a time.

    Args:
        model: normalised images (B, 3, h, w) -> logits (B, K, any size), K up to 256.
        image: normalised, (1, 3, H, W).
        protocol: scales, flip, averaging rule.
        size: (height, width) of the result; the image's own by default.
        flip_pairs: channels that trade places in a mirrored image.
        align_corners: the model's rule for interpolating logits; images never align corners.
        keep_scores: return the fused scores as well.

    Raises:
        ValueError: `image` is not one image.
    """
    if image.ndim != 4 or len(image) != 1:
        raise ValueError(f"image is {tuple(image.shape)}, expected (1, 3, H, W)")
    size = tuple(size or image.shape[-2:])
    fused: Tensor | None = None
    per_scale: dict[float, Tensor] = {}
    for scale in protocol.scales:
        scaled = _resize(image, scale)
        scores = _logits(model, scaled, protocol.flip, flip_pairs, align_corners)
        # Every averaging rule rises with the logit: of one scale, at its size, the rank suffices.
        if len(protocol.scales) > 1 or scaled.shape[-2:] != size or keep_scores:
            scores = _interpolate(AVERAGES[protocol.average](scores), size, align_corners)
        per_scale[scale] = pred = _ids(scores)
        fused = scores if fused is None else fused.add_(scores)
        del scores  # else it would take its memory through the next scale's forward pass
    if fused is not None and len(per_scale) > 1:
        pred = _ids(fused)
    return Result(pred, per_scale, fused.float() if keep_scores and fused is not None else None)


def _logits(
    model: Model,
    image: Tensor,
    flip: bool,
    flip_pairs: Sequence[Sequence[int]],
    align_corners: bool,
) -> Tensor:
    """Return float32 logits (1, K, h, w) at the size of `image`, averaged over the flip."""
    # Reduced precision ends here: interpolation, exp and argmax need float32.
    logits = model(torch.cat([image, image.flip(-1)]) if flip else image).float()
    if flip:
        # Averaged before the interpolation, which is linear and symmetric, and so costs half.
        straight, mirrored = logits.chunk(2)
        logits = (straight + mirrored[:, _swapped(logits.shape[1], flip_pairs)].flip(-1)) / 2
    return _interpolate(logits, image.shape[-2:], align_corners)


def _swapped(num_classes: int, flip_pairs: Sequence[Sequence[int]]) -> list[int]:
    order = list(range(num_classes))
    for left, right in flip_pairs:
        order[left], order[right] = right, left
    return order


def _resize(image: Tensor, scale: float) -> Tensor:
    """Resize bilinearly without antialiasing, to 32 pixels at least, as the network needs."""
    size = [max(MIN_SIZE, int(length * scale + 0.5)) for length in image.shape[-2:]]
    return _interpolate(image, size, align_corners=False)


def _interpolate(x: Tensor, size: Sequence[int], align_corners: bool) -> Tensor:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    # Contiguous planes interpolate about three times as fast as channels_last with few classes.
    return F.interpolate(
        x.contiguous(), size=tuple(size), mode="bilinear", align_corners=align_corners
    )


def _ids(scores: Tensor) -> Tensor:
    """Return the channel of the largest score, (H, W) uint8."""
    # max(1) keeps whole planes in step: on a CPU a quarter of the time of argmax(1).
    best = scores.max(1)
    if not best.values.isfinite().all():
        raise ProofError(
            "the model's scores are not finite: its weights are damaged, or float16 overflowed "
            "(try trainer.precision=32)."
        )
    return best.indices[0].to(torch.uint8)
