"""Selection of scales: score and cost of every subset of a protocol's scales."""

from collections.abc import Mapping
from typing import Any

Scales = tuple[float, ...]
TOLERANCE = 0.001  # 0.1 point of mIoU


def scale_report(miou: Mapping[Scales, float], pixels: Mapping[float, int]) -> dict[str, Any]:
    """Return the prefixes of the scales and the cheapest subset that scores as well as all.

    `miou` is that of every subset, 0..1. The cost of a scale is its `pixels`, those of the
    network's input, in the order of the scales. Rows have the share of the `cost` and come with
    the cheapest first.
    """
    scales = tuple(pixels)
    total = sum(pixels.values())
    rows: list[dict[str, Any]] = [
        {"scales": list(s), "miou": value, "cost": sum(pixels[scale] for scale in s) / total}
        for s, value in miou.items()
    ]
    rows.sort(key=lambda row: (row["cost"], -row["miou"]))
    prefixes = [list(scales[: count + 1]) for count in range(len(scales))]
    return {
        "prefixes": [row for prefix in prefixes for row in rows if row["scales"] == prefix],
        "cheapest": next(row for row in rows if row["miou"] >= miou[scales] - TOLERANCE),
        "subsets": rows,
    }
