"""Mask reading: train ids from index, palette and RGB masks, with errors for unknown ids."""

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hrseg.data.images import (
    SUFFIXES,
    Array,
    decoder_errors,
    formats_of,
    open_file,
    printable_path,
    read_file,
    read_png,
)
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX

ReadMask = Callable[[Path], Array]  # path -> (H, W) train ids, 255 = ignore
Palette = tuple[tuple[int, int, int], ...]
_ADD_COLOR = "Fix: add the colour to palette; if it is not a class, add its position to ignore_ids."
# Formats without loss; a file of a lossy format is opened for its error.
MASK_SUFFIXES = tuple(dict.fromkeys((*SUFFIXES, ".tif", ".tiff", ".bmp", ".gif")))
LOSSY_FORMATS = ("JPEG", "WEBP")
_LOSSY = "a JPEG mask has wrong ids, as its compression blends neighbouring values"
ALPHA_MODES = ("RGBA", "LA", "PA")


def mask_formats(path: Path) -> tuple[str, ...]:
    """Return the formats of Pillow that a mask file of this suffix may have."""
    return (*formats_of(path), "GIF") if path.suffix.lower() == ".gif" else formats_of(path)


def wrong_ids(ids: npt.NDArray[Any], num_classes: int) -> list[int]:
    """Return up to five invalid ids, neither classes nor 255, of a mask of any integer type."""
    fits = ids.dtype == np.uint8 or (ids.min() >= 0 and ids.max() <= IGNORE_INDEX)
    # uint8 wraps 255 to 0, so one maximum is enough: 0.2 ms for 12 masks of 512x1024.
    if fits and (ids.astype(np.uint8, copy=False) + np.uint8(1)).max() <= num_classes:
        return []
    wrong = (ids < 0) | (ids >= num_classes)
    return [int(value) for value in np.unique(ids[wrong & (ids != IGNORE_INDEX)])[:5]]


@dataclass(frozen=True)
class MaskReader:
    """Reader of a mask: path -> (H, W) uint8 train ids, 255 = ignore."""

    table: npt.NDArray[np.int16]  # 256 entries raw id -> train id; -1 for unknown raw ids
    repair: str  # fix of an unknown id: the last line of the error
    palette: Palette | None = None  # colour of each raw id; None: masks contain ids
    coloured: str = ""  # fix of a coloured mask if ids are expected; "": `repair`
    alpha: bool = False  # the raw ids are the alpha channel

    @property
    def identity(self) -> str:
        """Text that differs for readers that return other ids."""
        return f"{self.table.tolist()} {self.palette}{' alpha' * self.alpha}"

    def __call__(self, path: Path) -> Array:
        """Return the train ids (H, W).

        Raises:
            DataError: the file is unreadable, of another kind, or has an unknown id.
        """
        if self.alpha:
            raw = _read_alpha_mask(path)
        elif self.palette is None:
            raw = read_index_mask(path, self.coloured or self.repair)
        else:
            raw = read_rgb_mask(path, self.palette)
        unknown = cv2.LUT(raw, (self.table < 0).astype(np.uint8))
        if unknown.any():
            ids, counts = np.unique(raw[unknown > 0], return_counts=True)
            shown = [f"{i} ({n} pixels)" for i, n in zip(ids[:5], counts[:5], strict=True)]
            more = ", ..." if len(ids) > 5 else ""
            raise DataError(
                f"{printable_path(path)}: unknown id {', '.join(shown)}{more}.\n"
                f"Expected: {_ranges(np.flatnonzero(self.table >= 0))}.\n{self.repair}"
            )
        return np.asarray(cv2.LUT(raw, self.table.astype(np.uint8)), np.uint8)


@dataclass(frozen=True)
class MaskReaderBySuffix:
    """Readers of two kinds of masks: `reader` for stems that end in `suffix`, else `otherwise`."""

    suffix: str
    reader: MaskReader
    otherwise: MaskReader

    @property
    def identity(self) -> str:
        """Text that differs for readers that return other ids."""
        return f"{self.suffix}: {self.reader.identity}; {self.otherwise.identity}"

    def __call__(self, path: Path) -> Array:
        """Return the train ids (H, W); errors as `MaskReader`."""
        return (self.reader if path.stem.endswith(self.suffix) else self.otherwise)(path)


def id_table(
    num_classes: int, id_map: Mapping[int, int] | None = None, ignore_ids: Iterable[int] = ()
) -> npt.NDArray[np.int16]:
    """Return the 256 entries raw id -> train id, 255 = ignore, -1 = unknown.

    Without `id_map` raw ids are train ids, 0 to `num_classes` - 1. Raw ids in `ignore_ids` are
    ignored unless `id_map` maps them.

    Raises:
        ConfigError: too many classes, or ids out of range.

    Examples:
        >>> table = id_table(2, {7: 0, 8: 1}, ignore_ids=[0])
        >>> table[[7, 8, 0, 9]].tolist()
        [0, 1, 255, -1]
    """
    if not 0 < num_classes <= 255:
        raise ConfigError(f"The data set has {num_classes} classes.\nExpected: 1 to 255.")
    ignored = dict.fromkeys(ignore_ids, IGNORE_INDEX)
    pairs = {i: i for i in range(num_classes)} | ignored if id_map is None else ignored | {**id_map}
    table = np.full(256, -1, np.int16)
    for raw, train in pairs.items():
        if not 0 <= raw <= 255 or not (0 <= train < num_classes or train == IGNORE_INDEX):
            raise ConfigError(
                f"The id map has {raw} -> {train}.\nExpected: raw ids 0..255; train ids "
                f"0..{num_classes - 1} for {num_classes} classes, or {IGNORE_INDEX} to ignore."
            )
        table[raw] = train
    return table


def read_index_mask(path: Path, coloured: str = "Fix: save class ids, not colours.") -> Array:
    """Return a mask's raw ids (H, W): grey values, or the indices of a palette image.

    OpenCV is unsuitable: it converts palette images to colours.

    Args:
        path: PNG, TIFF, BMP or GIF file.
        coloured: fix of a coloured mask, for the error.

    Raises:
        DataError: the file is unreadable, a JPEG, coloured, or has ids above 255.
    """
    data = read_file(path)
    if (ids := read_png(data, rgb=False)) is not None:
        return ids
    mode, mask = _decode(path, data)
    if mask.ndim != 2:
        raise DataError(
            f"{printable_path(path)} is a coloured image ({mode}).\n"
            f"Expected: class ids, as a grey or palette image.\n{coloured}"
        )
    if mask.dtype.kind == "f":
        raise DataError(
            f"{printable_path(path)} contains decimal numbers ({mode}).\n"
            "Expected: class ids 0..255 as whole numbers.\nFix: save class ids with 8 bits."
        )
    if mask.dtype != np.uint8 and (mask.min() < 0 or mask.max() > 255):
        raise DataError(
            f"{printable_path(path)} contains ids up to {mask.max()} ({mode}).\nExpected: 0..255. "
            "Masks of 16 bits often contain instance ids, or ids times 256.\n"
            "Fix: save class ids with 8 bits."
        )
    return np.asarray(mask, np.uint8)


def read_rgb_mask(path: Path, palette: Palette, unknown: str = _ADD_COLOR) -> Array:
    """Return the index of each pixel's colour in the palette, (H, W).

    Args:
        path: PNG file.
        palette: at most 256 different RGB colours.
        unknown: fix of a colour outside of the palette, for the error.

    Raises:
        DataError: the file is unreadable, a JPEG, or has another colour.
    """
    colors = _decode(path, read_file(path), "RGB")[1].astype(np.uint32)
    codes = colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    ids = _color_table(palette)[codes]
    if (ids < 0).any():
        code, count = np.unique(codes[ids < 0], return_counts=True)
        red, green, blue = (int(code[0]) >> shift & 255 for shift in (16, 8, 0))
        raise DataError(
            f"{printable_path(path)}: colour ({red}, {green}, {blue}) in {count[0]} pixels "
            f"({len(code)} unknown colours) is not in the palette.\n"
            f"Expected: one of its {len(palette)} colours.\n{unknown}"
        )
    return np.asarray(ids, np.uint8)


def _read_alpha_mask(path: Path) -> Array:
    """Return the alpha channel, (H, W)."""
    mode, pixels = _decode(path, read_file(path), "RGBA")
    if mode not in ALPHA_MODES:
        raise DataError(
            f"{printable_path(path)} has no alpha channel ({mode}).\n"
            "Expected: transparency, by data.mask_format=alpha.\n"
            "Fix: save the file with transparency, or use another mask_format."
        )
    return np.ascontiguousarray(pixels[..., 3])


def mask_size(path: Path) -> tuple[int, int]:
    """Return the (height, width) of a mask without decoding; errors as `open_file`."""
    with open_file(path) as file, Image.open(file, formats=mask_formats(path)) as image:
        return image.height, image.width


def _decode(path: Path, data: bytes, mode: str | None = None) -> tuple[str, npt.NDArray[Any]]:
    with decoder_errors(path), Image.open(io.BytesIO(data), formats=mask_formats(path)) as image:
        if image.format in LOSSY_FORMATS:
            raise DataError(
                f"{printable_path(path)}: {_LOSSY.replace('JPEG', str(image.format))}.\n"
                "Expected: a PNG file.\n"
                "Fix: export the masks again from the annotation tool, as PNG."
            )
        if mode and image.mode.startswith("I"):  # Pillow would clip values to 255
            raise DataError(
                f"{printable_path(path)} has 16 bits per pixel ({image.mode}).\n"
                "Expected: colours of 8 bits. Fix: export the masks as RGB or palette PNG, 8 bits."
            )
        return image.mode, np.asarray(image.convert(mode)) if mode else stored_values(image)


def stored_values(image: Image.Image) -> npt.NDArray[Any]:
    """Return the values in the file (H, W): Pillow scales grey of 2 and 4 bits to 0..255."""
    tiles = getattr(image, "tile", None)
    scale = {"L;2": 85, "L;4": 17}.get(str(tiles[0][3]) if tiles else "")
    return np.asarray(image) // scale if scale else np.asarray(image)


@lru_cache(maxsize=4)
def _color_table(palette: Palette) -> npt.NDArray[np.int16]:
    """Return 2^24 entries, colour -> index. This takes 32 MB; a search is 10 times slower."""
    table = np.full(1 << 24, -1, np.int16)
    for index, (red, green, blue) in enumerate(palette):
        table[red << 16 | green << 8 | blue] = index
    return table


def _ranges(ids: npt.NDArray[Any]) -> str:  # for example "0..10, 255"
    groups = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{g[0]}..{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups if len(g))
