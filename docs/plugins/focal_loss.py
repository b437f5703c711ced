"""Loss plugin: focal loss (arXiv 1708.02002)."""

import torch.nn.functional as F
from torch import Tensor, nn

import hrseg


@hrseg.losses.register("focal")
class Focal(nn.Module):
    """Cross-entropy with a lower weight for well-classified pixels.

    Args:
        gamma: 0 is cross-entropy; higher values increase the share of hard pixels.
    """

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        self.gamma = gamma

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over labelled pixels, from logits (B, K, H, W) and mask (B, H, W)."""
        losses = F.cross_entropy(logits, mask, ignore_index=255, reduction="none")
        weights = (1 - (-losses).exp()) ** self.gamma
        return (weights * losses).sum() / (mask != 255).sum().clamp(min=1)
