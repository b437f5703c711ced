"""Multi-band images: headers, chosen bands of TIFF and 16-bit PNG, nodata, value ranges."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hrseg.data.images import (
    Valid,
    has_bands,
    header_of,
    is_tiff,
    open_bands,
    open_file,
    orient,
    printable_path,
    read_upright,
    valid_pixels,
)
from hrseg.data.png import SIGNATURE
from hrseg.errors import ConfigError, DataError
from hrseg.utils.channels import RGB, Channels, Kind, Pixels, Range, full_range

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

SAMPLE = 32  # images whose values are measured
_SAMPLE_PIXELS = 2**16  # of an image
_PERCENTILES = (1, 99)


class Header(NamedTuple):
    """Size (height, width), number of bands and data type of an image file."""

    size: tuple[int, int]
    bands: int
    dtype: str  # of NumPy: uint8, uint16, int16, float32, ...


def image_header(path: Path) -> Header:
    """Return size, bands and data type of an image file without decoding.

    Files of 8 bits other than TIFF have three bands: red, green and blue.

    Raises:
        DataError: the file is unreadable.
    """
    if not _by_gdal(path):
        return Header(header_of(path)[0], 3, "uint8")
    with open_bands(path) as file:
        return open_header(file, path)


def open_header(file: "DatasetReader", path: Path) -> Header:
    """Return the `image_header` of an open file; DataError: a palette, or CMYK."""
    if not has_bands(file):
        raise DataError(
            f"{printable_path(path)} has a palette, or colours other than RGB.\n"
            "Expected: an image with the values of its bands.\n"
            "Fix: for a palette gdal_translate -expand rgb in.tif out.tif"
        )
    return Header((file.height, file.width), file.count, str(np.result_type(*file.dtypes)))


def kind_of(dtype: str) -> Kind:
    """Return the kind of `Channels` for a data type of NumPy."""
    return "uint8" if dtype == "uint8" else "uint16" if dtype == "uint16" else "float32"


def check_bands(path: Path, header: Header, channels: Channels) -> None:
    """Raise DataError if an image lacks a band, or has another data type than the others."""
    bands = max(header.bands, 3) if header.bands == 1 else header.bands
    if max(channels.bands) > bands:
        raise DataError(
            f"{printable_path(path)} has {header.bands} band{'s' * (header.bands > 1)}, "
            f"but data.channels uses band {max(channels.bands)}.\n"
            "Expected: files with all bands. Bands count from 1. Fix: change data.channels."
        )
    if kind_of(header.dtype) != channels.kind:
        raise DataError(
            f"{printable_path(path)} has values of {header.dtype}, "
            f"but the images of this model have {channels.kind}.\n"
            "Expected: one data type. Fix: gdal_translate -ot UInt16 in.tif out.tif"
        )


def read_bands(
    path: Path, channels: Channels | None, mask_size: tuple[int, int] | None = None
) -> tuple[Pixels, Valid]:
    """Return the channels of an image (H, W, N), and its valid pixels (H, W), or None for all.

    A pixel is invalid if every band has the declared nodata value, if alpha is 0 and not a chosen
    band, or if a chosen band is NaN or infinite. Without `channels` the image is RGB uint8, as by
    `read_image`.

    Raises:
        DataError: the file is unreadable, lacks a band, or has another data type.
    """
    if channels is None:
        return read_upright(path, mask_size)
    if not _by_gdal(path):
        check_bands(path, Header((0, 0), 3, "uint8"), channels)
        image, valid = read_upright(path, mask_size)
        return channels.in_memory(image[..., [band - 1 for band in channels.bands]]), valid
    with open_bands(path) as file:
        values, valid = read_rows(file, path, channels, 0, file.height)
    orientation = header_of(path, mask_size)[2]
    if orientation == 1:
        return values, valid
    return orient(values, orientation), None if valid is None else orient(valid, orientation)


def read_rows(
    file: "DatasetReader", path: Path, channels: Channels, start: int, stop: int
) -> tuple[Pixels, Valid]:
    """Return the channels of rows of an open file, and their valid pixels, as `read_bands`."""
    from rasterio.windows import Window

    check_bands(path, open_header(file, path), channels)
    window = Window(0, start, file.width, stop - start)
    bands = [1 if file.count == 1 else band for band in channels.bands]  # grey: equal RGB bands
    values = np.moveaxis(file.read(bands, window=window), 0, -1)
    valid = valid_pixels(file, channels.bands, window=window)
    if values.dtype.kind == "f" and not (finite := np.isfinite(values).all(-1)).all():
        valid = finite if valid is None else valid & finite
    return channels.in_memory(values), valid


def measured_channels(
    images: Sequence[Path], bands: Sequence[int] | None, value_range: Sequence[float] | None
) -> Channels | None:
    """Return the channels of a data set; None: 8-bit RGB.

    Args:
        images: the training images. An even sample of them is measured.
        bands: option `data.channels`; None: the first three.
        value_range: option `data.value_range`; None: 0..255 for 8 bits, and for 16 bits the 1st to
            the 99th percentile of each channel.

    Raises:
        ConfigError: an empty `value_range`.
        DataError: an image lacks a band, or values of another type have no `value_range`.
    """
    if value_range is not None and value_range[0] >= value_range[1]:
        raise ConfigError(
            f"data.value_range is {list(value_range)}.\nExpected: low below high, e.g. [0, 4000]."
        )
    indices = np.linspace(0, len(images) - 1, SAMPLE).round().astype(int).tolist()
    sample = [images[index] for index in dict.fromkeys(indices)]
    dtypes = [dtype for path in sample if (dtype := dtype_or_none(path))]
    if bands is None and value_range is None and (not dtypes or "uint8" in dtypes):
        return None
    kind = kind_of(dtypes[0] if dtypes else "uint8")
    chosen = tuple(bands or RGB)
    if value_range is not None:
        channels = Channels.of(chosen, kind, [(value_range[0], value_range[1])] * len(chosen))
    elif kind == "float32":
        raise DataError(
            f"{printable_path(sample[0])} has values of {dtypes[0]}.\n"
            "Expected: 8 or 16 bits without sign, or a fixed range for other types.\n"
            "Fix: data.value_range=[LOW,HIGH], the values that become 0 and 1"
        )
    else:
        channels = Channels.of(chosen, kind)
        if kind == "uint16":
            channels = Channels.of(chosen, kind, _percentiles(sample, channels))
    return None if channels.is_rgb else channels


def check_options(
    bands: Sequence[int] | None, value_range: Sequence[float] | None, channels: Channels | None
) -> None:
    """Raise ConfigError if the options of a data set differ from the channels of a checkpoint."""
    trained = list(channels.bands if channels else RGB)
    if bands is not None and list(bands) != trained:
        raise ConfigError(
            f"data.channels is {list(bands)}, but the checkpoint was trained with {trained}.\n"
            "Expected: the same bands. Fix: leave out data.channels."
        )
    ranges = set(channels.ranges if channels else Channels.of(RGB).ranges)
    if value_range is not None and ranges != {tuple(value_range)}:
        raise ConfigError(
            f"data.value_range is {list(value_range)}, but the checkpoint was trained "
            f"with {channels or '8-bit RGB'}.\n"
            "Expected: the same range. Fix: leave out data.value_range."
        )


def _percentiles(sample: Sequence[Path], channels: Channels) -> list[Range]:
    """Return the 1st and 99th percentile of each channel over the valid pixels of a sample."""
    parts = []
    for path in sample:
        try:
            image, valid = read_bands(path, channels)
        except DataError:  # reported by the check of the files
            continue
        pixels = image.reshape(-1, channels.count) if valid is None else image[valid]
        parts.append(pixels[:: max(1, len(pixels) // _SAMPLE_PIXELS)])
    pixels = np.concatenate(parts) if parts else np.empty((0, channels.count), np.uint16)
    if not len(pixels):
        return [(0.0, full_range(channels.kind))] * channels.count
    low, high = np.percentile(pixels, _PERCENTILES, axis=0).round().tolist()
    return [(a, max(b, a + 1)) for a, b in zip(low, high, strict=True)]


def dtype_or_none(path: Path) -> str | None:
    """Return the data type of an image; None for an unreadable file, which checks report."""
    try:
        return image_header(path).dtype
    except DataError:
        return None


def _by_gdal(path: Path) -> bool:
    """Return whether GDAL reads the bands of a file: a TIFF, or a PNG of 16 bits per value."""
    with open_file(path) as file:
        start = file.read(25)
    return is_tiff(path) or (start.startswith(SIGNATURE) and start[24:] == b"\x10")
