"""Cross-entropy with class weights."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hrseg.errors import ConfigError
from hrseg.utils.constants import IGNORE_INDEX


class CrossEntropy(nn.Module):
    """Mean cross-entropy over all pixels except ignored ones.

    Args:
        class_weights: one weight per class, 0 or positive, used as by `torch.nn.CrossEntropyLoss`;
            None: equal weights.

    Raises:
        ConfigError: a weight is negative, NaN or infinite; or, in a forward pass, the number of
            weights differs from the number of classes.

    Examples:
        >>> import torch
        >>> logits = torch.zeros(1, 4, 2, 2)  # four classes with equal logits
        >>> mask = torch.tensor([[[0, 1], [2, 255]]])
        >>> round(CrossEntropy()(logits, mask).item(), 4)  # the natural logarithm of 4
        1.3863
    """

    class_weights: Tensor | None

    def __init__(self, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        weights = None
        if class_weights is not None:
            weights = torch.tensor([*class_weights], dtype=torch.float32)
            if not (weights.isfinite() & (weights >= 0)).all():
                raise ConfigError(
                    f"class_weights is {[*class_weights]}.\n"
                    "Expected: one number per class, 0 or positive."
                )
        self.register_buffer("class_weights", weights, persistent=False)

    def forward(self, logits: Tensor, mask: Tensor) -> Tensor:
        target = mask.long()
        scored = self.pixel_weights(target, logits.shape[1]) > 0
        loss = F.cross_entropy(
            logits.float(),
            # A class of weight 0 is ignored too, since PyTorch divides by the sum of weights.
            target.masked_fill(~scored, IGNORE_INDEX),
            # A precision such as bf16-true converts the buffer.
            weight=None if self.class_weights is None else self.class_weights.float(),
            ignore_index=IGNORE_INDEX,
        )
        # PyTorch's mean over zero pixels is NaN, with the gradient 0.
        return torch.where(scored.any(), loss, 0)

    def pixel_weights(self, target: Tensor, num_classes: int) -> Tensor:
        """Return the weight of each pixel of `target` (B, H, W) int64; 0 for ignored pixels."""
        weights = (target != IGNORE_INDEX).float()
        if self.class_weights is None:
            return weights
        if len(self.class_weights) != num_classes:
            raise ConfigError(
                f"{len(self.class_weights)} class weights for a model of {num_classes} classes.\n"
                "Expected: one weight per class, or null. Fix: class_weights: null"
            )
        return weights * self.class_weights[target.clamp(max=num_classes - 1)]
