"""Focal loss: cross-entropy with less weight on easy pixels."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.utils.constants import IGNORE_INDEX


class Focal(CrossEntropy):
    """Mean of -(1 - p)^gamma log p, with the probability p of a pixel's class (arXiv 1708.02002).

    As for `CrossEntropy`, the mean is over all pixels except ignored ones, weighted by the class
    weights. With gamma 0 the loss is cross-entropy.

    Args:
        class_weights: see `CrossEntropy`; the paper's alpha.
        gamma: exponent, 0 or above. Larger values give easy pixels less weight.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(1, 2, 1, 2)  # probability 1/2
        >>> mask = torch.tensor([[[0, 255]]])
        >>> round(Focal()(logits, mask).item(), 4)  # a quarter of the natural logarithm of 2
        0.1733
    """

    def __init__(self, class_weights: Sequence[float] | None = None, gamma: float = 2.0) -> None:
        super().__init__(class_weights)
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        target = mask.long()
        weights = self.pixel_weights(target, logits.shape[1])
        losses = F.cross_entropy(
            logits.float(), target, ignore_index=IGNORE_INDEX, reduction="none"
        )
        # 1 - p without loss of precision. At 0 a gamma below 1 would have an infinite gradient.
        error = (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny)
        total = weights.sum()
        # The sum of weights may be small, but is 0 only without any scored pixel.
        return (error**self.gamma * losses * weights).sum() / total.where(total > 0, 1)
