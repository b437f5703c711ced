"""Dice loss: overlap of predicted and true regions, averaged over classes."""

import torch
from torch import Tensor, nn

from hrseg.utils.constants import IGNORE_INDEX


class Dice(nn.Module):
    """1 - soft Dice, mean over the classes with true pixels in the batch.

    Dice is sum(2 p g) / sum(p + g) over the whole batch, with softmax p and truth g (as V-Net,
    arXiv 1606.04797, but without squares). False positives of a class without true pixels lower
    the Dice of the true classes of those pixels.

    Examples:
        >>> import torch
        >>> mask = torch.tensor([[[0, 0], [1, 255]]])
        >>> logits = 20 * torch.tensor([[[[1.0, 1], [0, 0]], [[0, 0], [1, 1]]]])
        >>> round(Dice()(logits, mask).item(), 4)  # a perfect prediction
        0.0
    """

    def __init__(self) -> None:  # declares that the loss has no arguments
        super().__init__()

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        size = truth.sum((0, 2, 3))
        overlap = (probability * truth).sum((0, 2, 3))
        dice = 2 * overlap / (size + probability.sum((0, 2, 3))).clamp(min=1e-6)
        return mean_over_present(1 - dice, size)


def regions(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax and one-hot truth, float32 (B, K, H, W); both are 0 at ignored pixels."""
    classes = torch.arange(logits.shape[1], device=mask.device).view(-1, 1, 1)
    truth = (mask.unsqueeze(1) == classes).float()
    # A product rather than a selection, so that a NaN logit reaches the loss.
    return logits.float().softmax(1) * (mask != IGNORE_INDEX).unsqueeze(1), truth


def mean_over_present(losses: Tensor, size: Tensor) -> Tensor:
    """Return the mean of `losses` (K,) over the classes with true pixels (`size` > 0), or 0."""
    present = size > 0
    return (losses * present).sum() / present.sum().clamp(min=1)
