"""Boundary loss: 1 - F-score of the contours, made differentiable by pooling."""

import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.losses.dice import mean_over_present, regions
from hrseg.utils.constants import IGNORE_INDEX


class Boundary(nn.Module):
    """1 - boundary F1, mean over the classes whose contours the batch shows.

    Bokhovkin and Burnaev, arXiv 1905.07852. The contour is the class minus its erosion by 3x3.
    Precision and recall allow for `tolerance` pixels in each direction. Use it together with a loss
    over the pixels, since it ignores the inside.
    """

    def __init__(self, tolerance: int = 3) -> None:
        super().__init__()
        self.tolerance = tolerance

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        probability, truth = regions(logits, mask)
        # The contour beside an ignored pixel is unknown.
        known = 1 - _dilate((mask == IGNORE_INDEX).float().unsqueeze(1), 1)
        pred, true = _contour(probability) * known, _contour(truth) * known
        size = true.sum((0, 2, 3))
        near_true, near_pred = _dilate(true, self.tolerance), _dilate(pred, self.tolerance)
        precision = (pred * near_true).sum((0, 2, 3)) / pred.sum((0, 2, 3)).clamp(min=1e-6)
        recall = (true * near_pred).sum((0, 2, 3)) / size.clamp(min=1)
        f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-6)
        return mean_over_present(1 - f1, size)


def _contour(region: Tensor) -> Tensor:
    complement = 1 - region
    return _dilate(complement, 1) - complement


def _dilate(x: Tensor, radius: int) -> Tensor:
    """Return the maximum over squares of `2 * radius + 1` pixels, within the image."""
    return F.max_pool2d(x, 2 * radius + 1, stride=1, padding=radius)
