"""Image reading: RGB arrays from PNG and JPEG files, with errors for damaged or huge files."""

import io
import os
import shlex
import stat
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from hrseg.errors import DataError
from hrseg.utils.text import one_line

Array = npt.NDArray[np.uint8]
SUFFIXES = (".png", ".jpg", ".jpeg")
FORMATS = ("PNG", "JPEG")
LARGEST = 2**30  # bytes of a file
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_EXPECTED_FILE = (
    "Expected: a whole PNG or JPEG file. Fix: copy it again, or remove it and its partner."
)
_PIXELS = 2**26  # larger images are read by decoders with limits of their own


def read_image(path: Path, mask_size: tuple[int, int] | None = None) -> Array:
    """Return an image as RGB uint8 (H, W, 3), turned by its EXIF orientation.

    The image stays as stored if its mask, of `mask_size` (height, width), fits the stored size
    only. The benchmark authors' `cv2.imread` always applies the orientation.
    16-bit images are scaled to 8 bits with a warning.

    Raises:
        DataError: the file is unreadable or has another format.
    """
    data = read_file(path)
    with open_image(path, data) as header:
        orientation = _applied_orientation(header, mask_size)
        if header.format != "PNG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            header.load()  # Pillow raises for a missing end; OpenCV fills the missing rows
    with decoder_errors(path):
        if (rgb := read_png(data, rgb=True)) is not None:
            return orient(rgb, orientation)
        image = cv2.imdecode(np.frombuffer(strip_metadata(data), np.uint8), _AS_STORED)
    if image is None:
        raise unreadable(path, None)
    if image.dtype == np.uint16:
        warnings.warn("16-bit images are scaled to 8 bits when they are read", stacklevel=2)
        image = image // 257
    return orient(image.astype(np.uint8, copy=False), orientation)


def orient(image: Array, orientation: int) -> Array:
    """Apply an EXIF orientation, 1 to 8, to an image (H, W, 3), as viewers do."""
    if orientation == 1:
        return image
    if orientation > 4:
        image = image.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def header_size(path: Path, mask_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return the (height, width) of `read_image` without decoding; errors as `open_file`."""
    return header_of(path, mask_size)[0]


def header_of(
    path: Path, mask_size: tuple[int, int] | None = None
) -> tuple[tuple[int, int], int, int]:
    """Return `header_size`, the stored EXIF orientation, and the applied orientation."""
    with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
        applied = _applied_orientation(image, mask_size)
        size = (image.width, image.height) if applied > 4 else (image.height, image.width)
        return size, _orientation(image), applied


def _applied_orientation(image: Image.Image, mask_size: tuple[int, int] | None) -> int:
    """Return the orientation to apply: 1 if the mask fits the stored size only."""
    orientation, stored = _orientation(image), (image.height, image.width)
    as_stored = orientation > 4 and mask_size == stored and stored[0] != stored[1]
    return 1 if as_stored else orientation


def _orientation(image: Image.Image) -> int:
    # If the header of a PNG has no EXIF, Pillow decodes the whole file to search behind it.
    if "exif" not in image.info:
        return 1
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; DataError: damaged PNG chunks, which decoders miss."""
    with open_file(path) as file:
        data = file.read()
    if data.startswith(SIGNATURE) and (fault := chunk_fault(data)) is not None:
        raise unreadable(path, fault)
    return data


@contextmanager
def open_image(path: Path, data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of a PNG or JPEG file with Pillow, which reads the header.

    Raises:
        DataError: another format, or more than 179 megapixels by the header.
    """
    with decoder_errors(path), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file of at most 1 GiB.

    Raises:
        DataError: also for a pipe, which would block, and a device, which never ends.
    """
    with decoder_errors(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            folder = stat.S_ISDIR(status.st_mode)
            kind = "a folder" if folder else "a pipe or a device"
            raise DataError(f"{printable_path(path)} is {kind}.\nExpected: a PNG or JPEG file.")
        if status.st_size > LARGEST:
            raise unreadable(path, f"{status.st_size / 2**30:,.1f} GiB exceed the limit of 1 GiB")
        with path.open("rb") as file:
            yield file


@contextmanager
def decoder_errors(path: Path) -> Iterator[None]:
    """Convert exceptions of decoders to a DataError with the file's name."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"{printable_path(path)} does not exist.\n{_EXPECTED_FILE}") from error
    except Exception as error:  # Pillow raises exceptions of many types for damaged files
        raise unreadable(path, error) from error


def printable_path(path: Path) -> str:
    """Return a path for a message: printable, on one line."""
    return one_line(str(path))


def unreadable(path: Path, reason: object) -> DataError:
    """Return the error of an unreadable file; a `reason` of None means unknown."""
    if isinstance(reason, PermissionError):
        return DataError(
            f"{printable_path(path)} cannot be read: Permission denied.\n"
            f"Expected: a readable file. Fix: chmod u+r {shlex.quote(printable_path(path))}"
        )
    if reason is None or isinstance(reason, UnidentifiedImageError):
        reason = "it is damaged, or not an image"
    if isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    cause = str(reason).partition("\n")[0].rstrip(".") or type(reason).__name__
    return DataError(f"{printable_path(path)} cannot be read: {cause}.\n{_EXPECTED_FILE}")


def read_png(data: bytes, rgb: bool) -> Array | None:
    """Return the stored values of a PNG file by GDAL, the fastest decoder; None: use another.

    RGB images (H, W, 3) if `rgb`, else grey values or palette indices (H, W). GDAL reads whole
    files with 8 bits per value, without interlacing and without a transparent colour.
    """
    if not data.startswith(SIGNATURE):
        return None
    width, height, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    kinds = (2,) if rgb else (0, 3)  # colour types of PNG: RGB, grey, palette
    transparent = b"tRNS" in data[: data.find(b"IDAT")]
    if depth != 8 or kind not in kinds or interlaced or transparent or width * height > _PIXELS:
        return None
    import rasterio  # takes half a second; only PNG files need it
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    # A search for files beside the image would take longer than the decoding.
    settings = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    try:
        with warnings.catch_warnings(), rasterio.Env(**settings):
            # Photos have no coordinates. With threads, at worst this filter stays active.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(data) as memory, memory.open(driver="PNG") as file:
                values = np.empty((file.height, file.width, file.count), np.uint8)
                file.read(out=values.transpose(2, 0, 1))
    except RasterioError:
        return None  # the other decoder reports the fault
    return values if rgb else values[..., 0]


def strip_metadata(data: bytes) -> bytes:
    """Return a PNG file without texts and profiles; other files stay unchanged.

    libpng prints the unescaped name of an invalid profile to the terminal.
    """
    if not data.startswith(SIGNATURE):
        return data
    # Decoding needs the chunks with a capital first letter.
    needed = (data[i:j] for kind, i, j in _chunks(data) if kind[:1].isupper() or kind == b"tRNS")
    return SIGNATURE + b"".join(needed)


def chunk_fault(data: bytes) -> str | None:
    """Return the fault of a PNG file: damaged or truncated chunks, or an animation; else None.

    Decoders check only some of the checksums. They return different pictures of an animation.
    """
    view = memoryview(data)
    for kind, start, end in _chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return f"it is damaged at byte {start:,}, by a checksum"
        if kind == b"acTL":
            return "it is an animation, not a single picture"
        if kind == b"IEND":
            return None
    return f"it is cut off at byte {len(data):,}"


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each whole chunk of a PNG file."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end
