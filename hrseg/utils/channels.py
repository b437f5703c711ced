"""Image channels: bands, data type and value range of images other than 8-bit RGB."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8 | np.uint16]
Range = tuple[float, float]
Kind = Literal["uint8", "uint16", "float32"]
RGB = (1, 2, 3)


@dataclass(frozen=True)
class Channels:
    """Channels of the images of a model. None stands for 8-bit RGB everywhere in hrseg.

    Attributes:
        bands: band in the file of each channel, from 1, as in GDAL.
        kind: data type in the file. "float32" stands for all other types than uint8 and uint16;
            their values are mapped to 16 bits when the file is read.
        ranges: values (low, high) of each channel that become 0 and 1.

    Examples:
        >>> channels = Channels.of((4, 3, 2), "uint16", [(0, 4000)] * 3)
        >>> print(channels)
        bands 4, 3, 2 of uint16 with the values 0..4000, 0..4000, 0..4000
        >>> channels.picture(np.full((1, 1, 3), 2000, np.uint16)).tolist()
        [[[128, 128, 128]]]
    """

    bands: tuple[int, ...]
    kind: Kind
    ranges: tuple[Range, ...]

    @classmethod
    def of(cls, bands: Sequence[int], kind: Kind = "uint8", ranges: Sequence[Range] = ()) -> Self:
        """Return channels with plain numbers; without `ranges`, those of the data type."""
        ranges = ranges or [(0.0, full_range(kind))] * len(bands)
        pairs = tuple((float(low), float(high)) for low, high in ranges)
        return cls(tuple(int(band) for band in bands), kind, pairs)

    @classmethod
    def from_dict(cls, stored: Mapping[str, Any] | None) -> Self | None:
        """Return the channels of a result of `to_dict`; None for None."""
        return cls.of(stored["bands"], stored["kind"], stored["ranges"]) if stored else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the metadata of a file."""
        lists = {name: list(value) for name, value in asdict(self).items() if name != "kind"}
        return {**lists, "kind": self.kind, "ranges": [list(pair) for pair in self.ranges]}

    @property
    def count(self) -> int:
        """Number of channels."""
        return len(self.bands)

    @property
    def dtype(self) -> Literal["uint8", "uint16"]:
        """Data type of the pixels in memory."""
        return "uint8" if self.kind == "uint8" else "uint16"

    @property
    def limits(self) -> tuple[Range, ...]:
        """Values (low, high) in memory of each channel that become 0 and 1."""
        return ((0.0, 65535.0),) * self.count if self.kind == "float32" else self.ranges

    @property
    def is_rgb(self) -> bool:
        """Whether the images are 8-bit RGB, for which None stands."""
        return self == Channels.of(RGB)

    def in_memory(self, values: npt.NDArray[Any]) -> Pixels:
        """Return the values (H, W, N) of a file in the data type of the memory."""
        if self.kind != "float32":
            return np.ascontiguousarray(values, self.dtype)
        low, high = np.array(self.ranges, np.float64).T
        share = (np.nan_to_num(values.astype(np.float64), nan=low.min()) - low) / (high - low)
        return np.asarray(np.rint(65535 * share.clip(0, 1)), np.uint16)

    def in_8_bits(self, image: Pixels) -> npt.NDArray[np.uint8]:
        """Return an image (H, W, N) with each value range stretched to 0..255."""
        low, high = np.array(self.limits, np.float32).T
        share = (image.astype(np.float32) - low) / (high - low)
        return np.asarray(np.rint(255 * share.clip(0, 1)), np.uint8)

    def picture(self, image: Pixels) -> npt.NDArray[np.uint8]:
        """Return the first three channels of an image (H, W, N), or the first as grey, as RGB."""
        shown = self.in_8_bits(image)
        return np.ascontiguousarray(shown[..., [0, 1, 2] if self.count > 2 else [0, 0, 0]])

    def __str__(self) -> str:
        ranges = ", ".join(f"{low:g}..{high:g}" for low, high in self.ranges)
        bands = ", ".join(map(str, self.bands))
        return f"band{'s' * (self.count > 1)} {bands} of {self.kind} with the values {ranges}"


def full_range(kind: Kind) -> float:
    """Return the largest value of a data type."""
    return 255.0 if kind == "uint8" else 65535.0


def as_picture(image: Pixels, channels: Channels | None) -> npt.NDArray[np.uint8]:
    """Return an image (H, W, N) as RGB uint8 (H, W, 3) for display."""
    return channels.picture(image) if channels else np.asarray(image, np.uint8)
