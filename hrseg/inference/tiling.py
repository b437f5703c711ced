"""Tiled inference of large images: overlapping tiles, blended at head resolution.

Memory use does not depend on the height of the image: one row of tiles and one band of pixels.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError, DataError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.score_maps import Rows, cropped, resized
from hrseg.inference.windows import MIN_SIZE, Size, pad, padded_size
from hrseg.utils.channels import Pixels

Array = NDArray[np.uint8]
ReadRows = Callable[[int, int], Pixels]  # (first, end) -> pixels (end - first, W, N)

STRIDE = 4  # pixels per cell of the head's output
# The stride of the coarsest stream. In tiles that start on it, the features are aligned as in the
# whole image.
GRID = 32
BAND_PIXELS = 2**19  # of a band of rows whose scores are in memory at once


def predict_bands(
    evaluator: Evaluator,
    read_rows: ReadRows,
    size: Size,
    tile: int = 1024,
    overlap: int = 256,
    device: str = "cpu",
    confidence: bool = False,
) -> Iterator[tuple[int, Array]]:
    """Yield (first row, ids uint8 (rows, W)) of an image from top to bottom.

    With `confidence` the arrays are (rows, W, 2): ids, and 255 x the confidence.

    Every tile is evaluated at scale 1, with its mirror image if the protocol flips. Logits are
    interpolated to pixels as in the whole image.

    Args:
        evaluator: the model and its protocol.
        read_rows: (first, end) -> rows, such as RGB uint8; called for each row once, from top to
            bottom.
        size: (height, width) of the image.
        tile: side of a tile, in pixels; see `check_tiles`.
        overlap: width that neighbouring tiles share, in pixels.
        device: of the model.
        confidence: also return the confidence.

    Raises:
        ConfigError: invalid tiles.
        DataError: the image is smaller than 32x32.
    """
    check_tiles(tile, overlap)
    if min(size) < MIN_SIZE:
        raise DataError(
            f"The image has {size[1]}x{size[0]} pixels (width x height).\n"
            f"Expected: at least {MIN_SIZE}x{MIN_SIZE}. Fix: enlarge it, or leave it out."
        )
    padded = padded_size(size, _multiple(evaluator.protocol))
    if padded != size:
        read_rows = _padded_rows(read_rows, size, padded, evaluator.protocol)
    parts = _blended(evaluator, read_rows, padded, tile, overlap, device)
    cells = _joined(parts, -(-padded[0] // STRIDE))
    height, width = size
    scores = cropped(resized(cells, padded, evaluator.align_corners), size)
    step = max(1, BAND_PIXELS // width)
    for start in range(0, height, step):
        band = scores.read(start, min(start + step, height))
        ids = evaluator.class_ids(band, average="logits")
        if confidence:
            shares = evaluator.confidence(band, ids, average="logits")
            ids = torch.stack([ids, (255 * shares).round().to(torch.uint8)], -1)
        yield start, ids.numpy()


def check_tiles(tile: int, overlap: int) -> None:
    """Raise ConfigError if tiles of this side and overlap (pixels) are off the network's grid."""
    if tile % GRID or overlap % GRID or tile < 2 * GRID or not 0 <= 2 * overlap <= tile:
        raise ConfigError(
            f"Tiles of {tile} with an overlap of {overlap} pixels are invalid.\n"
            f"Expected: multiples of {GRID}, tiles of at least {2 * GRID}, and at most half a tile "
            "as overlap.\nFix: --tile 1024 --overlap 256"
        )


def skipped_steps(protocol: Protocol) -> list[str]:
    """Return a note on the steps of a protocol that tiled inference skips, if there are any."""
    names, plain = ("scales", "resize", "base_size"), Protocol()
    skipped = [name for name in names if getattr(protocol, name) != getattr(plain, name)]
    if _multiple(protocol) != protocol.pad_multiple:
        skipped.append("pad_multiple")
    steps = ", ".join(skipped)
    return [f"predicted in tiles at scale 1, without the protocol's {steps}"] if steps else []


def _multiple(protocol: Protocol) -> int:
    """Return the protocol's `pad_multiple`, or 1 if tiles skip it.

    They skip it if they do not start on it, or if the protocol does not crop the padding.
    """
    possible = protocol.crop_padding and GRID % protocol.pad_multiple == 0
    return protocol.pad_multiple if possible else 1


def _padded_rows(read_rows: ReadRows, size: Size, padded: Size, protocol: Protocol) -> ReadRows:
    """Return a function that reads the rows of an image of `size`, padded to `padded`."""

    def read(first: int, end: int) -> Pixels:
        rows = torch.from_numpy(np.array(read_rows(first, min(end, size[0]))))  # may be read-only
        image = pad(rows.permute(2, 0, 1)[None], (end - first, padded[1]), protocol)
        return image[0].permute(1, 2, 0).numpy()

    return read


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    """Return the first pixel of each tile along one side; the last tile reaches the border."""
    last = -(-max(0, length - tile) // GRID) * GRID
    return [*range(0, last, tile - overlap), last]


def _blended(
    evaluator: Evaluator, read_rows: ReadRows, size: Size, tile: int, overlap: int, device: str
) -> Iterator[Tensor]:
    """Yield the weighted mean of the tiles' logits, (1, K, rows, w), from top to bottom."""
    rows, columns = (_starts(length, tile, overlap) for length in size)
    down, across = (
        _weights(starts, length, tile, overlap)
        for starts, length in zip((rows, columns), size, strict=True)
    )
    sums = torch.empty(0, 0, 0)
    pixels: Pixels = np.empty((0, size[1], 0), np.uint8)
    for top, following, weights in zip(rows, [*rows[1:], size[0]], down, strict=True):
        read, bottom = top + len(pixels), min(top + tile, size[0])
        if read < bottom:
            following_rows = read_rows(read, bottom)
            pixels = np.concatenate([pixels, following_rows]) if len(pixels) else following_rows
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


def _joined(parts: Iterator[Tensor], height: int) -> Rows:
    """Return the map of `height` rows that consists of parts (1, K, rows, w), from top to bottom.

    Its rows are read from top to bottom; only those still needed are in memory.
    """
    buffer, first = next(parts), 0  # rows, and the index of the first of them

    def read(start: int, stop: int) -> Tensor:
        nonlocal buffer, first
        if stop > first + buffer.shape[2]:
            buffer, first = buffer[:, :, start - first :].clone(), start
        while stop > first + buffer.shape[2]:
            buffer = torch.cat([buffer, next(parts)], 2)
        return buffer[:, :, start - first : stop - first]

    return Rows((height, buffer.shape[3]), read)


def _tile_logits(
    evaluator: Evaluator, rows: Pixels, columns: Sequence[int], tile: int, device: str
) -> Iterator[Tensor]:
    """Yield the logits (K, h, w) at head resolution of the tiles of one row."""
    for left in columns:
        crop = np.ascontiguousarray(rows[:, left : left + tile])
        image = torch.from_numpy(crop).permute(2, 0, 1)[None].to(device)
        with torch.inference_mode():  # or the blended sum would keep the activations of each tile
            (views,) = evaluator.logits([evaluator.normalize(image)])
            cells = tuple(-(-side // STRIDE) for side in image.shape[-2:])
            if views.shape[-2:] != cells:  # a backbone with another stride
                views = F.interpolate(
                    views, cells, mode="bilinear", align_corners=evaluator.align_corners
                )
            logits = views.mean(0).cpu()
        yield logits


def _weights(starts: Sequence[int], length: int, side: int, overlap: int) -> list[Tensor]:
    """Return the weights of each tile's cells along one side; those of a cell sum to 1.

    Arguments are in pixels. A weight rises linearly over the overlap. It is 0 over the outer
    quarter, because the cells next to a cut are computed from zero padding.
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
