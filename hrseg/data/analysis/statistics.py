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
    """Return the figures of a split whose files were read, ready for JSON.

    A class without a pixel has None for its weights; without masks the classes are empty.
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
    """Return 1 / ln(1.02 + p) for each class, p its share of the pixels; NaN for one never seen.

    Paszke et al., "ENet" (arXiv 1606.02147), section 5.2.
    """
    share = _share(pixels)
    return np.asarray(np.where(share > 0, 1 / np.log(1.02 + share), np.nan), float)


def median_frequency_weights(pixels: npt.ArrayLike, surroundings: npt.ArrayLike) -> Floats:
    """Return median(f) / f for each class; NaN for one never seen, which no median counts.

    f is the number of pixels of the class divided by that of all pixels, ignored ones too, in the
    images that it occurs in: Eigen and Fergus (arXiv 1411.4734), as in SegNet (arXiv 1511.00561).

    Args:
        pixels: pixels of each class.
        surroundings: pixels of the images that each class occurs in.
    """
    return _median_over(np.asarray(pixels, float) / np.maximum(surroundings, 1))


def sqrt_weights(pixels: npt.ArrayLike) -> Floats:
    """Return sqrt(median(p) / p), p the share of the pixels; NaN for a class never seen.

    Milder than median frequency: for training from scratch, where large weights are unstable.
    """
    return np.sqrt(_median_over(_share(pixels)))


def mean_and_std(split: Split) -> tuple[Floats, Floats]:
    """Return mean and standard deviation over all pixels, RGB, in 0..1; NaN without an image."""
    count = sum(height * width * images for (height, width), images in split.sizes.items())
    # Python's integers are exact: count x squares soon exceeds 2^64.
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
    weights, seen = np.full(len(frequency), np.nan), frequency > 0
    if seen.any():
        weights[seen] = np.median(frequency[seen]) / frequency[seen]
    return weights
