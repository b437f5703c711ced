"""Scale selection for multi-scale evaluation: score and cost of every subset of scales."""

from collections.abc import Mapping
from typing import Any

Scales = tuple[float, ...]
TOLERANCE = 0.001  # 0.1 point of mIoU


def scale_report(miou: Mapping[Scales, float], pixels: Mapping[float, int]) -> dict[str, Any]:
    """Return score and cost of the subsets, and the cheapest subset that scores as well as all.

    A subset scores as well if its mIoU is at most TOLERANCE lower.

    Args:
        miou: mIoU, 0..1, of every subset.
        pixels: the network's input pixels of each scale, in the order of the scales.

    Returns:
        "prefixes" of the scales, the "cheapest" subset, and all "subsets" by rising cost. The cost
        of a row is its share of the pixels of all scales.
    """
    scales = tuple(pixels)
    total = sum(pixels.values())
    rows: list[dict[str, Any]] = [
        {"scales": list(subset), "miou": value, "cost": sum(pixels[x] for x in subset) / total}
        for subset, value in miou.items()
    ]
    rows.sort(key=lambda row: (row["cost"], -row["miou"]))
    prefixes = [list(scales[: count + 1]) for count in range(len(scales))]
    return {
        "prefixes": [row for prefix in prefixes for row in rows if row["scales"] == prefix],
        "cheapest": next(row for row in rows if row["miou"] >= miou[scales] - TOLERANCE),
        "subsets": rows,
    }
