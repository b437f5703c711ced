"""Inputs of a prediction: search of files, and decoding of images to RGB."""

import glob
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from hrseg.data.bands import kind_of, read_bands
from hrseg.errors import ConfigError, DataError
from hrseg.utils.channels import Channels, Pixels

Input = str | Path | Image.Image | NDArray[Any]
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
# Larger images are predicted in tiles. This many pixels take 7 GiB (W18-small-v1, 11 classes).
MAX_WHOLE_PIXELS = 2**25
SCALED = "16 bits per channel scaled to 8"
_GEOREFERENCE = (33550, 34264)  # GeoTIFF: pixel scale, transformation
_CONVERTED = {
    "1": "black and white converted to RGB",
    "L": "greyscale converted to RGB",
    "LA": "greyscale converted to RGB, transparency ignored",
    **dict.fromkeys(("RGBA", "PA"), "transparency ignored"),
    "CMYK": "CMYK converted to RGB",
    "LAB": "Lab converted to RGB",
}


def read_pixels(source: Input, channels: Channels | None = None) -> tuple[Pixels, list[str]]:
    """Return an image as RGB uint8 (H, W, 3), and notes on its conversion.

    The EXIF orientation of files and PIL images is applied. 16 bits per channel are scaled to 8.
    With `channels` it is an image (H, W, N) of these bands; arrays contain only these bands.

    Raises:
        DataError: an unreadable file, or an image or array of an unsupported kind.
    """
    if channels is not None:
        if isinstance(source, np.ndarray | Image.Image):
            return _checked_array(np.asarray(source), channels), []
        _refuse_folder(source)
        return read_bands(Path(source), channels)[0], []
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
            raise DataError(
                f"The image is an array {source.dtype} {source.shape}.\n"
                "Expected: one RGB image, uint8 (H, W, 3)."
            )
        return np.ascontiguousarray(source), []
    if isinstance(source, Image.Image):
        return _converted(source)
    _refuse_folder(source)
    try:
        with Image.open(source, formats=FORMATS) as opened:
            return _converted(opened)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(
            f"{source}: no such file.\nExpected: the path of an image. Fix: check the path."
        ) from error
    except Exception as error:  # on damaged files Pillow raises nearly any exception
        reason = str(error).partition("\n")[0]
        raise DataError(
            f"{source} cannot be read as an image: {reason}\n"
            f"Expected: {', '.join(FORMATS)}. Fix: copy or convert the file again."
        ) from error


def _refuse_folder(source: str | Path) -> None:
    if Path(source).is_dir():
        raise DataError(
            f"{source} is a folder.\nExpected: an image, or a list of images.\n"
            "Fix: `hrseg predict FOLDER --checkpoint FILE`, or "
            'predict(sorted(pathlib.Path(folder).glob("*.png")))'
        )


def _checked_array(array: NDArray[Any], channels: Channels) -> Pixels:
    """Return an array (H, W, N), or (H, W) of one channel, in the data type of the memory."""
    values = array[..., None] if array.ndim == 2 else array
    fits = values.ndim == 3 and values.shape[2] == channels.count
    if not fits or kind_of(str(array.dtype)) != channels.kind:
        raise DataError(
            f"The image is an array {array.dtype} {array.shape}.\n"
            f"Expected: {channels.kind} (H, W, {channels.count}) of the {channels}."
        )
    return channels.in_memory(values)


def _converted(image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    """Return an opened image as upright RGB uint8 (H, W, 3), and notes on its conversion."""
    notes = []
    if (pages := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"{pages} pages, only the first is used")
    # Pillow reduces 16-bit colours to 8 bits; only `tile` shows the original depth.
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    upright = ImageOps.exif_transpose(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
        notes.append("rotated upright by EXIF orientation")
    if image.mode.startswith("I;16"):
        # Pillow would clip at 255. Training scales 16 bits in the same way.
        grey = (np.asarray(upright) // 257).astype(np.uint8)
        return np.stack([grey] * 3, 2), [*notes, _CONVERTED["L"], SCALED]
    if image.mode in ("I", "F"):
        raise DataError(
            f"The image has pixels of Pillow's mode {image.mode}.\n"
            "Expected: 8 or 16 bits per channel. Fix: convert it."
        )
    if deep:
        notes.append(SCALED)
    if image.mode in _CONVERTED:
        notes.append(_CONVERTED[image.mode])
    return np.array(upright.convert("RGB")), notes


@dataclass(frozen=True)
class Source:
    """A file to predict.

    Attributes:
        path: of the file.
        name: of its outputs without suffix: the stem, or the path relative to a given folder.
    """

    path: Path
    name: str

    @property
    def relative_path(self) -> str:
        """The path relative to the given folder, or the file name, with "/" as separator."""
        return self.name + self.path.suffix

    @cached_property
    def kind(self) -> str:
        """The kind by suffix and header: "image" (also of unreadable files), "video" or "tiles".

        "tiles" is a georeferenced image or one with more than MAX_WHOLE_PIXELS.
        """
        return _kind(self.path)


def find_sources(patterns: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Return the images and videos of files, folders and patterns, without duplicates, in order.

    Folders are searched recursively, except `leave_out`, the folder of the outputs.

    Raises:
        ConfigError: no file matches a pattern, all its files are below `leave_out`, or two files
            would have outputs of the same name.
    """
    excluded = leave_out.resolve() if leave_out else None

    @cache
    def is_excluded(path: Path) -> bool:
        real = path.resolve()
        return excluded in (real, *real.parents)

    names: dict[Path, str] = {}
    for pattern in patterns:
        inputs = {
            path: name
            for path, name in _find(pattern).items()
            if not is_excluded(path if path.is_symlink() else path.parent)
        }
        if not inputs:
            raise ConfigError(
                f"{pattern} is in {leave_out}, the folder of the outputs (--out).\n"
                "Expected: inputs outside of it. Fix: --out OTHER_FOLDER"
            )
        for path, name in inputs.items():
            names.setdefault(path, name)
    by_name: dict[str, Path] = {}
    for path, name in names.items():
        other = by_name.setdefault(name.lower(), path)
        if other != path:
            raise ConfigError(
                f"{other} and {path} would both be written as {name}.\n"
                "Expected: different output names. Fix: give the folder above them, or use "
                "another --out for each."
            )
    return [Source(path, name) for path, name in names.items()]


def _find(pattern: str) -> dict[Path, str]:
    """Return the files of a path or pattern, and the names of their outputs."""
    if re.match(r"[a-z][a-z0-9+.-]+://", pattern, re.IGNORECASE):
        raise ConfigError(
            f"{pattern} is a URL.\nExpected: a file, a folder or a pattern on this machine. "
            "Fix: download it and give its path."
        )
    path = Path(pattern)
    if path.is_file():
        return {path: path.stem}
    if path.is_dir():
        names = {
            file: file.relative_to(path).with_suffix("").as_posix()
            for file in sorted(path.rglob("*"))
            if file.suffix.lower() in IMAGES + VIDEOS
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and file.is_file()  # not a folder, and not a pipe or device, which may never end
        }
    else:
        matches = sorted(glob.glob(pattern, recursive=True))
        names = {file: name for match in matches for file, name in _find(match).items()}
    if not names:
        problem = "contains no image or video" if path.is_dir() else "matches no file"
        raise ConfigError(
            f"{pattern} {problem}.\n"
            f"Expected: {', '.join(suffix[1:] for suffix in IMAGES + VIDEOS)}. Fix: check the path."
        )
    return names


def _kind(path: Path) -> str:
    """Return the kind of a file by its suffix and header; an unreadable file is an image."""
    suffix = path.suffix.lower()
    if suffix in VIDEOS:
        return "video"
    with warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning):
        try:
            with Image.open(path, formats=FORMATS) as image:
                width, height = image.size
                tags = getattr(image, "tag_v2", ())
        except Image.DecompressionBombError:
            return "tiles"
        except Exception:  # on damaged files Pillow raises nearly any exception
            # GDAL reads kinds of TIFF that Pillow does not support.
            return "tiles" if suffix in (".tif", ".tiff") else "image"
    georeferenced = any(tag in tags for tag in _GEOREFERENCE)
    return "tiles" if width * height > MAX_WHOLE_PIXELS or georeferenced else "image"
