"""Bootstrap confidence intervals of mIoU, and the distribution of IoU over images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 0.95
_SEED = 304
_CHUNK = 2**25  # numbers in memory at once
Floats = NDArray[np.float64]


def bootstrap(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    absent: str = "skipped",
    resamples: int = 1000,
) -> dict[str, Any]:
    """Return percentile intervals of mIoU and of each IoU over images drawn with replacement.

    They do not cover the spread of trainings, and are too narrow for frames of one video. The
    counts are (N, K, 3) of `Evaluation.matrices`; for `absent` see `metrics.mean_iou`.
    """
    generator = np.random.default_rng(_SEED)
    number, num_classes = counts.shape[:2]
    flat = counts.reshape(number, -1).astype(np.float64)
    ious = []
    step = max(1, _CHUNK // max(number, flat.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.multinomial(number, np.full(number, 1 / number), size)
        ious.append(_iou((drawn @ flat).reshape(size, num_classes, 3)))
    iou = np.concatenate(ious)
    # As in `metrics.mean_iou`, draws with nothing to score have no mean by either rule.
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

    An image's mIoU is the mean over the classes that occur in it, in truth or prediction. An image
    without a scored pixel is left out. The counts are (N, K, 3) of `Evaluation.matrices`.
    """
    iou = _iou(counts)
    seen = ~np.isnan(iou)
    sums = np.where(seen, iou, 0)
    scored = seen.any(1)
    images = sums[scored].sum(1) / seen[scored].sum(1)
    quartiles = np.quantile(images, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(images) else [None] * 5
    occurrences = seen.sum(0)
    return {
        **dict(zip(("min", "q1", "median", "q3", "max"), quartiles, strict=True)),
        "mean": float(images.mean()) if len(images) else None,
        "histogram": np.histogram(images, 20, (0, 1))[0].tolist(),
        "classes": [
            {"name": name, "mean": float(total / count) if count else None, "images": int(count)}
            for name, total, count in zip(class_names, sums.sum(0), occurrences, strict=True)
        ],
    }


def _iou(counts: NDArray[Any]) -> Floats:
    """Return IoU (..., K) of counts (..., K, 3); nan for a class that does not occur."""
    hit, truth, pred = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(hit / (truth + pred - hit), np.float64)


def _interval(values: Floats) -> list[float] | None:
    outside = (1 - LEVEL) / 2
    return np.quantile(values, [outside, 1 - outside]).tolist() if len(values) else None
