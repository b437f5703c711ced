"""Region mutual information loss, over the neighbourhood of each pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.losses.dice import regions
from hrseg.utils.constants import IGNORE_INDEX

SIDE = 3  # of the compared squares of pixels
REGULARIZER = 5e-4  # on the diagonal, as the authors'


class RMI(nn.Module):
    """A lower bound of the mutual information of 3x3 squares, negated (Zhao et al., 1910.12037).

    log det of the truth's covariance given the prediction, halved, per dimension; mean over images
    and classes. Train it beside a loss over the pixels, with weight 0.5 to 1. Average pooling by
    `stride` comes first. The authors use sigmoids for the softmax, sum over the classes, pool by 4
    and pad the pooling (ZJULearning/RMI).
    """

    def __init__(self, stride: int = 3) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if min(mask.shape[-2:]) < SIDE * self.stride:
            raise ConfigError(
                f"rmi loss: a crop of {tuple(mask.shape[-2:])} is too small; expected at least "
                f"{SIDE * self.stride} pixels: enlarge data.crop_size."
            )
        probability, truth = (
            _squares(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
            for x in regions(logits, mask)
        )
        loss = _information_loss(probability, truth).float()
        return torch.where((mask != IGNORE_INDEX).any(), loss, 0)


def _squares(x: Tensor) -> Tensor:
    """Return every 3x3 square of (B, K, H, W) as a column: (B, K, 9, squares), centred."""
    columns = F.unfold(x.flatten(0, 1).unsqueeze(1), SIDE)
    centred = columns - columns.mean(-1, keepdim=True)
    return centred.view(*x.shape[:2], *centred.shape[1:])


def _information_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the loss of centred columns (B, K, 9, N), a float64 scalar."""
    # float32 cannot resolve the difference, 1e-4, of two covariances of 1e4 and more.
    with torch.autocast(probability.device.type, enabled=False):
        p, t = probability.double(), truth.double()
        ridge = REGULARIZER * torch.eye(p.shape[2], dtype=p.dtype, device=p.device)
        cross = t @ p.mT
        explained = cross @ torch.linalg.solve(p @ p.mT + ridge, cross.mT)
        left = t @ t.mT - explained
        # The determinant from the factor; without an error at NaN, which must reach the loss.
        factor = torch.linalg.cholesky_ex((left + left.mT) / 2 + ridge).L
        log_det: Tensor = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det.mean() / (2 * p.shape[2])
