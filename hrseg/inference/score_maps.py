"""Score maps whose rows are computed on demand, so that no full map is held in memory.

A 2-megapixel image with 19 classes has 160 MB of scores, most of them interpolated from a sixteenth
of that. Made a few rows at a time they stay in the processor's cache.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.inference.windows import Size, Windows


@dataclass(frozen=True)
class Rows:
    """A map (V, K, H, W) by its rows.

    Attributes:
        size: (H, W).
        read: (first, end) -> rows (V, K, end - first, W).
    """

    size: Size
    read: Callable[[int, int], Tensor]


def held(x: Tensor) -> Rows:
    """Return the rows of a tensor (V, K, H, W)."""
    return Rows((x.shape[-2], x.shape[-1]), lambda first, end: x[..., first:end, :])


def mapped(rows: Rows, rule: Callable[[Tensor], Tensor]) -> Rows:
    """Return the map after an operation that looks at single pixels."""
    return Rows(rows.size, lambda first, end: rule(rows.read(first, end)))


def cropped(rows: Rows, size: Size) -> Rows:
    """Return the upper left corner of a map."""
    return Rows(size, lambda first, end: rows.read(first, end)[..., : size[1]])


def resized(rows: Rows, size: Sequence[int], align_corners: bool) -> Rows:
    """Return the map at another size, as `F.interpolate` does it, bilinear, not antialiased."""
    height, width = size
    if rows.size == (height, width):
        return rows

    def read(first: int, end: int) -> Tensor:
        if rows.size[0] == height:
            return _widened(rows.read(first, end), width, align_corners)
        low, high, share = _neighbours(first, end, rows.size[0], height, align_corners)
        top = int(low[0])
        # Columns first: the small map has fewer rows.
        x = _widened(rows.read(top, int(high[-1]) + 1), width, align_corners)
        place = torch.arange(end - first)
        weights = torch.zeros(end - first, x.shape[-2], dtype=share.dtype)
        weights[place, low - top] = 1 - share
        weights[place, high - top] += share
        planes = x.flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):  # whose products are of 8 bits
            mixed = torch.bmm(weights.to(x).expand(len(planes), -1, -1), planes)
        return mixed.view(*x.shape[:2], end - first, width)

    return Rows((height, width), read)


def joined(windows: Windows, parts: Sequence[Rows], size: Size) -> Rows:
    """Return the mean of maps at the places of windows, row by row of them, cut to `size`.

    It is the first window's value and the mean of what the others differ by from it, so that the
    mean of equal values is that value to the bit, and no tie falls another way.
    """
    rows = _first_seen(windows.rows, windows.height)
    columns = _first_seen(windows.columns, windows.width)
    places = [(row, column) for row in rows for column in columns]
    width = windows.columns[-1] + windows.width
    across = _coverage(windows.columns, windows.width, width)
    down = _coverage(windows.rows, windows.height, windows.rows[-1] + windows.height)

    def read(first: int, end: int) -> Tensor:
        total: Tensor | None = None
        for ((top, new_top), (left, new_left)), part in zip(places, parts, strict=True):
            start, stop = max(first, top), min(end, top + windows.height)
            if start >= stop:
                continue
            x = part.read(start - top, stop - top)
            if total is None:
                total = x.new_zeros(*x.shape[:2], end - first, width)
                more = torch.zeros_like(total)
            new, seen = min(max(new_top, start), stop) - start, new_left - left
            place = (..., slice(start - first, stop - first), slice(left, left + windows.width))
            total[place][..., new:, seen:] = x[..., new:, seen:]
            for again in ((..., slice(new), slice(None)), (..., slice(new, None), slice(seen))):
                more[place][again] += x[again] - total[place][again]
        assert total is not None, "windows cover every row"
        # How often a pixel was seen is a product of its row and its column.
        often = down[first:end].view(-1, 1) * across
        total = total.add_(more.div_(often.to(more))) if often.max() > 1 else total
        return total[..., : size[1]]

    return Rows(size, read)


def _widened(x: Tensor, width: int, align_corners: bool) -> Tensor:
    """Return rows (V, K, n, w) at another width."""
    if x.shape[-1] == width:
        return x
    lines = x.reshape(1, -1, x.shape[-1])
    wide = F.interpolate(lines, size=width, mode="linear", align_corners=align_corners)
    return wide.view(*x.shape[:-1], width)


def _neighbours(
    first: int, end: int, source: int, target: int, align_corners: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the rows above and below each target row, and the share of the one below."""
    rows = torch.arange(first, end, dtype=torch.float64)
    if align_corners:
        places = rows * ((source - 1) / max(1, target - 1))
    else:
        places = ((rows + 0.5) * (source / target) - 0.5).clamp_(min=0)
    low = places.floor().long().clamp_(max=source - 1)
    high = (low + 1).clamp_(max=source - 1)
    return low, high, (places - low).clamp_(0, 1)


def _coverage(starts: Sequence[int], side: int, length: int) -> Tensor:
    """Return how many windows see each row (or column)."""
    seen = torch.zeros(length)
    for start in starts:
        seen[start : start + side] += 1
    return seen


def _first_seen(starts: Sequence[int], side: int) -> list[tuple[int, int]]:
    """Return where each window begins, and where it begins to see what none before it has seen."""
    ends = [0, *(start + side for start in starts[:-1])]
    return [(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]
