"""Tiling of large images: overlapping tiles, blended at head resolution.

Memory holds one row of tiles and one band of pixels, whatever the height of the image.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, DataError
from hrseg.inference.averaging import class_ids
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.score_maps import Rows, resized
from hrseg.inference.windows import MIN_SIZE, Size

Array = NDArray[np.uint8]
ReadRows = Callable[[int, int], Array]  # (first, end) -> RGB uint8 (end - first, W, 3)

STRIDE = 4  # pixels per cell of the head's output
GRID = 32  # the coarsest stream's stride: tiles aligned to it have the grid of the whole image
PIXELS = 2**19  # of a band whose scores are in memory at once


def predict_bands(
    evaluator: Evaluator,
    read_rows: ReadRows,
    size: Size,
    tile: int = 1024,
    overlap: int = 256,
    device: str = "cpu",
) -> Iterator[tuple[int, Array]]:
    """Yield (first row, ids (rows, W)) of an image from top to bottom.

    Every tile is run at scale 1, with its mirror image if the protocol flips. The geometry of the
    interpolation to pixels is that of the whole image. `read_rows` is called for rows downwards,
    each once; `size` is (height, width). `tile` is the side of a tile and `overlap` the width that
    neighbours share, in pixels; see `check_tiles`. A smaller image than 32x32 raises DataError.
    """
    check_tiles(tile, overlap)
    if min(size) < MIN_SIZE:
        raise DataError(f"an image of {size[1]}x{size[0]}: expected at least {MIN_SIZE} a side.")
    parts = _blended(evaluator, read_rows, size, tile, overlap, device)
    held, first = next(parts), 0  # cells, and the row that they begin with

    def read_cells(start: int, stop: int) -> Tensor:
        nonlocal held, first
        if stop > first + held.shape[2]:
            held, first = held[:, :, start - first :].clone(), start
        while stop > first + held.shape[2]:
            held = torch.cat([held, next(parts)], 2)
        return held[:, :, start - first : stop - first]

    height, width = size
    cells = Rows((-(-height // STRIDE), held.shape[3]), read_cells)
    scores, step = resized(cells, size, evaluator.align_corners), max(1, PIXELS // width)
    for start in range(0, height, step):
        yield start, class_ids(scores.read(start, min(start + step, height))).numpy()


def check_tiles(tile: int, overlap: int) -> None:
    """Raise ConfigError if tiles of this side and overlap do not lie on the network's grid."""
    if tile % GRID or overlap % GRID or tile < 2 * GRID or not 0 <= 2 * overlap <= tile:
        raise ConfigError(
            f"tiles of {tile} that overlap by {overlap}: expected multiples of {GRID}, tiles from "
            f"{2 * GRID} up, the overlap at most half of them.\n"
            "For example --tile 1024 --overlap 256."
        )


def not_applied(protocol: Protocol) -> list[str]:
    """Return a note on the steps of a protocol that tiles leave out, if there are any."""
    names, plain = ("scales", "resize", "pad_multiple", "base_size"), Protocol()
    steps = ", ".join(name for name in names if getattr(protocol, name) != getattr(plain, name))
    return [f"predicted in tiles at scale 1, without the protocol's {steps}"] if steps else []


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles, on the grid; the last tile ends with the image."""
    last = -(-max(0, length - tile) // GRID) * GRID
    return [*range(0, last, tile - overlap), last]


def _blended(
    evaluator: Evaluator, read_rows: ReadRows, size: Size, tile: int, overlap: int, device: str
) -> Iterator[Tensor]:
    """Yield the weighted mean of the tiles' logits, (1, K, rows, w) cells, from top to bottom."""
    rows, columns = (_starts(length, tile, overlap) for length in size)
    down, across = (
        _weights(starts, length, tile, overlap)
        for starts, length in zip((rows, columns), size, strict=True)
    )
    sums = torch.empty(0, 0, 0)
    pixels = np.empty((0, size[1], 3), np.uint8)
    for top, following, weights in zip(rows, [*rows[1:], size[0]], down, strict=True):
        read, bottom = top + len(pixels), min(top + tile, size[0])
        if read < bottom:
            pixels = np.concatenate([pixels, read_rows(read, bottom)])
        tiles = _tile_logits(evaluator, pixels, columns, tile, device)
        for left, share, logits in zip(columns, across, tiles, strict=True):
            classes, height, width = logits.shape
            if not len(sums):
                sums = logits.new_zeros(classes, height, -(-size[1] // STRIDE))
            if height > sums.shape[1]:
                sums = F.pad(sums, (0, 0, 0, height - sums.shape[1]))
            cells = sums[:, :height, left // STRIDE : left // STRIDE + width]
            cells.addcmul_(logits, weights[:, None] * share[None])
        finished = -(-(following - top) // STRIDE)
        yield sums[None, :, :finished]
        sums, pixels = sums[:, finished:], pixels[following - top :]


def _tile_logits(
    evaluator: Evaluator, rows: Array, columns: Sequence[int], tile: int, device: str
) -> Iterator[Tensor]:
    """Yield the logits (K, h, w) at head resolution of the tiles of one row."""
    for left in columns:
        crop = np.ascontiguousarray(rows[:, left : left + tile])
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():  # else the blended sum would keep the activations of each tile
            (views,) = evaluator.logits([evaluator.normalize(image)])
            cells = tuple(-(-side // STRIDE) for side in image.shape[-2:])
            if views.shape[-2:] != cells:  # of a backbone with another stride
                views = F.interpolate(
                    views, cells, mode="bilinear", align_corners=evaluator.align_corners
                )
            logits = views.mean(0).cpu()
        yield logits


def _weights(starts: Sequence[int], length: int, side: int, overlap: int) -> list[Tensor]:
    """Return the weight of each tile at each of its cells, along one side; they sum to 1.

    Arguments are in pixels. A weight rises over the overlap, and is 0 over its outer quarter: the
    cells next to a cut see zeros in place of the rest of the image.
    """
    starts, length = [start // STRIDE for start in starts], -(-length // STRIDE)
    side, overlap = side // STRIDE, overlap // STRIDE
    cut = overlap // 4
    ramp = ((torch.arange(side) - cut + 0.5) / max(1, overlap - 2 * cut)).clamp(0, 1)
    weights = []
    total = torch.zeros(length)
    for index, start in enumerate(starts):
        weight = torch.ones(min(side, length - start))
        if index:
            weight *= ramp[: len(weight)]
        if index + 1 < len(starts):
            weight *= ramp.flip(0)[: len(weight)]
        total[start : start + len(weight)] += weight
        weights.append(weight)
    return [w / total[s : s + len(w)] for s, w in zip(starts, weights, strict=True)]
