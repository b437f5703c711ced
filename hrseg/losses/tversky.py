"""Tversky loss: overlap of regions with separate weights for false positives and negatives."""

from torch import Tensor, nn

from hrseg.losses.dice import mean_over_present, regions


class Tversky(nn.Module):
    """1 - Tversky index, mean over the classes with true pixels in the batch.

    The index is TP / (TP + alpha FP + beta FN) over the whole batch, with soft counts (arXiv
    1706.05721). With alpha = beta = 0.5 the loss is `Dice`.

    Args:
        alpha: weight of false positives, above 0.
        beta: weight of false negatives, above 0. A beta above alpha raises the recall.

    Examples:
        >>> import torch
        >>> mask = torch.tensor([[[0, 0], [1, 255]]])
        >>> logits = 20 * torch.tensor([[[[1.0, 1], [0, 0]], [[0, 0], [1, 1]]]])
        >>> round(Tversky()(logits, mask).item(), 4)  # a perfect prediction
        0.0
    """

    def __init__(self, alpha: float = 0.3, beta: float = 0.7) -> None:
        super().__init__()
        self.alpha, self.beta = alpha, beta

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        size = truth.sum((0, 2, 3))
        positive = (probability * truth).sum((0, 2, 3))
        false_positive = probability.sum((0, 2, 3)) - positive
        false_negative = size - positive
        total = positive + self.alpha * false_positive + self.beta * false_negative
        return mean_over_present(1 - positive / total.clamp(min=1e-6), size)
