"""Online hard example mining: cross-entropy over the pixels that the network finds hard."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.utils.constants import IGNORE_INDEX


class OHEM(CrossEntropy):
    """Cross-entropy over the pixels whose true class is predicted below a threshold.

    The authors' definition (`lib/core/criterion.py`): the threshold is raised until about
    `min_kept` pixels are below it, and the mean of the weighted pixel losses is a plain one.

    `threshold` is a probability of the true class, `min_kept` counts pixels per device and step.
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
        # An ignored pixel is never hard.
        probability = torch.exp(-losses.detach()).masked_fill(target == IGNORE_INDEX, torch.inf)
        hard = probability < self._raised_threshold(probability)
        # A product, not a selection: a NaN logit must reach the loss.
        return (losses * weights * hard).sum() / hard.sum().clamp(min=1)

    def _raised_threshold(self, probability: Tensor) -> Tensor:
        """Return the probability at rank `min_kept` (from 0), or the highest of fewer pixels."""
        count = min(self.min_kept + 1, probability.numel())
        # The few smallest, unsorted: exact, and never waits for the device.
        smallest = probability.flatten().topk(count, largest=False, sorted=False).values
        return smallest.masked_fill(smallest.isinf(), 0).max().clamp(min=self.threshold)
