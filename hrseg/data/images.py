"""Image reading: RGB arrays from PNG and JPEG files, with errors for damaged or huge files."""

import io
import os
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from hrseg.errors import DataError
from hrseg.utils.text import one_line

Array = npt.NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg")
_END_OF_JPEG = b"\xff\xd9"
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION


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


FORMATS = ("PNG", "JPEG")
LARGEST = 2**30  # bytes of a file


def read_file(path: Path) -> bytes:
    """Return what is in an image file.

    Raises:
        DataError: missing, no file, larger than any image, or a PNG whose chunks are damaged;
            decoders look at some of them alone, and go on.
    """
    with open_file(path) as file:
        data = file.read()
    if data.startswith(SIGNATURE) and (fault := broken_chunk(data)) is not None:
        raise unreadable(path, fault)
    return data


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    """Open a PNG or JPEG with Pillow, which reads the header; whatever it raises names the file.

    Raises:
        DataError: another format, or a header that claims more than 179 megapixels.
    """
    with decoding(path), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn whatever decoders raise into a DataError that names the file."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except Exception as error:  # on damaged files Pillow raises nearly anything
        raise unreadable(path, error) from error


def header_size(path: Path) -> tuple[int, int]:
    """Return (height, width) without decoding.

    Raises:
        DataError: missing, no file, neither PNG nor JPEG, or more than 179 megapixels.
    """
    with open_file(path) as file, decoding(path), Image.open(file, formats=FORMATS) as image:
        return image.height, image.width


def named(path: Path) -> str:
    """Return a path for a message: in one line, whatever is in its name."""
    return one_line(str(path))


def unreadable(path: Path, reason: object) -> DataError:
    """Return the error of a file that is there, and cannot be read for a reason."""
    if reason is None or isinstance(reason, UnidentifiedImageError):
        reason = "damaged, or not an image"
    if isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    said = str(reason).partition("\n")[0] or type(reason).__name__
    return DataError(
        f"cannot read {named(path)}: {said}\n"
        "Expected a whole PNG or JPEG file; copy it again, or remove it and its partner."
    )


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open what is a file; a pipe would be waited for, and a device never ends.

    Raises:
        DataError: missing, no file, or larger than any image.
    """
    try:
        found = os.stat(path)
        if stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST:
            with path.open("rb") as file:
                yield file
            return
    except FileNotFoundError as error:
        raise DataError(f"no file {named(path)}") from error
    except OSError as error:
        raise unreadable(path, error) from error
    if stat.S_ISREG(found.st_mode):
        raise unreadable(path, f"{found.st_size / 2**30:,.1f} GiB are more than an image has")
    what = "a folder" if stat.S_ISDIR(found.st_mode) else "no file, but a pipe or a device"
    raise DataError(f"{named(path)} is {what}; expected a PNG or JPEG file.")


SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of the PNG specification
_END = b"IEND\xaeB`\x82"  # without it GDAL fills up what is missing
_HEADER = 33  # bytes of the signature and the first chunk
_PIXELS = 2**26  # what claims more is left to decoders that have limits of their own
# No search for files beside it, which would cost more than the decoding.
_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


def read_png(data: bytes, rgb: bool) -> NDArray[np.uint8] | None:
    """Return the stored values of a PNG file, or None for what is left to other decoders.

    Taken are whole files of 8 bits, not interlaced, without a transparent colour.

    Args:
        data: what is in it, whose chunks are whole: GDAL does not look.
        rgb: an RGB image (H, W, 3) is wanted, else grey values or palette indices (H, W).
    """
    if not _is_simple(data, (_RGB,) if rgb else (_GREY, _PALETTE)):
        return None
    import rasterio  # half a second, and only where there are PNGs
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    try:
        with warnings.catch_warnings(), rasterio.Env(**_SETTINGS):
            # Photos have no coordinates. Threads can at worst leave this one filter behind.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(data) as memory, memory.open(driver="PNG") as file:
                values = np.empty((file.height, file.width, file.count), np.uint8)
                file.read(out=values.transpose(2, 0, 1))
    except RasterioError:
        return None  # the other decoder says what is wrong with it
    return values if rgb else values[..., 0]


def pixels_alone(data: bytes) -> bytes:
    """Return a PNG file without texts and profiles, another file as it is.

    libpng prints the name of a profile that it does not like, whatever is in it, to the terminal.
    """
    if not data.startswith(SIGNATURE):
        return data
    kept, start = [SIGNATURE], len(SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        # A capital first letter: what the pixels cannot be understood without.
        if data[start + 4 : start + 5].isupper() or data[start + 4 : start + 8] == b"tRNS":
            kept.append(data[start:end])
        start = end
    return b"".join(kept)


def broken_chunk(data: bytes) -> str | None:
    """Return what is wrong with a PNG file, if it is not a row of whole chunks, a still picture's.

    Decoders look at the checksums of some chunks, and at the one within the pixels when they get
    as far; of an animation they take different pictures.
    """
    view, start = memoryview(data), len(SIGNATURE)
    while start + 12 <= len(data):
        kind, end = data[start + 4 : start + 8], start + 8 + int.from_bytes(data[start : start + 4])
        if end + 4 > len(data):
            break
        if zlib.crc32(view[start + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return f"damaged at byte {start:,}: a checksum is wrong"
        if kind == b"acTL":
            return "an animation, not a single picture"
        if kind == b"IEND":
            return None
        start = end + 4
    return f"cut off at byte {len(data):,}"


def _is_simple(data: bytes, kinds: tuple[int, ...]) -> bool:
    header = data[:_HEADER]
    whole = len(header) == _HEADER and data.startswith(SIGNATURE) and data.endswith(_END)
    if not whole or header[12:16] != b"IHDR":
        return False
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    depth, kind, interlaced = header[24], header[25], header[28]
    before_pixels = data[_HEADER : data.find(b"IDAT")]
    small = 0 < width * height <= _PIXELS
    return (
        small and depth == 8 and kind in kinds and not interlaced and b"tRNS" not in before_pixels
    )
