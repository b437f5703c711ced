"""Cross-entropy with class weights; the per-pixel part is shared by its siblings."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError

IGNORE = 255


class CrossEntropy(nn.Module):
    """Mean over the pixels that are not ignored, weighted as `torch.nn.CrossEntropyLoss` does."""

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        """Take one weight per class, or None for equal ones.

        Raises:
            ConfigError: a weight is negative or not finite.
        """
        super().__init__()
        self.register_buffer("class_weights", weight_tensor(class_weights), persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        """Return the loss, a float32 scalar; 0 where all pixels are ignored.

        Args:
            logits: (B, K, H, W).
            mask: (B, H, W) class ids, 255 = ignore.

        Raises:
            ConfigError: the number of class weights is not K.
        """
        losses, weights = pixel_losses(logits, mask, self.class_weights)
        total = weights.sum()
        return (losses * weights).sum() / torch.where(total > 0, total, 1)


def pixel_losses(
    logits: Tensor, mask: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the unweighted loss and the class weight of every pixel, (B, H, W), 0 where ignored.

    Raises:
        ConfigError: the number of class weights is not K.
    """
    target = mask.long()
    losses = F.cross_entropy(logits.float(), target, ignore_index=IGNORE, reduction="none")
    weights = (target != IGNORE).float()
    if class_weights is not None:
        num_classes = logits.shape[1]
        if len(class_weights) != num_classes:
            raise ConfigError(
                f"{len(class_weights)} class weights for a model of {num_classes} classes.\n"
                "Give one weight per class, or class_weights: null."
            )
        weights = weights * class_weights[target.clamp(max=num_classes - 1)]
    return losses, weights


def weight_tensor(class_weights: Sequence[float] | None) -> Tensor | None:
    """Return class weights as a float32 tensor (K,).

    Raises:
        ConfigError: a weight is negative or not finite.
    """
    if class_weights is None:
        return None
    weights = torch.tensor(list(class_weights), dtype=torch.float32)
    if not (weights.isfinite() & (weights >= 0)).all():
        raise ConfigError(f"class_weights must be 0 or positive numbers, got {[*class_weights]}.")
    return weights
