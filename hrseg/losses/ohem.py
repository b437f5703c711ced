"""Online hard example mining (OHEM): cross-entropy over the hard pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.utils.constants import IGNORE_INDEX


class OHEM(CrossEntropy):
    """Cross-entropy over the pixels whose true class has a probability below a threshold.

    As in the authors' `lib/core/criterion.py`, the threshold is raised until about `min_kept`
    pixels are below it. The result is the unweighted mean of the weighted pixel losses.

    Args:
        class_weights: see `CrossEntropy`.
        threshold: probability of the true class, 0..1.
        min_kept: pixels per device and step.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[[[0.0, 9.0]], [[0.0, 0.0]]]])  # a hard and an easy pixel
        >>> mask = torch.zeros(1, 1, 2, dtype=torch.int64)
        >>> round(OHEM(min_kept=1)(logits, mask).item(), 4)  # the natural logarithm of 2
        0.6931
    """

    def __init__(
        self,
        class_weights: Sequence[float] | None = None,
        threshold: float = 0.9,
        min_kept: int = 131072,
    ) -> None:
        super().__init__(class_weights)
        self.threshold, self.min_kept = threshold, min_kept

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        target = mask.long()
        weights = self.pixel_weights(target, logits.shape[1])
        losses = F.cross_entropy(
            logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none"
        )
        # Ignored pixels are not hard.
        probability = torch.exp(-losses.detach()).masked_fill(target == IGNORE_INDEX, torch.inf)
        hard = probability < self._raised_threshold(probability)
        # A product rather than a selection, so that a NaN logit reaches the loss.
        return (losses * weights * hard).sum() / hard.sum().clamp(min=1)

    def _raised_threshold(self, probability: Tensor) -> Tensor:
        """Return the probability at rank `min_kept` (from 0), or the highest of fewer pixels."""
        count = min(self.min_kept + 1, probability.numel())
        # topk without sorting is exact, and does not synchronise with the device.
        smallest = probability.flatten().topk(count, largest=False, sorted=False).values
        return smallest.masked_fill(smallest.isinf(), 0).max().clamp(min=self.threshold)
