"""Dice loss: overlap of predicted and true regions, averaged over classes."""

import torch
from torch import Tensor, nn

from hrseg.utils.constants import IGNORE_INDEX


class Dice(nn.Module):
    """1 - soft Dice, mean over the classes that the batch shows.

    Sums run over the whole batch: sum(2 p g) / sum(p + g), p the softmax, g the truth (as in
    V-Net, arXiv 1606.04797, without its squares). The false alarms of classes without a true pixel
    count in the true classes of those pixels.

    Examples:
        >>> import torch
        >>> mask = torch.tensor([[[0, 0], [1, 255]]])
        >>> logits = 20 * torch.tensor([[[[1.0, 1], [0, 0]], [[0, 0], [1, 1]]]])
        >>> round(Dice()(logits, mask).item(), 4)  # a perfect prediction
        0.0
    """

    def __init__(self) -> None:  # without any arguments
        super().__init__()

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        size = truth.sum((0, 2, 3))
        overlap = (probability * truth).sum((0, 2, 3))
        dice = 2 * overlap / (size + probability.sum((0, 2, 3))).clamp(min=1e-6)
        return mean_over_present(1 - dice, size)


def regions(logits: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return softmax and truth, float32 (B, K, H, W) and 0 in every class of an ignored pixel."""
    classes = torch.arange(logits.shape[1], device=mask.device).view(-1, 1, 1)
    truth = (mask.unsqueeze(1) == classes).float()
    # A product, not a selection: a NaN logit must reach the loss.
    return logits.float().softmax(1) * (mask != IGNORE_INDEX).unsqueeze(1), truth


def mean_over_present(losses: Tensor, size: Tensor) -> Tensor:
    """Return the mean of the losses (K,) over the classes with true pixels, `size` (K,), or 0."""
    present = size > 0
    return (losses * present).sum() / present.sum().clamp(min=1)
