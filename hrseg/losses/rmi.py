"""Region mutual information (RMI) loss over the neighbourhood of each pixel."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.losses.dice import regions
from hrseg.utils.constants import IGNORE_INDEX

SIDE = 3  # pixels; side of the compared squares
REGULARIZER = 5e-4  # added to the diagonal, as by the authors


class RMI(nn.Module):
    """Negative lower bound of the mutual information of 3x3 squares (Zhao et al., 1910.12037).

    The loss is half the log determinant of the truth's covariance given the prediction, per
    dimension; mean over images and classes. Combine it with a pixelwise loss; use a weight of 0.5
    to 1. The authors use sigmoids instead of the softmax, sum over classes, and pool by 4 with
    padding (ZJULearning/RMI).

    Args:
        stride: factor of the average pooling before the comparison.

    Raises:
        ConfigError: the crop is smaller than one pooled square.

    Examples:
        >>> import torch
        >>> mask = torch.zeros(1, 16, 16, dtype=torch.int64)
        >>> mask[:, :, 8:] = 1
        >>> logits = 20 * torch.nn.functional.one_hot(mask).movedim(-1, 1).float()
        >>> bool(RMI()(logits, mask) < RMI()(0 * logits, mask))  # better than a constant
        True
    """

    def __init__(self, stride: int = 3) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        if min(mask.shape[-2:]) < SIDE * self.stride:
            raise ConfigError(
                f"The crop {tuple(mask.shape[-2:])} is too small for the rmi loss.\n"
                f"Expected: at least {SIDE * self.stride} pixels per side. "
                "Fix: enlarge data.crop_size"
            )
        probability, truth = (
            _squares(F.avg_pool2d(x, self.stride) if self.stride > 1 else x)
            for x in regions(logits, mask)
        )
        loss = _information_loss(probability, truth).float()
        return torch.where((mask != IGNORE_INDEX).any(), loss, 0)


def _squares(x: Tensor) -> Tensor:
    """Return the 3x3 squares of (B, K, H, W) as centred columns (B, K, 9, squares)."""
    columns = F.unfold(x.flatten(0, 1).unsqueeze(1), SIDE)
    centred = columns - columns.mean(-1, keepdim=True)
    return centred.view(*x.shape[:2], *centred.shape[1:])


def _information_loss(probability: Tensor, truth: Tensor) -> Tensor:
    """Return the float64 loss of centred columns (B, K, 9, N)."""
    # float32 cannot resolve a difference of 1e-4 between covariances of 1e4 and more.
    with torch.autocast(probability.device.type, enabled=False):
        p, t = probability.double(), truth.double()
        ridge = REGULARIZER * torch.eye(p.shape[2], dtype=p.dtype, device=p.device)
        cross = t @ p.mT
        explained = cross @ torch.linalg.solve(p @ p.mT + ridge, cross.mT)
        left = t @ t.mT - explained
        # cholesky_ex does not raise at NaN, which must reach the loss.
        factor = torch.linalg.cholesky_ex((left + left.mT) / 2 + ridge).L
        log_det: Tensor = 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)
        return log_det.mean() / (2 * p.shape[2])
