"""Chunks of PNG files: checksums, cut-off files, animations, metadata."""

import zlib
from collections.abc import Iterator

SIGNATURE = b"\x89PNG\r\n\x1a\n"


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
