"""Lazy score maps: rows are computed on demand, so that no full map is in memory.

The scores of a 2-megapixel image with 19 classes take 160 MB; a few rows fit into the cache.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from hrseg.inference.windows import Size, Windows

Scales = tuple[float, ...]
BAND_BYTES = 2**22  # of one scale's scores per band: the size of a processor's cache


@dataclass(frozen=True)
class Rows:
    """A lazy map (V, K, H, W) that computes the rows that are read."""

    size: Size  # (H, W)
    read: Callable[[int, int], Tensor]  # (first, end) -> rows (V, K, end - first, W)


def tensor_rows(x: Tensor) -> Rows:
    """Return a tensor (V, K, H, W) as a map."""
    return Rows((x.shape[-2], x.shape[-1]), lambda first, end: x[..., first:end, :])


def mapped(rows: Rows, rule: Callable[[Tensor], Tensor]) -> Rows:
    """Return the map after `rule`, an operation on single pixels."""
    return Rows(rows.size, lambda first, end: rule(rows.read(first, end)))


def cropped(rows: Rows, size: Size) -> Rows:
    """Return the upper left part of a map, of `size` (height, width)."""
    return Rows(size, lambda first, end: rows.read(first, end)[..., : size[1]])


def resized(rows: Rows, size: Sequence[int], align_corners: bool) -> Rows:
    """Return the map at another size (height, width), as bilinear `F.interpolate` does it."""
    source, (height, width) = rows.size[0], size
    if rows.size == (height, width):
        return rows

    def read(first: int, end: int) -> Tensor:
        if source == height:
            return _widened(rows.read(first, end), width, align_corners)
        centres = torch.arange(first, end, dtype=torch.float64)
        if align_corners:
            centres *= (source - 1) / max(1, height - 1)
        else:
            centres = (centres + 0.5) * (source / height) - 0.5
        low = centres.clamp_(0, source - 1).floor().long()
        high, share = (low + 1).clamp_(max=source - 1), centres - low
        top = int(low[0])
        # The columns are interpolated first, because the small map has fewer rows.
        x = _widened(rows.read(top, int(high[-1]) + 1), width, align_corners)
        row = torch.arange(end - first)
        weights = torch.zeros(end - first, x.shape[-2], dtype=share.dtype)
        weights[row, low - top] = 1 - share
        weights[row, high - top] += share
        planes = x.flatten(0, 1)
        with torch.autocast(x.device.type, enabled=False):  # bf16 products have 8 bits
            mixed = torch.bmm(weights.to(x).expand(len(planes), -1, -1), planes)
        return mixed.view(*x.shape[:2], end - first, width)

    return Rows((height, width), read)


def mean_of_windows(windows: Windows, parts: Sequence[Rows], size: Size) -> Rows:
    """Return the mean of the maps of overlapping windows, cropped to `size` (height, width).

    `parts` are the maps of the windows in row-major order. The mean is the first window's value
    plus the mean difference of the others. So the mean of equal values is exactly that value.
    """
    if len(parts) == 1:
        return cropped(parts[0], size)
    rows = _first_seen(windows.rows, windows.height)
    corners = list(product(rows, _first_seen(windows.columns, windows.width)))
    width = windows.columns[-1] + windows.width
    across = _coverage(windows.columns, windows.width)
    down = _coverage(windows.rows, windows.height)

    def read(first: int, end: int) -> Tensor:
        total: Tensor | None = None
        for ((top, new_top), (left, new_left)), part in zip(corners, parts, strict=True):
            start, stop = max(first, top), min(end, top + windows.height)
            if start >= stop:
                continue
            x = part.read(start - top, stop - top)
            if total is None:
                total = x.new_zeros(*x.shape[:2], end - first, width)
                differences = torch.zeros_like(total)
            # Rows from `new_row` on and columns from `new_column` on are in no earlier window.
            new_row, new_column = min(max(new_top, start), stop) - start, new_left - left
            area = (..., slice(start - first, stop - first), slice(left, left + windows.width))
            total[area][..., new_row:, new_column:] = x[..., new_row:, new_column:]
            above = (..., slice(new_row), slice(None))
            beside = (..., slice(new_row, None), slice(new_column))
            for overlap in (above, beside):
                differences[area][overlap] += x[overlap] - total[area][overlap]
        assert total is not None, "windows cover every row"
        count = down[first:end].view(-1, 1) * across
        if count.max() > 1:
            total.add_(differences.div_(count.to(differences)))
        return total[..., : size[1]]

    return Rows(size, read)


def bands(maps: Mapping[float, Rows]) -> Iterator[dict[float, Tensor]]:
    """Yield the scores (1, K, rows, W) of all scales, one band of rows at a time, top to bottom."""
    first_map = next(iter(maps.values()))
    height, row = first_map.size[0], first_map.read(0, 1)
    # A GPU needs few, large steps.
    budget = BAND_BYTES if row.is_cpu else 32 * BAND_BYTES
    step = max(8, budget // (row.numel() * row.element_size()))
    for first in range(0, height, step):
        end = min(first + step, height)
        yield {scale: rows.read(first, end) for scale, rows in maps.items()}


def sums(band: Mapping[float, Tensor], every_subset: bool) -> dict[Scales, Tensor]:
    """Return the scores of all scales and of each single scale, or of every subset."""
    if every_subset:
        return dict(_subset_sums(list(band.items())))
    first, *others = band.values()
    single: dict[Scales, Tensor] = {(scale,): scores for scale, scores in band.items()}
    return {**single, tuple(band): sum(others, first)}


def _subset_sums(
    terms: Sequence[tuple[float, Tensor]], scales: Scales = (), total: Tensor | None = None
) -> Iterator[tuple[Scales, Tensor]]:
    """Yield the sum of each non-empty subset, by one addition each."""
    for index, (scale, scores) in enumerate(terms):
        subset = (*scales, scale)
        subset_sum = scores if total is None else total + scores
        yield subset, subset_sum
        yield from _subset_sums(terms[index + 1 :], subset, subset_sum)


def _widened(x: Tensor, width: int, align_corners: bool) -> Tensor:
    if x.shape[-1] == width:
        return x
    lines = x.reshape(1, -1, x.shape[-1])
    wide = F.interpolate(lines, size=width, mode="linear", align_corners=align_corners)
    return wide.view(*x.shape[:-1], width)


def _coverage(starts: Sequence[int], side: int) -> Tensor:
    """Return the number of windows that contain each row (or column)."""
    covered = torch.cat([torch.arange(start, start + side) for start in starts])
    return covered.bincount().float()


def _first_seen(starts: Sequence[int], side: int) -> list[tuple[int, int]]:
    """Return each window's first row (or column), and its first one outside earlier windows."""
    ends = [0, *(start + side for start in starts[:-1])]
    return [(start, max(start, end)) for start, end in zip(starts, ends, strict=True)]
