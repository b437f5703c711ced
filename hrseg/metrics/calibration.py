"""Calibration of probabilities: expected calibration error, reliability, and temperature.

A model is calibrated if pixels of confidence 0.8 are correct in 80 % of the cases. Source: Guo et
al., "On Calibration of Modern Neural Networks", ICML 2017.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics import Metric

from hrseg.utils.constants import IGNORE_INDEX

BINS = 15
_UNIT = 2**16  # confidences are counted in integers of 1 / 2^16, so that sums are exact
LIMITS = (0.05, 20.0)  # of a temperature


class CalibrationCounts(Metric):
    """Pixels, correct pixels and summed confidence of 15 equal bins of confidence, int64 (3, 15).

    The sums are exact, so that the order and the number of processes change no digit.

    Examples:
        >>> counts = CalibrationCounts()
        >>> counts.update(torch.tensor([0.9, 0.9]), torch.tensor([1, 1]), torch.tensor([1, 0]))
        >>> round(calibration_summary(counts.compute())["ece"], 4)
        0.4
    """

    full_state_update = False
    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        zeros = torch.zeros(3, BINS, dtype=torch.int64)
        self.add_state("counts", default=zeros, dist_reduce_fx="sum")

    def update(self, confidence: Tensor, pred: Tensor, target: Tensor) -> None:
        """Add the pixels of an image.

        Args:
            confidence: probability of the predicted class, float32 of any shape.
            pred: class ids of the same shape.
            target: class ids of the same shape; 255 is ignored.
        """
        scored = target != IGNORE_INDEX
        units = (confidence[scored] * _UNIT).round().long()
        cells = units + (pred[scored] == target[scored]) * (_UNIT + 1)
        wrong, correct = torch.bincount(cells, minlength=2 * (_UNIT + 1)).view(2, -1)
        unit = torch.arange(_UNIT + 1, device=cells.device)
        bins = (unit * BINS // _UNIT).clamp_(max=BINS - 1)
        pixels = wrong + correct
        self.counts.index_add_(1, bins, torch.stack([pixels, correct, pixels * unit]))

    def compute(self) -> Tensor:
        """Return the counts, summed over processes."""
        return self.counts.clone()


def calibration_summary(counts: Tensor) -> dict[str, Any]:
    """Return the expected calibration error and the bins as plain data, for scores.json.

    Args:
        counts: of `CalibrationCounts`. Without pixels the error is None.
    """
    pixels, correct, units = counts.tolist()
    bins = [
        {
            "pixels": n,
            "accuracy": right / n if n else None,
            "confidence": total / _UNIT / n if n else None,
        }
        for n, right, total in zip(pixels, correct, units, strict=True)
    ]
    gaps = [abs(right - total / _UNIT) for right, total in zip(correct, units, strict=True)]
    error = sum(gaps) / sum(pixels) if sum(pixels) else None
    return {"ece": error, "bins": bins}


def negative_log_likelihood(logits: Tensor, target: Tensor, temperature: float = 1.0) -> float:
    """Return the mean of -log p(true class) in nats of logits (N, K) and true ids (N,)."""
    losses = [
        F.cross_entropy(part / temperature, ids, reduction="sum").double()
        for part, ids in _parts(logits, target)
    ]
    return float(torch.stack(losses).sum()) / len(target)


def fit_temperature(logits: Tensor, target: Tensor) -> float:
    """Return the temperature with the lowest negative log-likelihood, within LIMITS.

    The likelihood is convex in 1 / temperature, so that bisection on its slope finds the minimum.

    Args:
        logits: or logarithms of probabilities, float32 (N, K).
        target: true class ids (N,).
    """
    low, high = (math.log(limit) for limit in LIMITS)
    for _ in range(24):
        middle = (low + high) / 2
        if _slope(logits, target, math.exp(-middle)) > 0:
            low = middle  # a smaller 1 / temperature is better
        else:
            high = middle
    return math.exp((low + high) / 2)


def _slope(logits: Tensor, target: Tensor, inverse: float) -> float:
    """Return the derivative of the summed loss with respect to 1 / temperature."""
    total = 0.0
    for part, ids in _parts(logits, target):
        expected = ((part * inverse).softmax(1) * part).sum(1)
        total += float((expected - part.gather(1, ids[:, None])[:, 0]).double().sum())
    return total


def _parts(logits: Tensor, target: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield parts of the pixels, so that temporary tensors stay small."""
    for start in range(0, len(target), 2**18):
        yield logits[start : start + 2**18], target[start : start + 2**18].long()
