"""Lovasz-Softmax loss: a convex surrogate of IoU."""

import torch
from torch import Tensor, nn

from hrseg.losses.dice import mean_over_present, regions


class Lovasz(nn.Module):
    """The Lovasz extension of 1 - IoU, mean over the classes that the batch shows.

    Berman et al., arXiv 1705.08790, over the whole batch. Each class sorts all pixels: on a CPU a
    training step takes about twice as long.

    Examples:
        >>> import torch
        >>> mask = torch.tensor([[[0, 0], [1, 255]]])
        >>> logits = 20 * torch.tensor([[[[1.0, 1], [0, 0]], [[0, 0], [1, 1]]]])
        >>> round(Lovasz()(logits, mask).item(), 4)  # a perfect prediction
        0.0
    """

    def __init__(self) -> None:  # without any arguments
        super().__init__()

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        rows = zip(probability.transpose(0, 1), truth.transpose(0, 1), strict=True)
        # An ignored pixel has the error 0: it comes last and adds nothing.
        losses = [extension((p - g).abs().flatten(), g.flatten()) for p, g in rows]
        return mean_over_present(torch.stack(losses), truth.sum((0, 2, 3)))


def extension(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the Lovasz extension of 1 - IoU of a class at its errors (N,), 0..1; truth: 0 or 1."""
    errors, order = errors.sort(descending=True)
    truth = truth[order]
    size = truth.sum()
    # With these pixels wrong, those of the class leave the intersection, others join the union.
    intersection = size - truth.cumsum(0)
    union = size + (1 - truth).cumsum(0)
    # The increase of 1 - IoU in closed form: the difference of two IoUs would cancel.
    outside = intersection / (union * (union - 1)).clamp(min=1)
    return (errors * torch.where(truth > 0, 1 / union.clamp(min=1), outside)).sum()
