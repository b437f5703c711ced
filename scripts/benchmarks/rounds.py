"""Alternating rounds of the functions that a benchmark compares, and the ratio of their times."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from hrseg.benchmark.measure import timed

T = TypeVar("T")


def interleaved(
    functions: Mapping[str, Callable[[], T]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[T]]]:
    """Call each function once per round, and return the seconds and the results by name."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    results: dict[str, list[T]] = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            with timed(seconds[name]):
                results[name].append(function())
    return seconds, results


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """Return the median "ratio" of paired rounds, and its "spread" [lowest, highest]."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}
