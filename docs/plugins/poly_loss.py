"""Loss plugin: PolyLoss, cross-entropy with another first term (arXiv 2204.12511)."""

import torch.nn.functional as F
from torch import Tensor, nn

import hrseg


@hrseg.losses.register("poly1")
class Poly1(nn.Module):
    """Cross-entropy plus epsilon times the probability of the other classes.

    Args:
        epsilon: 0 is cross-entropy; positive values increase the gradient of easy pixels.
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the mean over labelled pixels, from logits (B, K, H, W) and mask (B, H, W)."""
        losses = F.cross_entropy(logits, mask, ignore_index=255, reduction="none")
        # An ignored pixel has the loss 0, so the probability of its other classes is 0 too.
        losses = losses + self.epsilon * (1 - (-losses).exp())
        return losses.sum() / (mask != 255).sum().clamp(min=1)
