"""Run lengths of Label Studio's brush: a stream of bits that holds the RGBA pixels of a mask.

The stream has the number of values (32 bits), the bits of a value - 1 (5), and four times the bits
of a run length - 1 (4). Runs follow: a bit "repeated", the index of the run length's size (2 bits),
the run length - 1, and one value if repeated, else a value for each of the run.
"""

from typing import Any

import numpy as np

from hrseg.data.formats.annotations import BoolArray

_CHANNELS = 4


def decode_brush(values: Any, height: int, width: int) -> BoolArray:
    """Return the opaque pixels (height, width) of a mask.

    Args:
        values: bytes of the stream, integers 0 to 255.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Raises:
        ValueError: other values, a stream that ends too early, or one of another image size.
    """
    try:
        bits = _Bits(bytes(values) if isinstance(values, list) else b"")
    except TypeError as error:
        raise ValueError("their values are not integers") from error
    count = bits.number(32)
    if count != height * width * _CHANNELS:
        raise ValueError(
            f"they hold {count} values instead of {height} x {width} x {_CHANNELS} = "
            f"{height * width * _CHANNELS}"
        )
    word = bits.number(5) + 1
    sizes = [bits.number(4) + 1 for _ in range(4)]
    opaque = np.zeros(count, np.bool_)
    start = 0
    while start < count:
        repeated = bits.number(1)
        stop = start + 1 + bits.number(sizes[bits.number(2)])
        if stop > count:
            raise ValueError(f"a run ends at value {stop} of {count}")
        opaque[start:stop] = bits.positive(1 if repeated else stop - start, word)
        start = stop
    return opaque.reshape(height, width, _CHANNELS)[..., -1]


class _Bits:
    """Reader of numbers of any width from bytes, most significant bits first."""

    def __init__(self, data: bytes) -> None:
        self.text = f"{int.from_bytes(data):0{8 * len(data)}b}" if data else ""
        self.position = 0

    def number(self, width: int) -> int:
        """Return the next number, of `width` bits."""
        return int(self._next(width), 2)

    def positive(self, count: int, width: int) -> BoolArray:
        """Return for each of the next numbers, of `width` bits, whether it is above 0."""
        digits = np.frombuffer(self._next(count * width).encode(), np.uint8)
        return np.asarray((digits.reshape(count, width) == ord("1")).any(1), np.bool_)

    def _next(self, width: int) -> str:
        start, self.position = self.position, self.position + width
        if self.position > len(self.text):
            raise ValueError(f"they are cut off after {len(self.text) // 8} bytes")
        return self.text[start : self.position]
