"""Tiling of large images: overlapping tiles, blended at head resolution.

What is held is one row of tiles and one band of pixels, whatever the height of the image.
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
from hrseg.inference.windows import MIN_SIZE, Size

Array = NDArray[np.uint8]
ReadRows = Callable[[int, int], Array]  # (first, end) -> RGB uint8 (end - first, W, 3)

STRIDE = 4  # pixels per cell of the head's output
GRID = 32  # the coarsest stream's stride: tiles that start on it see what the whole image would
PIXELS = 2**21  # whose scores are held at once


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
        read_rows: asked for rows downwards, each once.
        size: (height, width) of the image.
        tile: side of a tile in pixels, a multiple of 32 from 64 up.
        overlap: of neighbouring tiles in pixels, a multiple of 32 up to half a tile.
        device: where the model is.

    Raises:
        ConfigError: a tile or overlap that does not fit the grid.
        DataError: an image below 32 pixels a side.
        VerificationError: the scores are not finite.
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
        held = top + len(below)
        below = np.concatenate([below, read_rows(held, bottom)]) if held < bottom else below
        blended.add(index, _tile_logits(evaluator, below, columns, tile, device))
        last = index + 1 == len(rows)
        below = below[len(below) if last else rows[index + 1] - top :]
        finished = blended.take(None if last else rows[index + 1] // STRIDE)
        yield from band.pixels(finished, last)


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


def not_applied(protocol: Protocol) -> str | None:
    """Return what to say if a protocol asks for more than tiles give, else None."""
    plain = Protocol()
    more = [
        name
        for name in ("scales", "resize", "pad_multiple", "base_size")
        if getattr(protocol, name) != getattr(plain, name)
    ]
    if not more:
        return None
    return f"predicted in tiles at scale 1, without the protocol's {', '.join(more)}"


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return where tiles begin, on the grid; the last one ends with the image."""
    last = -(-max(0, length - tile) // GRID) * GRID
    return [*range(0, last, tile - overlap), last]


def _tile_logits(
    evaluator: Evaluator, rows: Array, columns: Sequence[int], tile: int, device: str
) -> Iterator[Tensor]:
    """Yield the logits (K, h, w) at head resolution of the tiles of one row."""
    for left in columns:
        crop = np.ascontiguousarray(rows[:, left : left + tile])
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():  # else the blended sum would keep what every tile went through
            (views,) = evaluator.logits([evaluator.normalize(image)])
            cells = tuple(-(-side // STRIDE) for side in image.shape[-2:])
            if views.shape[-2:] != cells:  # of a backbone with another stride
                views = F.interpolate(
                    views, cells, mode="bilinear", align_corners=evaluator.align_corners
                )
            logits = views.mean(0).cpu()
        yield logits


class _Blended:
    """The weighted mean of the tiles' logits, of which the finished rows are taken out."""

    def __init__(
        self, size: Size, rows: Sequence[int], columns: Sequence[int], tile: int, overlap: int
    ) -> None:
        height, self.width = (-(-side // STRIDE) for side in size)
        self.side = tile // STRIDE
        self.rows, self.columns = ([start // STRIDE for start in s] for s in (rows, columns))
        self.row_weights = _weights(self.rows, height, self.side, overlap // STRIDE)
        self.column_weights = _weights(self.columns, self.width, self.side, overlap // STRIDE)
        self.first = 0
        self.sums: Tensor | None = None

    def add(self, index: int, tiles: Iterator[Tensor]) -> None:
        """Add the tiles of a row of them."""
        top = self.rows[index] - self.first
        down = self.row_weights[index]
        for left, across, logits in zip(self.columns, self.column_weights, tiles, strict=True):
            if self.sums is None:
                self.sums = logits.new_zeros(len(logits), self.side, self.width)
            if top + logits.shape[1] > self.sums.shape[1]:
                missing = top + logits.shape[1] - self.sums.shape[1]
                self.sums = F.pad(self.sums, (0, 0, 0, missing))
            height, width = logits.shape[1:]
            place = self.sums[:, top : top + height, left : left + width]
            place.addcmul_(logits, down[:, None] * across[None])

    def take(self, end: int | None) -> Tensor:
        """Return the rows before `end` (None: all) that were not taken yet, (K, rows, w)."""
        assert self.sums is not None
        if end is None:
            end = self.rows[-1] + len(self.row_weights[-1])
        count = end - self.first
        taken = self.sums[:, :count].clone()
        kept = self.sums[:, count:].clone()
        self.sums[:, : kept.shape[1]] = kept
        self.sums[:, kept.shape[1] :] = 0
        self.first = end
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
        end = self.first + held.shape[1]
        ready = self.size[0] if last else self._ready(end)
        step = max(1, PIXELS // self.size[1])
        for start in range(self.done, ready, step):
            stop = min(start + step, ready)
            yield start, self._band(held, start, stop)
        self.done = ready
        keep = 0 if last else int(self._places(ready, ready + 1)[0])
        self.held = held[:, max(0, keep - self.first) :].clone()
        self.first = max(self.first, keep)

    def _places(self, start: int, stop: int) -> Tensor:
        """Return where rows of pixels lie among the rows of cells."""
        rows = torch.arange(start, stop, dtype=torch.float64)
        if self.align_corners:
            return rows * ((self.cells - 1) / max(1, self.size[0] - 1))
        return ((rows + 0.5) * (self.cells / self.size[0]) - 0.5).clamp_(0, self.cells - 1)

    def _ready(self, end: int) -> int:
        """Return how many rows of pixels need only cells before `end`."""
        rows = self.done + int((self._places(self.done, self.size[0]) <= end - 1).sum())
        return max(self.done, rows)

    def _band(self, held: Tensor, start: int, stop: int) -> Array:
        places = self._places(start, stop)
        low = places.floor().long()
        share = (places - low).to(held.dtype)[None, :, None]
        high = (low + 1).clamp_(max=self.cells - 1)
        mixed = torch.lerp(held[:, low - self.first], held[:, high - self.first], share)
        shape = (stop - start, self.size[1])
        wide = F.interpolate(mixed[None], shape, mode="bilinear", align_corners=self.align_corners)
        return class_ids(wide).numpy()


def _weights(starts: Sequence[int], length: int, side: int, overlap: int) -> list[Tensor]:
    """Return the weight of each tile at each of its cells, along one side; they sum to 1.

    It rises over the overlap, and is 0 over its outer quarter: the cells next to a cut see zeros
    where the image goes on.
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
