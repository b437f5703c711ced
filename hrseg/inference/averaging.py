"""Averaging of logits over windows, scales and flips; class ids and probabilities of scores."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, VerificationError

Rule = Callable[[Tensor], Tensor]
# In float32 exp(89) is infinite and exp(-104) is 0; the sum over scales overflows earlier.
EXPONENT_LIMIT = 80.0

AVERAGES: dict[str, Rule] = {
    "softmax": lambda logits: logits.softmax(1),
    "exp_logits": torch.exp,
    "logits": lambda logits: logits,
}


def averaging_rule(
    protocol: Protocol, image_logits: Sequence[Tensor], ranks_suffice: bool = False
) -> Rule:
    """Return the protocol's function from logits to scores.

    `image_logits` are all logits of one image. They decide if exp would overflow in float32. Set
    `ranks_suffice` only if the scores are used for argmax and averaged at most over mirror images.
    """
    # Every rule is increasing, so argmax of the logits suffices unless scores are averaged.
    if ranks_suffice and not (protocol.flip and protocol.flip_average == "scores"):
        return AVERAGES["logits"]
    if protocol.average == "exp_logits":
        peak = max(float(logits.max()) for logits in image_logits)
        if max(peak, *(-float(logits.min()) for logits in image_logits)) > EXPONENT_LIMIT:
            return lambda logits: _exponential(logits.double() - peak)
    return AVERAGES[protocol.average]


def class_ids(scores: Tensor) -> Tensor:
    """Return the argmax of scores (1, K, H, W) as uint8 (H, W); ties go to the lowest id.

    Raises:
        VerificationError: NaN or infinite scores.
    """
    _, classes, height, width = scores.shape
    if scores.is_cpu:
        # Max pooling over the classes is six times as fast as max(1) on the CPU.
        columns = scores.reshape(1, classes, 1, height * width).permute(0, 3, 1, 2)
        best, ids = F.max_pool2d(columns, (classes, 1), return_indices=True)
    else:
        best, ids = scores.max(1)
    if not best.isfinite().all():
        raise VerificationError(
            "The model's scores are NaN or infinite: float16 overflowed, or the weights are "
            "damaged.\nExpected: finite scores. Fix: trainer.precision=32, or another checkpoint."
        )
    return ids.view(height, width).to(torch.uint8)


def check_threshold(protocol: Protocol, num_classes: int) -> None:
    """Raise ConfigError if a protocol has a threshold for another number of classes than two."""
    if protocol.threshold is not None and num_classes != 2:
        raise ConfigError(
            f"inference.threshold is {protocol.threshold}, but the model has {num_classes} "
            "classes.\nExpected: a threshold only for two classes. Fix: inference.threshold=null"
        )


def probabilities(scores: Tensor, average: str, count: int = 1, temperature: float = 1.0) -> Tensor:
    """Return the normalised scores, which sum to 1 over the classes.

    A temperature divides the logarithm of the probability. For one scale without overlapping
    windows that is the same as a division of the logits. It changes no order of the classes.

    Args:
        scores: sum of the scores of all scales, (1, K, H, W).
        average: the rule of the protocol that made the scores.
        count: number of scales in the sum.
        temperature: above 1 lowers the confidence.
    """
    if average == "logits":
        return (scores / (count * temperature)).softmax(1)
    shares = scores / scores.sum(1, keepdim=True)
    if temperature == 1:
        return shares
    smallest = torch.finfo(shares.dtype).tiny
    return (shares.clamp_min(smallest).log() / temperature).softmax(1)


def in_float32(scores: Tensor) -> Tensor:
    """Return scores (1, K, H, W) in float32; float64 scores are divided by the pixel's maximum."""
    if scores.dtype == torch.float64:
        scores = scores / scores.amax(1, keepdim=True)
    return scores.float()


def _exponential(logits: Tensor) -> Tensor:
    scores = logits.exp()
    if not scores.amax(1).all():
        raise VerificationError(
            "The model's logits differ by more than the range of exp: the averaging rule does not "
            "fit, or the weights are damaged.\n"
            "Expected: each pixel's largest logit within 700 of the image's largest.\n"
            "Fix: inference.average=softmax"
        )
    return scores
