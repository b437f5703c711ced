"""Boundary loss: 1 - F-score of contours, differentiable through pooling."""

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.losses.dice import mean_over_present, regions
from hrseg.utils.constants import IGNORE_INDEX


class Boundary(nn.Module):
    """1 - boundary F1, mean over the classes with contours in the batch (arXiv 1905.07852).

    The contour is the class minus its erosion by 3x3. Precision and recall allow a distance of
    `tolerance` pixels in each direction. Combine this loss with a pixelwise loss, because it
    ignores the interior of regions.

    Examples:
        >>> import torch
        >>> mask = torch.zeros(1, 16, 16, dtype=torch.int64)
        >>> mask[:, :, 8:] = 1
        >>> logits = 20 * torch.nn.functional.one_hot(mask).movedim(-1, 1).float()
        >>> round(Boundary()(logits, mask).item(), 4)  # a perfect prediction
        0.0
    """

    def __init__(self, tolerance: int = 3) -> None:
        super().__init__()
        self.tolerance = tolerance

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        # The contour next to an ignored pixel is unknown.
        valid = 1 - _dilate((mask == IGNORE_INDEX).float().unsqueeze(1), 1)
        pred, true = _contour(probability) * valid, _contour(truth) * valid
        length = true.sum((0, 2, 3))
        near_true, near_pred = _dilate(true, self.tolerance), _dilate(pred, self.tolerance)
        precision = (pred * near_true).sum((0, 2, 3)) / pred.sum((0, 2, 3)).clamp(min=1e-6)
        recall = (true * near_pred).sum((0, 2, 3)) / length.clamp(min=1)
        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-6)
        return mean_over_present(1 - f1, length)


def _contour(region: Tensor) -> Tensor:
    complement = 1 - region
    return _dilate(complement, 1) - complement


def _dilate(x: Tensor, radius: int) -> Tensor:
    """Return the maximum over squares of `2 * radius + 1` pixels, within the image."""
    return F.max_pool2d(x, 2 * radius + 1, stride=1, padding=radius)
