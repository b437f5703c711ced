"""Image reading: RGB arrays of PNG, JPEG, TIFF, WebP and BMP, errors for damaged or huge files."""

import io
import logging
import os
import shlex
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from hrseg.data.png import SIGNATURE, chunk_fault, strip_metadata
from hrseg.errors import DataError
from hrseg.utils.text import one_line

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

Array = npt.NDArray[np.uint8]
Valid = npt.NDArray[np.bool_] | None  # pixels (H, W) with a value; None: all
FORMATS = ("PNG", "JPEG")  # under the suffix of either
FORMATS_BY_SUFFIX = {".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP"}
SUFFIXES = (".png", ".jpg", ".jpeg", *FORMATS_BY_SUFFIX)  # of readable images
LARGEST = 2**30  # bytes of a file
MAX_PIXELS = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's limit, 179 megapixels
# A search for sidecar files would take longer than the decoding.
GDAL_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}
_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_ANYDEPTH | cv2.IMREAD_IGNORE_ORIENTATION
_EXPECTED_FILE = (
    "Expected: a whole PNG, JPEG, TIFF, WebP or BMP file. "
    "Fix: copy it again, or remove it and its partner."
)
# Pillow's log messages are already part of the errors that hrseg raises.
logging.getLogger("PIL").addHandler(logging.NullHandler())
_PIXELS = 2**26  # larger images are read by decoders with limits of their own


def read_image(path: Path, mask_size: tuple[int, int] | None = None) -> Array:
    """Return an image as RGB uint8 (H, W, 3), turned by its EXIF orientation.

    The image stays as stored if its mask, of `mask_size` (height, width), fits the stored size
    only. The benchmark authors' `cv2.imread` always applies the orientation.
    16-bit images are scaled to 8 bits with a warning.

    Raises:
        DataError: the file is unreadable or has another format.
    """
    return read_upright(path, mask_size)[0]


def read_upright(path: Path, mask_size: tuple[int, int] | None = None) -> tuple[Array, Valid]:
    """Return `read_image`, and the pixels (H, W) with a value by alpha and nodata."""
    if is_tiff(path):
        stored, valid = _read_tiff(path)
        applied = header_of(path, mask_size)[2]
        return orient(stored, applied), None if valid is None else orient(valid, applied)
    data = read_file(path)
    with open_image(path, data) as header:
        orientation = _applied_orientation(header, mask_size)
        alpha = header.mode in ("RGBA", "LA")
        if header.format not in FORMATS:
            return _split_alpha(orient(np.array(header.convert("RGBA")), orientation))
        if header.format != "PNG" and not data.rstrip(b"\0").endswith(b"\xff\xd9"):
            header.load()  # Pillow raises for a missing end; OpenCV fills the missing rows
    with decoder_errors(path):
        if (rgb := read_png(data, rgb=True)) is not None:
            return orient(rgb, orientation), None
        flags = cv2.IMREAD_UNCHANGED if alpha else _AS_STORED
        image = cv2.imdecode(np.frombuffer(strip_metadata(data), np.uint8), flags)
    if image is None:
        raise unreadable(path, None)
    if alpha:
        image = cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)
    return _split_alpha(orient(_in_8_bits(image), orientation))


def _in_8_bits(image: npt.NDArray[Any]) -> Array:
    if image.dtype == np.uint16:
        warnings.warn("16-bit images are scaled to 8 bits when they are read", stacklevel=4)
        image = image // 257
    return image.astype(np.uint8, copy=False)


def _split_alpha(image: Array) -> tuple[Array, Valid]:
    """Return RGB (H, W, 3), and the pixels that are not transparent, of RGB or RGBA."""
    if image.shape[2] == 3:
        return image, None
    visible = image[..., 3] > 0
    return np.ascontiguousarray(image[..., :3]), None if visible.all() else visible


def is_tiff(path: Path) -> bool:
    """Return whether a file is a TIFF, by its suffix and its first bytes."""
    if FORMATS_BY_SUFFIX.get(path.suffix.lower()) != "TIFF":
        return False
    with open_file(path) as file:
        return file.read(2) in (b"II", b"MM")


def _read_tiff(path: Path) -> tuple[Array, Valid]:
    """Return the first three bands of a TIFF as RGB (H, W, 3), and its valid pixels."""
    with open_bands(path) as file:
        if has_bands(file):
            dtype = np.result_type(*file.dtypes)
            if dtype not in (np.uint8, np.uint16):
                raise DataError(
                    f"{printable_path(path)} has values of {dtype}.\n"
                    "Expected: 8 or 16 bits without sign, or a fixed data.value_range."
                )
            values = np.moveaxis(file.read([1, 2, 3] if file.count > 2 else [1, 1, 1]), 0, -1)
            return _in_8_bits(np.ascontiguousarray(values)), valid_pixels(file)
    with decoder_errors(path), Image.open(path, formats=("TIFF",)) as image:
        return np.array(image.convert("RGB")), None  # a palette, CMYK or Lab


def valid_pixels(file: "DatasetReader", bands: Sequence[int] = (), **window: Any) -> Valid:
    """Return the pixels (H, W) of an open file with a value, by nodata, alpha and mask bands.

    GDAL marks the fourth of four 8-bit bands as alpha, also if it is infrared. It is not alpha if
    it is one of the chosen `bands`.
    """
    flags = {flag.name for flags in file.mask_flag_enums for flag in flags}
    alpha = [band for band, kind in enumerate(file.colorinterp, 1) if kind.name == "alpha"]
    if flags == {"all_valid"} or ("alpha" in flags and set(alpha) & set(bands)):
        return None
    with warnings.catch_warnings(action="ignore"):  # that nodata hides alpha
        return np.asarray(file.dataset_mask(**window) > 0)


def has_bands(file: "DatasetReader") -> bool:
    """Return whether the values of an open file are those of its bands, not a palette or CMYK."""
    return not {"palette", "cyan", "hue", "lightness"} & {kind.name for kind in file.colorinterp}


@contextmanager
def open_bands(path: Path) -> Iterator["DatasetReader"]:
    """Open a TIFF or PNG file with GDAL.

    Raises:
        DataError: the file is damaged, has complex numbers, or more than 179 megapixels.
    """
    import rasterio  # takes half a second
    from rasterio.errors import NotGeoreferencedWarning

    with open_file(path) as opened:
        driver = "PNG" if opened.read(8) == SIGNATURE else "GTiff"
    with decoder_errors(path), warnings.catch_warnings(), rasterio.Env(**GDAL_SETTINGS):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path.absolute(), driver=driver) as file:
            if file.width * file.height > MAX_PIXELS:
                size = f"{file.width}x{file.height} pixels"
                raise unreadable(path, f"{size} exceed the limit of {MAX_PIXELS:,}")
            if any(np.dtype(name).kind not in "uif" for name in file.dtypes):
                raise unreadable(path, f"its values have the type {file.dtypes[0]}")
            yield file


def orient(image: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """Apply an EXIF orientation, 1 to 8, to an image (H, W, ...), as viewers do."""
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
    if is_tiff(path):
        with open_bands(path) as tiff:
            size = tiff.height, tiff.width
        try:
            with Image.open(path, formats=("TIFF",)) as image:
                stored, applied = _orientation(image), _applied_orientation(image, mask_size)
        except Exception:  # Pillow reads few kinds of bands
            return size, 1, 1
        return (size[::-1] if applied > 4 else size), stored, applied
    with open_file(path) as file, Image.open(file, formats=formats_of(path)) as image:
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
    if "exif" not in image.info and image.format != "TIFF":
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


def formats_of(path: Path) -> tuple[str, ...]:
    """Return the formats of Pillow that a file of this suffix may have."""
    other = FORMATS_BY_SUFFIX.get(path.suffix.lower())
    return (*FORMATS, other) if other else FORMATS


@contextmanager
def open_image(path: Path, data: bytes) -> Iterator[Image.Image]:
    """Open the bytes of an image file with Pillow, which reads the header.

    Raises:
        DataError: another format, or more than 179 megapixels by the header.
    """
    with decoder_errors(path), Image.open(io.BytesIO(data), formats=formats_of(path)) as image:
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
            raise DataError(f"{printable_path(path)} is {kind}.\nExpected: an image file.")
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

    try:
        with warnings.catch_warnings(), rasterio.Env(**GDAL_SETTINGS):
            # Photos have no coordinates. With threads, at worst this filter stays active.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with MemoryFile(data) as memory, memory.open(driver="PNG") as file:
                values = np.empty((file.height, file.width, file.count), np.uint8)
                file.read(out=values.transpose(2, 0, 1))
    except RasterioError:
        return None  # the other decoder reports the fault
    return values if rgb else values[..., 0]
