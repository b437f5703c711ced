"""From paths to arrays: find and pair files, read images and masks, name what is wrong."""

import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from hrseg.data.imagefile import decoding, named, opened, read_file, unreadable
from hrseg.data.png import pixels_alone, read_png
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import some

Array = npt.NDArray[np.uint8]
ReadMask = Callable[[Path], Array]  # path -> (H, W) train ids, 255 = ignore

SUFFIXES = (".png", ".jpg", ".jpeg")
_END_OF_JPEG = b"\xff\xd9"
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


@dataclass(frozen=True)
class MaskReader:
    """Path -> (H, W) uint8 train ids, 255 = ignore.

    Attributes:
        table: 256 entries, raw id -> train id; -1 marks a raw id that must not occur.
        repair: what to do about an unknown id, the last line of that error.
        palette: RGB colour of each raw id, for masks stored as colours; None for index masks.
    """

    table: npt.NDArray[np.int16]
    repair: str
    palette: tuple[tuple[int, int, int], ...] | None = None

    @property
    def identity(self) -> str:
        """What tells this reader from others, that give other ids."""
        return f"{self.table.tolist()} {self.palette}"

    def __call__(self, path: Path) -> Array:
        """Return the train ids.

        Raises:
            DataError: unreadable, of a wrong kind, or with an unknown id or colour.
        """
        raw = read_index_mask(path) if self.palette is None else read_rgb_mask(path, self.palette)
        unknown = cv2.LUT(raw, (self.table < 0).astype(np.uint8))
        if unknown.any():
            ids, counts = np.unique(raw[unknown > 0], return_counts=True)
            found = ", ".join(
                f"{i} ({n} pixels)" for i, n in list(zip(ids, counts, strict=True))[:5]
            )
            raise DataError(
                f"{named(path)}: unknown id {found}{', ...' if len(ids) > 5 else ''}\n"
                f"expected {_ranges(np.flatnonzero(self.table >= 0))}. {self.repair}"
            )
        return np.asarray(cv2.LUT(raw, self.table.astype(np.uint8)), np.uint8)


@dataclass(frozen=True)
class MaskReaderBySuffix:
    """Path -> train ids, for data sets that keep two kinds of ids apart by the file's name.

    Attributes:
        suffix: what the stem of one kind ends with.
        reader: reads those.
        otherwise: reads the others.
    """

    suffix: str
    reader: MaskReader
    otherwise: MaskReader

    @property
    def identity(self) -> str:
        """What tells this reader from others, that give other ids."""
        return f"{self.suffix}: {self.reader.identity}; {self.otherwise.identity}"

    def __call__(self, path: Path) -> Array:
        """Return the train ids (H, W); errors as `MaskReader`."""
        return (self.reader if path.stem.endswith(self.suffix) else self.otherwise)(path)


def id_table(
    num_classes: int, id_map: Mapping[int, int] | None = None, ignore_ids: Iterable[int] = ()
) -> npt.NDArray[np.int16]:
    """Return the 256 entries raw id -> train id, 255 = ignore, -1 = unknown.

    Args:
        num_classes: K; train ids are 0..K-1.
        id_map: raw id -> train id or 255; without it raw ids are train ids.
        ignore_ids: more raw ids that are ignored; `id_map` has the last word.

    Raises:
        ConfigError: more than 255 classes, or ids out of range.
    """
    if not 0 < num_classes <= 255:
        raise ConfigError(f"{num_classes} classes: between 1 and 255 can be told apart.")
    ignored = dict.fromkeys(ignore_ids, IGNORE_INDEX)
    pairs = {i: i for i in range(num_classes)} | ignored if id_map is None else ignored | {**id_map}
    table = np.full(256, -1, np.int16)
    for raw, train in pairs.items():
        if not 0 <= raw <= 255 or not (0 <= train < num_classes or train == IGNORE_INDEX):
            raise ConfigError(
                f"id map {raw} -> {train}: raw ids are 0..255, train ids 0..{num_classes - 1} "
                f"for {num_classes} classes, or 255 to ignore."
            )
        table[raw] = train
    return table


def read_image(path: Path) -> Array:
    """Return an image as RGB uint8 (H, W, 3), never rotated by EXIF, as its mask is not either.

    16-bit images are scaled to 8 bits, and a warning says so.

    Raises:
        DataError: missing, truncated, or not an image.
    """
    data = read_file(path)
    with opened(path, data) as header:
        if header.format != "PNG" and not data.rstrip(b"\0").endswith(_END_OF_JPEG):
            header.load()  # OpenCV fills what is missing with blank rows; Pillow refuses it
    with decoding(path):
        if (rgb := read_png(data, rgb=True)) is not None:
            return rgb
        image = cv2.imdecode(np.frombuffer(pixels_alone(data), np.uint8), _AS_STORED)
    if image is None or image.dtype not in (np.uint8, np.uint16):
        raise unreadable(path, image if image is None else f"its pixels are {image.dtype}")
    if image.dtype == np.uint16:
        warnings.warn("16-bit images are scaled to 8 bits when they are read", stacklevel=2)
        image = (image // 257).astype(np.uint8)
    return np.asarray(image, np.uint8)


def read_index_mask(path: Path) -> Array:
    """Return a mask's raw ids (H, W): grey values, or the indices of a palette image.

    Never OpenCV, which turns palette images into colours.

    Raises:
        DataError: unreadable, JPEG, coloured, or with ids above 255.
    """
    data = read_file(path)
    if (ids := read_png(data, rgb=False)) is not None:
        return ids
    mode, mask = _read_mask(path, data, None)
    if mask.ndim != 2:
        raise DataError(
            f"{named(path)} is a coloured image ({mode}); expected ids: a grey or palette image.\n"
            "Colours per class need the mask format rgb (`mask_format: rgb` and a palette)."
        )
    if mask.dtype != np.uint8 and (mask.min() < 0 or mask.max() > 255):
        raise DataError(
            f"{named(path)} holds ids up to {mask.max()} ({mode}); expected 0..255.\n"
            "Save class ids with 8 bits: 16 often hold instances, or ids times 256."
        )
    return np.asarray(mask, np.uint8)


def read_rgb_mask(path: Path, palette: tuple[tuple[int, int, int], ...]) -> Array:
    """Return the position of each pixel's colour in the palette, (H, W).

    Raises:
        DataError: unreadable, JPEG, or with a colour that is not in the palette.
    """
    colors = _read_mask(path, read_file(path), "RGB")[1].astype(np.uint32)
    codes = colors[..., 0] << 16 | colors[..., 1] << 8 | colors[..., 2]
    ids = _color_table(palette)[codes]
    if (ids < 0).any():
        code, count = np.unique(codes[ids < 0], return_counts=True)
        red, green, blue = (int(code[0]) >> shift & 255 for shift in (16, 8, 0))
        raise DataError(
            f"{named(path)}: colour ({red}, {green}, {blue}) in {count[0]} pixels "
            f"({len(code)} unknown colours) is not in the palette of {len(palette)}.\n"
            "Add the colour to palette; if it is not a class, also its position to ignore_ids."
        )
    return np.asarray(ids, np.uint8)


def pair_files(images: Path, masks: Path, mask_suffix: str = "") -> list[tuple[Path, Path]]:
    """Return (image, mask) paths below two folders, matched by name without extension, sorted.

    Args:
        images: folder, searched with its subfolders.
        masks: folder of the same layout; with a suffix it may be the same folder.
        mask_suffix: what a mask's stem has after the image's, for example "_mask".

    Raises:
        DataError: a folder is missing, no images, or anything without its partner.
    """
    image_of, mask_of = find_files(images), find_files(masks, mask_suffix)
    if images == masks and mask_suffix:
        image_of = {s: path for s, path in image_of.items() if not s.endswith(mask_suffix)}
    if not image_of:
        raise DataError(f"{images} holds no images; expected {', '.join(SUFFIXES)} files.")
    lonely = [image for stem, image in image_of.items() if stem not in mask_of]
    if lonely:
        example = f"{lonely[0].stem}{mask_suffix}.png"
        raise DataError(
            f"{len(lonely)} of {len(image_of)} images in {images} have no mask: {_names(lonely)}\n"
            f"expected each mask under the image's name in {masks}, e.g. {example}"
        )
    lonely = [mask for stem, mask in mask_of.items() if stem not in image_of]
    if lonely:
        raise DataError(
            f"{len(lonely)} of {len(mask_of)} masks in {masks} have no image: {_names(lonely)}\n"
            f"expected each image under the mask's name in {images}; add it or remove the mask."
        )
    return [(image, mask_of[stem]) for stem, image in image_of.items()]


def find_files(folder: Path, suffix: str = "") -> dict[str, Path]:
    """Return the images below a folder by their relative path, extension and `suffix` cut off.

    Raises:
        DataError: no such folder, or two images that differ in their extension only.
    """
    if not folder.is_dir():
        raise DataError(
            f"no folder {folder.absolute()}\nexpected images in it; is data.root right?"
        )
    found: dict[str, Path] = {}
    for name in _image_names(folder):
        stem, path = os.path.splitext(name)[0], folder / name
        if not stem.endswith(suffix):
            continue
        first = found.setdefault(stem.removesuffix(suffix), path)
        if first is not path:
            raise DataError(
                f"{first} and {path.name} have the same name; expected one file for each stem.\n"
                "Rename or remove one of them."
            )
    return found


def _image_names(folder: Path) -> list[str]:
    """Return relative paths with slashes, sorted: as strings, faster than by `Path`."""
    names: list[str] = []
    for where, _, files in os.walk(folder):
        home = Path(where).relative_to(folder).as_posix()
        images = [name for name in files if os.path.splitext(name)[1].lower() in SUFFIXES]
        names += [f"{home}/{name}" for name in images if not name.startswith(".")]
    return sorted((name.removeprefix("./") for name in names), key=lambda name: name.split("/"))


def _read_mask(path: Path, data: bytes, mode: str | None) -> tuple[str, npt.NDArray[Any]]:
    with opened(path, data) as image:
        if image.format != "PNG":
            raise DataError(
                f"{named(path)}: a JPEG mask has wrong ids: its compression blends neighbouring "
                "values.\nExport the masks as PNG from the annotation tool again."
            )
        if mode and image.mode.startswith("I"):  # Pillow would make 255 of all above it
            raise DataError(
                f"{named(path)} has 16 bits a pixel ({image.mode}); expected colours of 8 bits.\n"
                "Export the masks as RGB or palette PNGs of 8 bits."
            )
        return image.mode, np.asarray(image.convert(mode)) if mode else stored_values(image)


def stored_values(image: Image.Image) -> npt.NDArray[Any]:
    """Return the values as the file holds them; Pillow stretches 2- and 4-bit grey to 0..255."""
    tiles = getattr(image, "tile", None)
    depth = tiles[0][3] if tiles else None
    stretch = {"L;2": 85, "L;4": 17}.get(str(depth), 1)
    values = np.asarray(image)
    return values // stretch if stretch > 1 else values


@lru_cache(maxsize=4)
def _color_table(palette: tuple[tuple[int, int, int], ...]) -> npt.NDArray[np.int16]:
    """Return 2^24 entries, colour -> position: 32 MB, and 10 times faster than a search."""
    table = np.full(1 << 24, -1, np.int16)
    for index, (red, green, blue) in enumerate(palette):
        table[red << 16 | green << 8 | blue] = index
    return table


def _ranges(ids: npt.NDArray[Any]) -> str:
    """Write sorted ids as "0..10, 255"."""
    groups = np.split(ids, np.flatnonzero(np.diff(ids) > 1) + 1)
    return ", ".join(f"{g[0]}..{g[-1]}" if len(g) > 1 else str(g[0]) for g in groups if len(g))


def _names(paths: Sequence[Path]) -> str:
    return some([path.name for path in paths])
