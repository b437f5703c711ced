"""Statistics of a split: class weights, mean and standard deviation."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hrseg.data.analysis.check import Split
from hrseg.utils.constants import IGNORE_INDEX

Floats = npt.NDArray[np.float64]


def split_stats(split: Split, names: Sequence[str]) -> dict[str, Any]:
    """Return the statistics of a split after `check_splits`, ready for JSON.

    The weights of a class without a pixel are None. Without masks the classes are empty.
    """
    pixels, surroundings = split.pixels[: len(names)], split.surroundings[: len(names)]
    weights = {
        "enet": enet_weights(pixels),
        "median_frequency": median_frequency_weights(pixels, surroundings),
        "sqrt_median": sqrt_weights(pixels),
    }
    rows = split.class_rows(names)
    for i, row in enumerate(rows):
        row["share"] = row["pixels"] / max(1, int(pixels.sum()))
        for kind, values in weights.items():
            row[kind] = None if math.isnan(values[i]) else float(values[i])
    mean, std = mean_and_std(split)
    return {
        "split": split.name,
        "images": len(split.files),
        "sizes": split.size_rows(),
        "mean": mean.tolist(),
        "std": std.tolist(),
        "ignored_pixels": int(split.pixels[IGNORE_INDEX]),
        "classes": rows,
    }


def enet_weights(pixels: npt.ArrayLike) -> Floats:
    """Return 1 / ln(1.02 + p) for each class, p its share of the pixels; NaN if p is 0.

    Paszke et al., "ENet" (arXiv 1606.02147), section 5.2.
    """
    share = _share(pixels)
    return np.asarray(np.where(share > 0, 1 / np.log(1.02 + share), np.nan), float)


def median_frequency_weights(pixels: npt.ArrayLike, surroundings: npt.ArrayLike) -> Floats:
    """Return median(f) / f for each class; NaN for a class without pixels.

    f is the number of pixels of the class divided by the number of all pixels, with ignored ones,
    in the images with the class. The median is over classes with pixels.
    Eigen and Fergus (arXiv 1411.4734), as in SegNet (arXiv 1511.00561).

    Args:
        pixels: pixels of each class.
        surroundings: pixels of the images with each class.

    Examples:
        >>> median_frequency_weights([50, 25, 10], [100, 100, 100]).tolist()
        [0.5, 1.0, 2.5]
    """
    return _median_over(np.asarray(pixels, float) / np.maximum(surroundings, 1))


def sqrt_weights(pixels: npt.ArrayLike) -> Floats:
    """Return sqrt(median(p) / p), p the share of the pixels; NaN for a class without pixels.

    These weights are smaller than by median frequency: large weights make training from scratch
    unstable.
    """
    return np.sqrt(_median_over(_share(pixels)))


def mean_and_std(split: Split) -> tuple[Floats, Floats]:
    """Return mean and standard deviation of all pixels per channel (N,); NaN without images.

    They are in 0..1 for RGB, or in the value range of other channels, in 256 steps.
    """
    count = sum(height * width * images for (height, width), images in split.sizes.items())
    # Python's integers are exact: count x squares can exceed 2^64.
    pairs = zip(split.sums.tolist(), split.squares.tolist(), strict=True)
    spread = [count * square - total * total for total, square in pairs]
    with np.errstate(invalid="ignore"):
        scale = 255 * np.float64(count)
        return split.sums / scale, np.sqrt(np.array(spread, float)) / scale


def _share(pixels: npt.ArrayLike) -> Floats:
    counts = np.asarray(pixels, float)
    return np.asarray(counts / max(1.0, counts.sum()), float)


def _median_over(frequency: Floats) -> Floats:
    """Return the median of the positive values divided by each of them; NaN for 0."""
    weights, positive = np.full(len(frequency), np.nan), frequency > 0
    if positive.any():
        weights[positive] = np.median(frequency[positive]) / frequency[positive]
    return weights
