"""PNG files: their checksums; those of 8 bits by GDAL, in half the time of OpenCV and Pillow."""

import warnings
import zlib

import numpy as np
from numpy.typing import NDArray

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
