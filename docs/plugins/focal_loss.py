"""Focal loss (arXiv 1708.02002): hrseg fit --plugin docs/plugins/focal_loss.py losses=[focal]."""

import torch.nn.functional as F
from torch import Tensor, nn

import hrseg


@hrseg.losses.register("focal")
class Focal(nn.Module):
    """Cross-entropy in which pixels count less the better they are classified.

    Args:
        gamma: 0 is cross-entropy; higher values leave more to the hard pixels.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over labelled pixels of logits (B, K, H, W) and mask (B, H, W)."""
        losses = F.cross_entropy(logits, mask, ignore_index=255, reduction="none")
        hardness = (1 - (-losses).exp()) ** self.gamma
        return (hardness * losses).sum() / (mask != 255).sum().clamp(min=1)
