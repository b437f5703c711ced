"""8-bit PNG files by GDAL, which inflates them in half the time that OpenCV and Pillow take."""

import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _RGB, _PALETTE = 0, 2, 3  # colour types of the PNG specification
_END = b"IEND\xaeB`\x82"  # without it GDAL fills up what is missing
_HEADER = 33  # bytes of the signature and the first chunk
_PIXELS = 2**26  # what claims more is left to decoders that have limits of their own
# No search for files beside it, which would cost more than the decoding.
_SETTINGS = {"GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR", "GDAL_PAM_ENABLED": "NO"}


def read_png(path: Path, data: bytes, rgb: bool) -> NDArray[np.uint8] | None:
    """Return the stored values of a PNG file, or None for what is left to other decoders.

    Taken are whole files of 8 bits, not interlaced, without a transparent colour.

    Args:
        path: of the file.
        data: what is in it.
        rgb: an RGB image (H, W, 3) is wanted, else grey values or palette indices (H, W).
    """
    if not _is_simple(data, (_RGB,) if rgb else (_GREY, _PALETTE)):
        return None
    import rasterio  # half a second, and only where there are PNGs
    from rasterio.errors import NotGeoreferencedWarning, RasterioError

    try:
        with warnings.catch_warnings(), rasterio.Env(**_SETTINGS):
            # Photos have no coordinates. Threads can at worst leave this one filter behind.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, driver="PNG") as file:
                values = np.empty((file.height, file.width, file.count), np.uint8)
                file.read(out=values.transpose(2, 0, 1))
    except RasterioError:
        return None  # the other decoder says what is wrong with it
    return values if rgb else values[..., 0]


def wrong_checksum(data: bytes) -> int | None:
    """Return where a chunk of a PNG file begins whose bytes are not those that were written.

    None where there is none, and for what is no PNG, or has no end. Decoders look at the sums of
    some chunks, and at the one within the pixels when they get as far.
    """
    if not data.startswith(_SIGNATURE):
        return None
    view, start = memoryview(data), len(_SIGNATURE)
    while start + 12 <= len(data):
        end = start + 8 + int.from_bytes(view[start : start + 4], "big")
        said = int.from_bytes(view[end : end + 4], "big")
        if end + 4 <= len(data) and zlib.crc32(view[start + 4 : end]) != said:
            return start
        if data[start + 4 : start + 8] == b"IEND":
            break
        start = end + 4
    return None


def _is_simple(data: bytes, kinds: tuple[int, ...]) -> bool:
    header = data[:_HEADER]
    whole = len(header) == _HEADER and data.startswith(_SIGNATURE) and data.endswith(_END)
    if not whole or header[12:16] != b"IHDR":
        return False
    width, height = (int.from_bytes(header[at : at + 4], "big") for at in (16, 20))
    depth, kind, interlaced = header[24], header[25], header[28]
    before_pixels = data[_HEADER : data.find(b"IDAT")]
    small = 0 < width * height <= _PIXELS
    return (
        small and depth == 8 and kind in kinds and not interlaced and b"tRNS" not in before_pixels
    )
