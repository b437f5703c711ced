"""Inputs of a prediction: files, folders and patterns, and the pixels of each image."""

import glob
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hrseg.errors import ConfigError, DataError

Input = str | Path | Image.Image | NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")

_CONVERTED = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, its transparency left out",
    "RGBA": "its transparency left out",
    "PA": "its transparency left out",
    "CMYK": "CMYK colours converted",
    "LAB": "Lab colours converted",
}


def read_pixels(source: Input) -> tuple[NDArray[np.uint8], list[str]]:
    """Return an image as RGB uint8 (H, W, 3), and what had to be done to it.

    The EXIF rotation of files and PIL images is applied; 16 bits a channel are scaled to 8.

    Raises:
        DataError: an unreadable file, or an image or array of a kind that has no RGB bytes.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
            raise DataError(
                f"got an array {source.shape} of {source.dtype}; expected RGB uint8 (H, W, 3)."
            )
        return np.ascontiguousarray(source), []
    if isinstance(source, Image.Image):
        return _upright(source)
    try:
        with Image.open(source, formats=FORMATS) as opened:
            return _upright(opened)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"no such file: {source}") from error
    except Exception as error:  # on damaged files Pillow raises nearly anything
        raise DataError(f"{source} is no readable image: {_first_line(error)}") from error


def _upright(image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    notes = []
    if getattr(image, "n_frames", 1) > 1:
        notes.append(f"{getattr(image, 'n_frames', 1)} pages, only the first is taken")
    # Pillow keeps the upper byte of 16-bit colours, and says so only here.
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    turned = ImageOps.exif_transpose(image)
    if turned.size != image.size or (image.getexif().get(0x0112, 1) not in (0, 1)):
        notes.append("turned upright by its EXIF")
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255; training scales 16 bits down as well.
        grey = (np.asarray(turned) // 257).astype(np.uint8)
        return np.stack([grey] * 3, 2), [*notes, "grey", "16 bits scaled to 8"]
    if image.mode in ("I", "F"):
        raise DataError(f"got an image of mode {image.mode}; expected 8 or 16 bits a channel.")
    if deep:
        notes.append("16 bits scaled to 8")
    if image.mode in _CONVERTED:
        notes.append(_CONVERTED[image.mode])
    return np.array(turned.convert("RGB")), notes


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# More pixels are predicted in tiles: whole, as many take 7 GiB (W18-small-v1, 11 classes).
LARGE = 2**25
_GEOREFERENCE = (33550, 34264)  # GeoTIFF: pixel scale, transformation


@dataclass(frozen=True)
class Source:
    """A file to predict.

    Attributes:
        path: where it is.
        name: what its outputs are called, without a suffix: its stem, in a folder that was given
            with the path from there.
        kind: "image", "video", or "tiles" for what is too large to be held, or georeferenced.
    """

    path: Path
    name: str
    kind: str


def find_sources(patterns: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Return the images and videos that files, folders and patterns name, each once, in order.

    Args:
        patterns: paths; folders are searched with all below them; `*`, `?`, `[...]`, `**` match.
        leave_out: a folder whose files do not count: the outputs.

    Raises:
        ConfigError: a pattern finds nothing, or two files would have outputs of the same name.
    """
    found: dict[Path, str] = {}
    hidden = leave_out.resolve() if leave_out else None
    for pattern in patterns:
        for path, name in _find(pattern).items():
            if hidden is None or hidden not in path.resolve().parents:
                found.setdefault(path, name)
    sources = [Source(path, name, _kind(path)) for path, name in found.items()]
    by_name: dict[str, Source] = {}
    for source in sources:
        other = by_name.setdefault(source.name.lower(), source)
        if other is not source:
            raise ConfigError(
                f"{other.path} and {source.path} would both be written as {source.name}.\n"
                "Name the folder above them instead, or predict them into two folders (--out)."
            )
    return sources


def _find(pattern: str) -> dict[Path, str]:
    path = Path(pattern)
    if path.is_file():
        return {path: path.stem}
    if path.is_dir():
        found = {
            file: file.relative_to(path).with_suffix("").as_posix()
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGES + VIDEOS
            and not _is_hidden(file.relative_to(path))
            and file.is_file()  # no folder, and no pipe or device, which never ends
        }
    else:
        matches = sorted(glob.glob(pattern, recursive=True))
        found = {p: n for match in matches for p, n in _find(match).items()}
    if not found:
        what = f"no image or video below {path}" if path.is_dir() else f"no such file: {pattern}"
        raise ConfigError(
            f"{what}\nExpected {', '.join(suffix[1:] for suffix in IMAGES + VIDEOS)}."
        )
    return found


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _kind(path: Path) -> str:
    """Return how a file is read, by its suffix and header; what cannot be opened is an image."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return "video"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                tags = getattr(image, "tag_v2", ())
        except Image.DecompressionBombError:
            return "tiles"
        except Exception:  # on damaged files Pillow raises nearly anything
            # TIFFs of kinds that Pillow does not know are GDAL's to try.
            return "tiles" if suffix in (".tif", ".tiff") else "image"
    georeferenced = any(tag in tags for tag in _GEOREFERENCE)
    return "tiles" if width * height > LARGE or georeferenced else "image"
