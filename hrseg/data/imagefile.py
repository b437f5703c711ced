"""Image files as bytes: what is no file, damaged or too large is refused before it is decoded."""

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from hrseg.data.png import SIGNATURE, broken_chunk
from hrseg.errors import DataError
from hrseg.utils.text import one_line

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
