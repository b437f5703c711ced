"""What a user hands over to be predicted, as RGB bytes: files of any kind, PIL images, arrays."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from hrseg.errors import DataError

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
