"""Prediction of images larger than memory: GDAL reads bands of rows and writes tiled TIFF."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import ExifTags, Image
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.windows import Window

from hrseg.data.bands import check_bands, open_header, read_rows
from hrseg.errors import DataError
from hrseg.inference.inputs import FORMATS, SCALED, read_pixels
from hrseg.inference.predictor import Predictor
from hrseg.inference.tiling import predict_bands
from hrseg.utils.channels import Channels, Pixels, as_picture
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import cannot_write, replacing, write_bytes
from hrseg.visualize import overlay as draw_overlay

Array = NDArray[np.uint8]

# Chosen by the first bytes of a file: GDAL's virtual formats could open other files.
_DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\x89P": "PNG", b"\xff\xd8": "JPEG"}
_CACHE = 2**26  # bytes of GDAL's own cache of blocks
_BLOCK = 512
_LAYOUT = {
    "driver": "GTiff",
    "count": 1,
    "dtype": "uint8",
    "photometric": "palette",
    "compress": "deflate",
    "tiled": True,
    "blockxsize": _BLOCK,
    "blockysize": _BLOCK,
    "BIGTIFF": "IF_SAFER",
}
_MAX_WIDTH = 2**18  # pixels; bands of wider images do not fit into memory
_PREVIEW = 2048  # longest side of the overlay, in pixels

# GDAL's log messages are already part of the errors that hrseg raises.
logging.getLogger("rasterio").addHandler(logging.NullHandler())


class BigImage:
    """TIFF, PNG or JPEG that is read in bands of rows.

    An image with an EXIF orientation is read at once and rotated, unless it is too large.

    Attributes:
        path: of the file.
        file: the open GDAL dataset.
        size: (height, width) of the upright image, in pixels.
        upright: the rotated image, RGB uint8 (H, W, 3), if it has an EXIF orientation.
        colors: the palette, RGB uint8 (256, 3), of an image that has one.
        notes: conversions of its pixels.
        channels: bands to read; None: RGB uint8.

    Raises:
        DataError: the file is unreadable, too wide, has no RGB or greyscale pixels, or lacks one of
            the `channels`.
    """

    def __init__(self, path: Path, channels: Channels | None = None) -> None:
        self.path, self.channels = path, channels
        try:
            with path.open("rb") as file:
                driver = _DRIVERS[file.read(2)]
            self.file = rasterio.open(path.absolute(), driver=driver)
        except (KeyError, OSError, RasterioError) as error:
            reason = "" if isinstance(error, KeyError) else f": {_cause(error)}"
            raise DataError(
                f"{path} cannot be read as TIFF, PNG or JPEG{reason}\n"
                "Fix: copy the file again, or convert it: gdal_translate in.img out.tif"
            ) from error
        self.size = self.file.height, self.file.width
        if self.size[1] > _MAX_WIDTH:
            raise DataError(
                f"{path} is {self.size[1]:,} pixels wide.\nExpected: at most {_MAX_WIDTH:,}. "
                "Fix: gdal_translate -srcwin 0 0 100000 HEIGHT in.tif part.tif"
            )
        self.upright: Pixels | None = None
        self.colors: Array | None = None
        if _is_rotated(path):
            self.upright, self.notes = read_pixels(path, channels)
            self.size = self.upright.shape[0], self.upright.shape[1]
            return
        if channels:
            check_bands(path, open_header(self.file, path), channels)
            self.notes = []
            return
        self.notes = self._check_rgb(path)

    def _check_rgb(self, path: Path) -> list[str]:
        """Return notes on the conversion to RGB; read the palette."""
        bands, kinds = self.file.count, set(self.file.dtypes)
        if not kinds <= {"uint8", "uint16"} or bands > 4:
            raise DataError(
                f"{path} has {bands} bands of {', '.join(sorted(kinds))}.\n"
                "Expected: 1 to 4 bands (greyscale or RGB, alpha) of uint8 or uint16.\n"
                "Fix: gdal_translate -b 1 -b 2 -b 3 in.tif out.tif"
            )
        if self.file.colorinterp[0] == ColorInterp.palette:
            table = self.file.colormap(1)
            self.colors = np.array([table.get(i, (0, 0, 0))[:3] for i in range(256)], np.uint8)
        grey = bands < 3 and self.colors is None
        notes = {"greyscale converted to RGB": grey, SCALED: "uint16" in kinds}
        alpha = ColorInterp.alpha in self.file.colorinterp
        notes["transparency ignored"] = alpha or bands in (2, 4)
        rotated = self.file.tags().get("EXIF_Orientation", "1") not in ("0", "1")
        notes["too large for rotation by EXIF orientation, used as stored"] = rotated
        return [note for note, applies in notes.items() if applies]

    def read_rows(self, start: int, stop: int) -> Pixels:
        """Return rows as RGB uint8 (stop - start, W, 3), or the `channels` (stop - start, W, N).

        Raises:
            DataError: the file is damaged.
        """
        if self.upright is not None:
            return self.upright[start:stop]
        bands = [1] if self.file.count < 3 else [1, 2, 3]
        try:
            if self.channels:
                return read_rows(self.file, self.path, self.channels, start, stop)[0]
            pixels = self.file.read(bands, window=Window(0, start, self.size[1], stop - start))
        except RasterioError as error:
            raise DataError(
                f"{self.path} is damaged in rows {start} to {stop}: {_cause(error)}\n"
                "Fix: copy the file again."
            ) from error
        if pixels.dtype == np.uint16:
            pixels = (pixels // 257).astype(np.uint8)  # as training reads 16 bits
        if self.colors is not None:
            return np.asarray(self.colors[pixels[0]], np.uint8)
        return np.asarray(cv2.merge([*pixels] * (3 // len(bands))), np.uint8)

    def close(self) -> None:
        """Close the file."""
        self.file.close()


def predict_big(
    predictor: Predictor,
    source: Path,
    target: Path,
    tile: int = 1024,
    overlap: int = 256,
    overlay: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
    confidence: Path | None = None,
    pseudo: float | None = None,
) -> list[str]:
    """Predict a TIFF, PNG or JPEG in tiles.

    Args:
        predictor: the model.
        source: the image.
        target: a tiled TIFF of the ids to write, with the palette and the image's georeference.
        tile: side of a tile, in pixels; see `check_tiles`.
        overlap: width that neighbouring tiles share, in pixels.
        overlay: a JPEG to write, at most 2048 pixels a side.
        progress: called with the number of finished rows and of all rows.
        confidence: a tiled TIFF of 255 x the confidence to write.
        pseudo: smallest confidence of pseudo-labels; ids below it become 255.

    Returns:
        Notes on the conversion of its pixels.

    Raises:
        DataError: see `BigImage`, or the image is smaller than 32x32.
        ConfigError: invalid tiles, or `target` cannot be written.
    """
    with _opened(source, predictor.channels) as image:
        height, width = image.size
        step = -(-max(height, width) // _PREVIEW)
        preview = np.zeros((-(-height // step), -(-width // step), 3), np.uint8)
        preview_mask = np.zeros(preview.shape[:2], np.uint8)

        def rows_of_image(start: int, stop: int) -> Pixels:
            rows = image.read_rows(start, stop)
            _sample(preview, start, rows, step, image.channels)
            return rows

        bands = predict_bands(
            predictor.evaluator,
            rows_of_image,
            image.size,
            tile,
            overlap,
            predictor.tensor_device,
            confidence=confidence is not None or pseudo is not None,
        )
        written = _write_rows(_whole_blocks(bands), image, predictor, target, confidence, pseudo)
        with contextlib.closing(written):  # an error below removes the unfinished file
            for start, ids in written:
                _sample(preview_mask, start, ids, step)
                if progress:
                    progress(start + len(ids), height)
        if overlay:
            _write_jpeg(overlay, draw_overlay(preview, preview_mask, predictor.palette))
        return image.notes


def _write_rows(
    blocks: Iterable[tuple[int, Array]],
    image: BigImage,
    predictor: Predictor,
    target: Path,
    confidence: Path | None,
    pseudo: float | None,
) -> Generator[tuple[int, Array], None, None]:
    """Write the rows of ids, and of the confidence if it has a path; yield the written ids."""
    layout = _layout(image)
    with replacing(target) as partial:
        try:
            with (
                rasterio.open(partial, "w", **layout) as file,
                _grey_file(confidence, layout) as grey,
            ):
                file.write_colormap(1, {i: (*c, 255) for i, c in enumerate(predictor.palette)})
                for start, rows in blocks:
                    ids = rows if rows.ndim == 2 else _labels(rows, pseudo)
                    window = Window(0, start, image.size[1], len(ids))
                    file.write(ids, 1, window=window)
                    if grey:
                        grey.write(rows[..., 1], 1, window=window)
                    yield start, ids
        except RasterioIOError as error:
            raise cannot_write(target, _cause(error)) from error


@contextlib.contextmanager
def _opened(path: Path, channels: Channels | None) -> Iterator[BigImage]:
    """Yield an open image, without warnings on its size and missing georeference."""
    with (
        warnings.catch_warnings(action="ignore", category=NotGeoreferencedWarning),
        warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
        rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
        contextlib.closing(BigImage(path, channels)) as image,
    ):
        yield image


def _layout(image: BigImage) -> dict[str, Any]:
    """Return rasterio's options for the mask of an image."""
    height, width = image.size
    layout = {**_LAYOUT, "height": height, "width": width, "crs": image.file.crs}
    if not image.file.transform.is_identity and image.upright is None:
        layout["transform"] = image.file.transform
    return layout


@contextlib.contextmanager
def _grey_file(path: Path | None, layout: Mapping[str, Any]) -> Iterator[Any]:
    """Yield an open greyscale TIFF, or None without a path."""
    if path is None:
        yield None
        return
    layout = {**layout, "photometric": "minisblack"}
    with replacing(path) as partial, rasterio.open(partial, "w", **layout) as file:
        yield file


def _labels(rows: Array, pseudo: float | None) -> Array:
    """Return the ids of rows of ids and confidence (rows, W, 2), 255 below `pseudo`."""
    unsure = rows[..., 1] < 255 * (pseudo or 0.0)
    return np.where(unsure, IGNORE_INDEX, rows[..., 0]).astype(np.uint8)


def _write_jpeg(path: Path, picture: Array) -> None:
    encoded = cv2.imencode(".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    write_bytes(path, encoded.tobytes())


def _whole_blocks(bands: Iterable[tuple[int, Array]]) -> Iterator[tuple[int, Array]]:
    """Yield bands joined to whole rows of TIFF blocks, so that each block is compressed once."""
    waiting: list[Array] = []
    first = 0
    for start, ids in bands:
        waiting.append(ids)
        whole = (start + len(ids) - first) // _BLOCK * _BLOCK
        if whole:
            rows = np.concatenate(waiting)
            yield first, rows[:whole]
            waiting, first = [rows[whole:]], first + whole
    rows = np.concatenate(waiting)
    if len(rows):
        yield first, rows


def _sample(
    target: Array, start: int, rows: Pixels, step: int, channels: Channels | None = None
) -> None:
    """Copy every `step`-th pixel of rows, the first being row `start`, into a preview."""
    sampled = as_picture(rows[-start % step :: step, ::step], channels)
    line = -(-start // step)
    target[line : line + len(sampled)] = sampled


def _is_rotated(path: Path) -> bool:
    """Return whether the file has an EXIF orientation by which viewers rotate it."""
    try:
        with Image.open(path, formats=FORMATS) as opened:
            # For a PNG without EXIF in its header, getexif() would decode the whole image.
            exif = opened.getexif() if opened.format != "PNG" or "exif" in opened.info else {}
            return int(exif.get(ExifTags.Base.Orientation, 1)) not in (0, 1)
    except Exception:  # damaged EXIF, or larger than Pillow opens
        return False


def _cause(error: BaseException) -> str:
    return str(error.__cause__ or error).partition("\n")[0]  # the cause is GDAL's own message
