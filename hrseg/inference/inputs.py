"""Inputs of a prediction: files, folders and patterns, and the pixels of each image."""

import glob
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from hrseg.errors import ConfigError, DataError
from hrseg.utils.files import read_object

Input = str | Path | Image.Image | NDArray[np.uint8]
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP")
IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp")
VIDEOS = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg")
MANIFEST = "predict.json"  # settings and results of a prediction, in the folder of its outputs
OUTPUTS = ("masks", "overlays", "probabilities", "polygons")  # folders in it
# More pixels are predicted in tiles: whole, as many take 7 GiB (W18-small-v1, 11 classes).
LARGE = 2**25
_GEOREFERENCE = (33550, 34264)  # GeoTIFF: pixel scale, transformation
_CONVERTED = {
    "1": "black and white",
    "L": "grey",
    "LA": "grey, its transparency left out",
    **dict.fromkeys(("RGBA", "PA"), "its transparency left out"),
    "CMYK": "CMYK colours converted",
    "LAB": "Lab colours converted",
}


def read_pixels(source: Input) -> tuple[NDArray[np.uint8], list[str]]:
    """Return an image as RGB uint8 (H, W, 3), and notes on its conversion.

    The EXIF rotation of files and PIL images is applied; 16 bits a channel are scaled to 8. Files
    that cannot be read, and images or arrays of other kinds, raise DataError.
    """
    if isinstance(source, np.ndarray):
        if source.ndim != 3 or source.shape[2] != 3 or source.dtype != np.uint8:
            raise DataError(
                f"got an array {source.shape} of {source.dtype}; expected RGB uint8 (H, W, 3)."
            )
        return np.ascontiguousarray(source), []
    if isinstance(source, Image.Image):
        return _upright(source)
    if Path(source).is_dir():
        raise DataError(
            f"{source} is a folder.\nExpected: an image, or a list of them.\n"
            "Fix: `hrseg predict FOLDER --checkpoint FILE`, or "
            'predict(sorted(pathlib.Path(folder).glob("*.png")))'
        )
    try:
        with Image.open(source, formats=FORMATS) as opened:
            return _upright(opened)
    except DataError as error:
        raise DataError(f"{source}: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"no such file: {source}") from error
    except Exception as error:  # on damaged files Pillow raises nearly anything
        reason = str(error).partition("\n")[0]
        raise DataError(f"{source} cannot be read as an image: {reason}") from error


def _upright(image: Image.Image) -> tuple[NDArray[np.uint8], list[str]]:
    notes = []
    if (pages := getattr(image, "n_frames", 1)) > 1:
        notes.append(f"{pages} pages, only the first is taken")
    # Pillow keeps the upper byte of 16-bit colours, and shows their depth only here.
    deep = any(";16" in str(tile) for tile in getattr(image, "tile", ()))
    turned = ImageOps.exif_transpose(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
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


@dataclass(frozen=True)
class Source:
    """A file to predict."""

    path: Path
    name: str  # of its outputs, without suffix: the stem; in a given folder the path from there
    kind: str  # "image", "video", or "tiles" for georeferenced images and those above LARGE


def find_sources(patterns: Sequence[str], leave_out: Path | None = None) -> list[Source]:
    """Return the images and videos of files, folders and patterns, each once, in order.

    Folders are searched with all below them, except `leave_out`, the folder of the outputs. Raises
    ConfigError if no file matches a pattern, all its files lie below `leave_out`, or two files
    would have outputs of the same name.
    """
    hidden = leave_out.resolve() if leave_out else None
    names: dict[Path, str] = {}
    for pattern in patterns:
        kept = {p: n for p, n in _find(pattern).items() if hidden not in p.resolve().parents}
        if not kept:
            raise ConfigError(
                f"{pattern} lies in {leave_out}, the folder of the outputs (--out).\n"
                "Expected: inputs outside of it. Fix: --out OTHER_FOLDER"
            )
        for path, name in kept.items():
            names.setdefault(path, name)
    by_name: dict[str, Path] = {}
    for path, name in names.items():
        other = by_name.setdefault(name.lower(), path)
        if other != path:
            raise ConfigError(
                f"{other} and {path} would both be written as {name}.\n"
                "Name the folder above them instead, or predict them into two folders (--out)."
            )
    return [Source(path, name, _kind(path)) for path, name in names.items()]


def check_out(out: Path) -> None:
    """Check that the folder of the outputs has no files under their names that others wrote.

    Raises:
        ConfigError: folders such as masks/ exist, and no predict.json of an earlier prediction.
    """
    taken = [name for name in (*OUTPUTS, "legend.png") if (out / name).exists()]
    if taken and "sha256" not in read_object(out / MANIFEST):
        raise ConfigError(
            f"--out {out} contains {', '.join(taken)}, which `hrseg predict` did not write: "
            f"{MANIFEST} is missing or damaged.\n"
            "Expected: a new folder, or that of an earlier prediction. Nothing was overwritten.\n"
            "Fix: --out OTHER_FOLDER"
        )


def _find(pattern: str) -> dict[Path, str]:
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
            and file.is_file()  # no folder, and no pipe or device, which never ends
        }
    else:
        matches = sorted(glob.glob(pattern, recursive=True))
        names = {file: name for match in matches for file, name in _find(match).items()}
    if not names:
        what = f"no image or video below {path}" if path.is_dir() else f"no such file: {pattern}"
        raise ConfigError(
            f"{what}\nExpected {', '.join(suffix[1:] for suffix in IMAGES + VIDEOS)}."
        )
    return names


def _kind(path: Path) -> str:
    """Return how a file is read, by its suffix and header; an unreadable file is an image."""
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
        except Exception:  # on damaged files Pillow raises nearly anything
            # GDAL reads TIFFs of kinds that Pillow does not know.
            return "tiles" if suffix in (".tif", ".tiff") else "image"
    georeferenced = any(tag in tags for tag in _GEOREFERENCE)
    return "tiles" if width * height > LARGE or georeferenced else "image"
