"""Image sizes after scaling, rounded as in the authors' code."""

from collections.abc import Sequence


def scaled_size(
    size: Sequence[int], scale: float, base_size: int | None = None, smallest: int = 1
) -> tuple[int, int]:
    """Return (height, width) such that the long side is `base_size * scale`.

    Args:
        size: (height, width) of the image.
        scale: factor.
        base_size: long side in pixels at scale 1; None or 0: the image's own.
        smallest: lower bound of each side, not in the authors' code: evaluation runs the network
            on the scaled image without padding.

    Source: `multi_scale_aug` in lib/datasets/base_dataset.py of HRNet-Semantic-Segmentation.
    """
    long = max(size)
    new_long = int((base_size or long) * scale + 0.5)
    height, width = (max(int(side * new_long / long + 0.5), smallest) for side in size)
    return height, width
