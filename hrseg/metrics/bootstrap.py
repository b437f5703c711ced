"""Bootstrap confidence intervals of mIoU, and the distribution of IoU over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_SEED = 304
_CHUNK = 2**25  # values in memory at once
Floats = NDArray[np.float64]


def bootstrap(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    absent: str = "skipped",
    resamples: int = 1000,
) -> dict[str, Any]:
    """Return percentile intervals of mIoU and class IoU over images drawn with replacement.

    The intervals exclude the variance between training runs, and are too narrow for frames of one
    video.

    Args:
        counts: pixel counts (N, K, 3) per image, from `Evaluation.matrices`.
        class_names: K names.
        absent: rule for absent classes, see `metrics.confusion.mean_iou`.
        resamples: number of draws.
    """
    generator = np.random.default_rng(_SEED)
    num_images, num_classes = counts.shape[:2]
    flat = counts.reshape(num_images, -1).astype(np.float64)
    ious = []
    step = max(1, _CHUNK // max(num_images, flat.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        draws = generator.multinomial(num_images, np.full(num_images, 1 / num_images), size)
        ious.append(_iou((draws @ flat).reshape(size, num_classes, 3)))
    iou = np.concatenate(ious)
    # As in `mean_iou`, a draw without scored pixels has no mean under either rule.
    scored = iou[~np.isnan(iou).all(1)]
    divisor = (~np.isnan(scored)).sum(1) if absent == "skipped" else num_classes
    return {
        "level": LEVEL,
        "resamples": resamples,
        "miou": _interval(np.nansum(scored, 1) / divisor),
        "classes": [
            {"name": name, "iou": _interval(values[~np.isnan(values)])}
            for name, values in zip(class_names, iou.T, strict=True)
        ],
    }


def image_iou(counts: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """Return the distribution of IoU over images.

    An image's mIoU is the mean over the classes in its truth or prediction. Images without scored
    pixels are excluded.

    Args:
        counts: pixel counts (N, K, 3) per image, from `Evaluation.matrices`.
        class_names: K names.
    """
    iou = _iou(counts)
    defined = ~np.isnan(iou)
    values = np.where(defined, iou, 0)
    scored = defined.any(1)
    images = values[scored].sum(1) / defined[scored].sum(1)
    quartiles = np.quantile(images, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(images) else [None] * 5
    occurrences = defined.sum(0)
    return {
        **dict(zip(("min", "q1", "median", "q3", "max"), quartiles, strict=True)),
        "mean": float(images.mean()) if len(images) else None,
        "histogram": np.histogram(images, 20, (0, 1))[0].tolist(),
        "classes": [
            {"name": name, "mean": float(total / count) if count else None, "images": int(count)}
            for name, total, count in zip(class_names, values.sum(0), occurrences, strict=True)
        ],
    }


def _iou(counts: NDArray[Any]) -> Floats:
    """Return IoU (..., K) of counts (..., K, 3); NaN for absent classes."""
    correct, truth, pred = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(correct / (truth + pred - correct), np.float64)


def _interval(values: Floats) -> list[float] | None:
    outside = (1 - LEVEL) / 2
    return np.quantile(values, [outside, 1 - outside]).tolist() if len(values) else None
