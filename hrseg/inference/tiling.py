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
from hrseg.inference.score_maps import row_centres
from hrseg.inference.windows import MIN_SIZE, Size

Array = NDArray[np.uint8]
ReadRows = Callable[[int, int], Array]  # (first, end) -> RGB uint8 (end - first, W, 3)

STRIDE = 4  # pixels per cell of the head's output
GRID = 32  # the coarsest stream's stride: tiles that start on it see what the whole image would
PIXELS = 2**21  # of a band whose scores are in memory at once


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
    interpolation to pixels is that of the whole image.

    Args:
        evaluator: its model, normalisation and flip are used.
        read_rows: called for rows downwards, each once.
        size: (height, width) of the image.
        tile: side of a tile in pixels, see `check_tiles`.
        overlap: of neighbouring tiles in pixels.
        device: of the model.

    Raises:
        ConfigError: a tile or overlap that does not fit the grid.
        DataError: an image below 32 pixels a side.
        VerificationError: the scores are NaN or infinite.
    """
    check_tiles(tile, overlap)
    if min(size) < MIN_SIZE:
        raise DataError(f"an image of {size[1]}x{size[0]}: expected at least {MIN_SIZE} a side.")
    rows, columns = (_starts(length, tile, overlap) for length in size)
    blended = _Blended(size, rows, columns, tile, overlap)
    below = np.empty((0, size[1], 3), np.uint8)
    band = _Interpolation(evaluator.align_corners, size)
    for index, top in enumerate(rows):
        bottom = min(top + tile, size[0])
        read = top + len(below)
        below = np.concatenate([below, read_rows(read, bottom)]) if read < bottom else below
        blended.add(index, _tile_logits(evaluator, below, columns, tile, device))
        last = index + 1 == len(rows)
        end = blended.height if last else rows[index + 1] // STRIDE
        below = below[len(below) if last else rows[index + 1] - top :]
        yield from band.pixels(blended.take(end), last)


def default_overlap(tile: int) -> int:
    """Return about a quarter of a tile's side, on the network's grid."""
    return tile // 4 // GRID * GRID


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
    names = ("scales", "resize", "pad_multiple", "base_size")
    left_out = [name for name in names if getattr(protocol, name) != getattr(Protocol(), name)]
    if not left_out:
        return []
    return [f"predicted in tiles at scale 1, without the protocol's {', '.join(left_out)}"]


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles, on the grid; the last tile ends with the image."""
    last = -(-max(0, length - tile) // GRID) * GRID
    return [*range(0, last, tile - overlap), last]


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


class _Blended:
    """The weighted mean of the tiles' logits, row of tiles by row of tiles."""

    def __init__(
        self, size: Size, rows: Sequence[int], columns: Sequence[int], tile: int, overlap: int
    ) -> None:
        self.height, self.width = (-(-side // STRIDE) for side in size)
        side = tile // STRIDE
        self.rows, self.columns = ([start // STRIDE for start in s] for s in (rows, columns))
        self.row_weights = _weights(self.rows, self.height, side, overlap // STRIDE)
        self.column_weights = _weights(self.columns, self.width, side, overlap // STRIDE)
        self.first = 0
        self.sums = torch.empty(0, 0, 0)

    def add(self, index: int, tiles: Iterator[Tensor]) -> None:
        """Add a row of tiles."""
        top = self.rows[index] - self.first
        down = self.row_weights[index]
        for left, across, logits in zip(self.columns, self.column_weights, tiles, strict=True):
            classes, height, width = logits.shape
            if not len(self.sums):
                self.sums = logits.new_zeros(classes, height, self.width)
            missing = top + height - self.sums.shape[1]
            if missing > 0:
                self.sums = F.pad(self.sums, (0, 0, 0, missing))
            cells = self.sums[:, top : top + height, left : left + width]
            cells.addcmul_(logits, down[:, None] * across[None])

    def take(self, end: int) -> Tensor:
        """Return the rows before `end` that were not taken yet, (K, rows, w)."""
        count, self.first = end - self.first, end
        taken, self.sums = self.sums[:, :count], self.sums[:, count:]
        return taken


class _Interpolation:
    """From cells to class ids of pixels: bilinear, with the geometry of the whole image."""

    def __init__(self, align_corners: bool, size: Size) -> None:
        self.align_corners = align_corners
        self.size = size
        self.cells = -(-size[0] // STRIDE)
        self.done = 0  # rows of pixels
        self.first = 0  # row of cells that `held` begins with
        self.held: Tensor | None = None

    def pixels(self, cells: Tensor, last: bool) -> Iterator[tuple[int, Array]]:
        """Take the next rows of cells (K, rows, w); yield the pixels that they complete."""
        held = cells if self.held is None else torch.cat([self.held, cells], 1)
        ready = self.size[0]
        if not last:
            end = self.first + held.shape[1]
            ready = self.done + int((self._centres(self.done, ready) <= end - 1).sum())
        step = max(1, PIXELS // self.size[1])
        for start in range(self.done, ready, step):
            stop = min(start + step, ready)
            yield start, self._band(held, start, stop)
        self.done = ready
        keep = 0 if last else int(self._centres(ready, ready + 1)[0])
        self.held = held[:, max(0, keep - self.first) :].clone()
        self.first = max(self.first, keep)

    def _centres(self, start: int, stop: int) -> Tensor:
        return row_centres(start, stop, self.cells, self.size[0], self.align_corners)

    def _band(self, held: Tensor, start: int, stop: int) -> Array:
        centres = self._centres(start, stop)
        low = centres.floor().long()
        share = (centres - low).to(held.dtype)[None, :, None]
        high = (low + 1).clamp_(max=self.cells - 1)
        mixed = torch.lerp(held[:, low - self.first], held[:, high - self.first], share)
        shape = (stop - start, self.size[1])
        wide = F.interpolate(mixed[None], shape, mode="bilinear", align_corners=self.align_corners)
        return class_ids(wide).numpy()


def _weights(starts: Sequence[int], length: int, side: int, overlap: int) -> list[Tensor]:
    """Return the weight of each tile at each of its cells, along one side; they sum to 1.

    It rises over the overlap, and is 0 over its outer quarter: the cells next to a cut see zeros
    in place of the rest of the image.
    """
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
