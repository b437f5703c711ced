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
_PIXELS = 2**26  # larger images are left to decoders that have limits of their own


def read_image(path: Path, mask_size: tuple[int, int] | None = None) -> Array:
    """Return an image as RGB uint8 (H, W, 3), turned by its EXIF orientation.

    Only if its mask, of `mask_size` (height, width), has only the stored size, the image stays as
    stored. The benchmark authors' `cv2.imread` always applies the orientation.
    16-bit images are scaled to 8 bits with a warning. DataError: unreadable, or another format.
    """
    data = read_file(path)
    with opened(path, data) as header:
        orientation = _turn(header, mask_size)
        if header.format != "PNG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            header.load()  # no end: OpenCV fills the missing rows with blanks; Pillow refuses it
    with decoding(path):
        if (rgb := read_png(data, rgb=True)) is not None:
            return turned(rgb, orientation)
        image = cv2.imdecode(np.frombuffer(pixels_alone(data), np.uint8), _AS_STORED)
    if image is None:
        raise unreadable(path, None)
    if image.dtype == np.uint16:
        warnings.warn("16-bit images are scaled to 8 bits when they are read", stacklevel=2)
        image = image // 257
    return turned(image.astype(np.uint8, copy=False), orientation)


def turned(image: Array, orientation: int) -> Array:
    """Return an image (H, W, 3) as viewers show it with this EXIF orientation, 1 to 8."""
    if orientation == 1:
        return image
    if orientation > 4:
        image = image.swapaxes(0, 1)
    rows = -1 if orientation in (3, 4, 7, 8) else 1
    columns = -1 if orientation in (2, 3, 6, 7) else 1
    return np.ascontiguousarray(image[::rows, ::columns])


def header_size(path: Path, mask_size: tuple[int, int] | None = None) -> tuple[int, int]:
    """Return (height, width) that `read_image` returns, without decoding.

    DataError as `opened` and `open_file`.
    """
    return header_of(path, mask_size)[0]


def header_of(
    path: Path, mask_size: tuple[int, int] | None = None
) -> tuple[tuple[int, int], int, int]:
    """Return `header_size`, the EXIF orientation, and the one that `read_image` applies."""
    with open_file(path) as file, Image.open(file, formats=FORMATS) as image:
        applied = _turn(image, mask_size)
        size = (image.width, image.height) if applied > 4 else (image.height, image.width)
        return size, _orientation(image), applied


def _turn(image: Image.Image, mask_size: tuple[int, int] | None) -> int:
    """Return the EXIF orientation, or 1 if the mask has the stored size and not the turned one."""
    orientation, stored = _orientation(image), (image.height, image.width)
    as_stored = orientation > 4 and mask_size == stored and stored[0] != stored[1]
    return 1 if as_stored else orientation


def _orientation(image: Image.Image) -> int:
    # Without EXIF in its header, Pillow decodes a whole PNG to look behind it.
    if "exif" not in image.info:
        return 1
    try:
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF
        return 1
    return orientation if 1 <= orientation <= 8 else 1


def read_file(path: Path) -> bytes:
    """Return the bytes of an image file; DataError for damaged PNG chunks, which decoders miss."""
    with open_file(path) as file:
        data = file.read()
    if data.startswith(SIGNATURE) and (fault := broken_chunk(data)) is not None:
        raise unreadable(path, fault)
    return data


@contextmanager
def opened(path: Path, data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of a PNG or JPEG with Pillow, which reads the header.

    DataError: another format, or a header that claims more than 179 megapixels.
    """
    with decoding(path), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        yield image


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file up to 1 GiB: reading a pipe would wait, and a device never ends."""
    with decoding(path):
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            folder = stat.S_ISDIR(status.st_mode)
            kind = "a folder" if folder else "no file, but a pipe or a device"
            raise DataError(f"{named(path)} is {kind}; expected a PNG or JPEG file.")
        if status.st_size > LARGEST:
            raise unreadable(path, f"{status.st_size / 2**30:,.1f} GiB are more than an image has")
        with path.open("rb") as file:
            yield file


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn the exceptions of decoders into a DataError that names the file."""
    try:
        yield
    except (DataError, MemoryError):
        raise
    except FileNotFoundError as error:
        raise DataError(f"no file {named(path)}") from error
    except Exception as error:  # on damaged files Pillow raises nearly anything
        raise unreadable(path, error) from error


def named(path: Path) -> str:
    """Return a path for a message, on one line."""
    return one_line(str(path))


def unreadable(path: Path, reason: object) -> DataError:
    """Return the error of a file that cannot be read; None: for an unknown reason."""
    if isinstance(reason, PermissionError):
        return DataError(
            f"cannot read {named(path)}: Permission denied.\nExpected a file that you may read. "
            f"Fix: chmod u+r {shlex.quote(named(path))}"
        )
    if reason is None or isinstance(reason, UnidentifiedImageError):
        reason = "damaged, or not an image"
    if isinstance(reason, OSError) and reason.strerror:
        reason = reason.strerror
    return DataError(
        f"cannot read {named(path)}: {str(reason).partition(chr(10))[0] or type(reason).__name__}\n"
        "Expected a whole PNG or JPEG file; copy it again, or remove it and its partner."
    )


def read_png(data: bytes, rgb: bool) -> Array | None:
    """Return the stored values of a PNG file; None: use another decoder. GDAL is the fastest.

    Only whole files of 8 bits per value, not interlaced, without a transparent colour: RGB images
    (H, W, 3) if `rgb`, else grey values or palette indices (H, W).
    """
    if not data.startswith(SIGNATURE):
        return None
    width, height, depth, kind, *_, interlaced = struct.unpack_from(">IIBBBBB", data, 16)
    kinds = (2,) if rgb else (0, 3)  # colour types of PNG: RGB, grey, palette
    transparent = b"tRNS" in data[: data.find(b"IDAT")]
    if depth != 8 or kind not in kinds or interlaced or transparent or width * height > _PIXELS:
        return None
    import rasterio  # half a second, only for PNG files
    from rasterio.errors import NotGeoreferencedWarning, RasterioError
    from rasterio.io import MemoryFile

    # GDAL's search for files beside it would cost more than the decoding.
    settings = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
    try:
        with warnings.catch_warnings(), rasterio.Env(**settings):
            # Photos have no coordinates. Threads can at worst leave this one filter behind.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(data) as memory, memory.open(driver="PNG") as file:
                values = np.empty((file.height, file.width, file.count), np.uint8)
                file.read(out=values.transpose(2, 0, 1))
    except RasterioError:
        return None  # the other decoder names the fault
    return values if rgb else values[..., 0]


def pixels_alone(data: bytes) -> bytes:
    """Return a PNG file without texts and profiles, another file unchanged.

    libpng prints the name of a profile that it does not accept to the terminal, unescaped.
    """
    if not data.startswith(SIGNATURE):
        return data
    # A capital first letter marks the chunks that decoding needs.
    needed = (data[a:b] for kind, a, b in _chunks(data) if kind[:1].isupper() or kind == b"tRNS")
    return SIGNATURE + b"".join(needed)


def broken_chunk(data: bytes) -> str | None:
    """Return the fault of a PNG file whose chunks are not whole, or of an animation.

    Decoders check some of the checksums only, and return different pictures of an animation.
    """
    view = memoryview(data)
    for kind, start, end in _chunks(data):
        if zlib.crc32(view[start + 4 : end - 4]) != int.from_bytes(data[end - 4 : end]):
            return f"damaged at byte {start:,}: a checksum is wrong"
        if kind == b"acTL":
            return "an animation, not a single picture"
        if kind == b"IEND":
            return None
    return f"cut off at byte {len(data):,}"


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, first byte and end of each whole chunk of a PNG file."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        if end > len(data):
            return
        yield data[start + 4 : start + 8], start, end
        start = end
