"""Averaging of logits over windows, scales and flips, and conversion to class ids."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import VerificationError

Rule = Callable[[Tensor], Tensor]
EXPONENTS = 80.0  # in float32 exp(89) is infinite, with the scales' sum before that; exp(-104) is 0

AVERAGES: dict[str, Rule] = {
    "softmax": lambda logits: logits.softmax(1),
    "exp_logits": torch.exp,
    "logits": lambda logits: logits,
}


def rule_of(protocol: Protocol, everything: Sequence[Tensor], ranks_suffice: bool = False) -> Rule:
    """Return the protocol's function from logits to scores; `everything` is all logits of an image.

    With `ranks_suffice` only the order of the scores matters, and they are averaged over mirror
    images at most.
    """
    # Every rule rises with the logit, so the order is the same unless scores are averaged.
    if ranks_suffice and not (protocol.flip and protocol.flip_average == "scores"):
        return AVERAGES["logits"]
    if protocol.average == "exp_logits":
        peak = max(float(logits.max()) for logits in everything)
        if max(peak, *(-float(logits.min()) for logits in everything)) > EXPONENTS:
            return lambda logits: _exponential(logits.double() - peak)
    return AVERAGES[protocol.average]


def class_ids(scores: Tensor) -> Tensor:
    """Return the class of the largest score (1, K, H, W), the first of equals, as (H, W) uint8."""
    _, classes, height, width = scores.shape
    if scores.is_cpu:
        # max(1) takes six times as long as pooling over a column of classes, pixels as channels.
        columns = scores.reshape(1, classes, 1, height * width).permute(0, 3, 1, 2)
        best, ids = F.max_pool2d(columns, (classes, 1), return_indices=True)
    else:
        best, ids = scores.max(1)
    if not best.isfinite().all():
        raise VerificationError(
            "the model's scores are not finite: its weights are damaged, or float16 overflowed "
            "(try trainer.precision=32)."
        )
    return ids.view(height, width).to(torch.uint8)


def in_float32(scores: Tensor) -> Tensor:
    """Return scores in float32; float64 ones are divided by the pixel's largest before."""
    if scores.dtype == torch.float64:
        scores = scores / scores.amax(1, keepdim=True)
    return scores.float()


def _exponential(logits: Tensor) -> Tensor:
    scores = logits.exp()
    if not scores.amax(1).all():
        raise VerificationError(
            "the model's logits differ by more than exp can hold: its weights are damaged,\n"
            "or it was trained for another rule. Fix: inference.average=softmax"
        )
    return scores
