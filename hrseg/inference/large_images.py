"""Prediction of images larger than memory with GDAL: bands in, tiled TIFF out."""

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator
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

from hrseg.errors import DataError
from hrseg.inference.inputs import FORMATS, read_pixels
from hrseg.inference.predictor import Predictor
from hrseg.inference.tiling import predict_bands
from hrseg.utils.files import cannot_write, replacing, write_bytes
from hrseg.visualize import overlay as lay_over

Array = NDArray[np.uint8]

# By their first bytes: no virtual formats, which may name other files.
_DRIVERS = {b"II": "GTiff", b"MM": "GTiff", b"\x89P": "PNG", b"\xff\xd8": "JPEG"}
_CACHE = 2**26  # bytes of GDAL's own cache of blocks
_BLOCK = 512
_WIDEST = 2**18  # pixels; bands of wider images do not fit into the memory
_PREVIEW = 2048  # longest side of the overlay, in pixels

# What GDAL has to say comes back as an error of ours.
logging.getLogger("rasterio").addHandler(logging.NullHandler())


class BigImage:
    """An image that is read in bands of rows; one that its EXIF turns is held whole, upright.

    Attributes:
        size: (height, width).
        notes: what is done to its pixels.
    """

    def __init__(self, path: Path) -> None:
        """Open a TIFF, PNG or JPEG file.

        Raises:
            DataError: not readable, or of a kind that has no RGB bytes.
        """
        self.path = path
        try:
            with path.open("rb") as file:
                driver = _DRIVERS[file.read(2)]
            self.file = rasterio.open(path.absolute(), driver=driver)
        except (KeyError, OSError, RasterioError) as error:
            reason = "" if isinstance(error, KeyError) else f": {_cause(error)}"
            raise DataError(f"{path} is no readable TIFF, PNG or JPEG{reason}") from error
        self.size = self.file.height, self.file.width
        if self.size[1] > _WIDEST:
            self.file.close()
            raise DataError(
                f"{path} is {self.size[1]:,} pixels wide; expected at most {_WIDEST:,}.\n"
                "Cut it: gdal_translate -srcwin 0 0 100000 HEIGHT in.tif part.tif"
            )
        self.upright: Array | None = None
        if _is_turned(path):
            self.upright, self.notes = read_pixels(path)
            self.size = self.upright.shape[0], self.upright.shape[1]
            return
        bands, kinds = self.file.count, set(self.file.dtypes)
        if not kinds <= {"uint8", "uint16"} or bands > 4:
            kind = f"{bands} bands of {', '.join(sorted(kinds))}"
            self.file.close()
            raise DataError(
                f"{path} has {kind}; expected 1 to 4 (grey, RGB, alpha) of 8 or 16 bits.\n"
                "Choose bands: gdal_translate -b 1 -b 2 -b 3 in.tif out.tif"
            )
        self.deep = "uint16" in kinds
        self.grey = bands < 3
        self.colors = self._color_table()
        alpha = ColorInterp.alpha in self.file.colorinterp
        said = {"grey": self.grey and self.colors is None, "16 bits scaled to 8": self.deep}
        said["its transparency left out"] = alpha or bands in (2, 4)
        turned = self.file.tags().get("EXIF_Orientation", "1") not in ("0", "1")
        said["too large to be turned as its EXIF says, taken as it is stored"] = turned
        self.notes = [note for note, is_so in said.items() if is_so]

    def _color_table(self) -> Array | None:
        if self.file.colorinterp[0] != ColorInterp.palette:
            return None
        table = np.zeros((256, 3), np.uint8)
        for value, color in self.file.colormap(1).items():
            table[value % 256] = color[:3]
        return table

    def read_rows(self, start: int, stop: int) -> Array:
        """Return rows as RGB uint8 (stop - start, W, 3).

        Raises:
            DataError: the file is damaged.
        """
        if self.upright is not None:
            return self.upright[start:stop]
        bands = [1] if self.grey else [1, 2, 3]
        window = Window(0, start, self.size[1], stop - start)
        try:
            pixels = self.file.read(bands, window=window)
        except RasterioError as error:
            raise DataError(
                f"{self.path} is damaged in rows {start} to {stop}: {_cause(error)}"
            ) from error
        if self.deep:
            pixels = (pixels // 257).astype(np.uint8)  # as training reads 16 bits
        if self.colors is not None:
            return np.asarray(self.colors[pixels[0]], np.uint8)
        planes = [pixels[0]] * 3 if self.grey else list(pixels)
        return np.asarray(cv2.merge(planes), np.uint8)

    def profile(self) -> dict[str, Any]:
        """Return what a mask of this image shares with it: size and place on the ground."""
        place = {"crs": self.file.crs, "transform": self.file.transform}
        if self.file.transform.is_identity or self.upright is not None:
            place = {"crs": self.file.crs}
        return {"height": self.size[0], "width": self.size[1], **place}

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
) -> list[str]:
    """Predict an image in tiles; write its ids as a tiled TIFF, with its georeferencing.

    Args:
        predictor: the model.
        source: TIFF, PNG or JPEG.
        target: the TIFF to write, whole or not at all; its colour map is the palette.
        tile: see `predict_bands`.
        overlap: see `predict_bands`.
        overlay: JPEG to write, the classes laid over the image, at most 2048 pixels a side.
        progress: called with the rows that are done, and all.

    Returns:
        Notes: what was done to the pixels.

    Raises:
        DataError: the image is of no kind that can be read, or damaged.
        ConfigError: the disk is full; tiles that do not fit the network's grid.
    """
    with _environment(), contextlib.closing(BigImage(source)) as image:
        preview = _Preview(image.size)

        def read_rows(start: int, stop: int) -> Array:
            rows = image.read_rows(start, stop)
            preview.see_image(start, rows)
            return rows

        bands = predict_bands(
            predictor.evaluator, read_rows, image.size, tile, overlap, predictor.device
        )
        with (
            replacing(target) as partial,
            _writing(partial, target, image, predictor.palette) as write,
        ):
            for start, ids in bands:
                write(start, ids)
                preview.see_mask(start, ids)
                if progress:
                    progress(start + len(ids), image.size[0])
        if overlay:
            drawn = lay_over(preview.image, preview.mask, predictor.palette)
            encoded = cv2.imencode(".jpg", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1]
            write_bytes(overlay, encoded.tobytes())
        return image.notes


class _Preview:
    """A small picture of an image and its mask, sampled while they pass by."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.step = -(-max(size) // _PREVIEW)
        shape = [-(-side // self.step) for side in size]
        self.image = np.zeros((*shape, 3), np.uint8)
        self.mask = np.zeros(shape, np.uint8)

    def see_image(self, start: int, rows: Array) -> None:
        self._sample(self.image, start, rows)

    def see_mask(self, start: int, rows: Array) -> None:
        self._sample(self.mask, start, rows)

    def _sample(self, target: Array, start: int, rows: Array) -> None:
        first = -start % self.step
        taken = rows[first :: self.step, :: self.step]
        line = (start + first) // self.step
        target[line : line + len(taken)] = taken


@contextlib.contextmanager
def _environment() -> Iterator[None]:
    """Keep GDAL's memory small, and its remarks to itself."""
    with (
        warnings.catch_warnings(),
        rasterio.Env(GDAL_CACHEMAX=_CACHE, GDAL_DISABLE_READDIR_ON_OPEN="EMPTY_DIR"),
    ):
        for known in (NotGeoreferencedWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", known)
        yield


@contextlib.contextmanager
def _writing(
    path: Path, target: Path, image: BigImage, palette: list[list[int]]
) -> Iterator[Callable[[int, Array], None]]:
    """Open a TIFF; give what writes rows of ids into it, in whole rows of its blocks."""
    profile = {
        "driver": "GTiff",
        "count": 1,
        "dtype": "uint8",
        "compress": "deflate",
        "tiled": True,
        "blockxsize": _BLOCK,
        "blockysize": _BLOCK,
        "BIGTIFF": "IF_SAFER",
        "photometric": "palette",
        **image.profile(),
    }
    held: list[Array] = []
    first = 0

    try:
        with rasterio.open(path, "w", **profile) as file:
            file.write_colormap(1, {i: (*color, 255) for i, color in enumerate(palette)})

            def flush(rows: Array) -> None:
                nonlocal first
                window = Window(0, first, image.size[1], len(rows))
                file.write(rows, 1, window=window)
                first += len(rows)

            def write(start: int, ids: Array) -> None:
                held.append(ids)
                count = sum(map(len, held))
                if count >= _BLOCK:
                    rows = np.concatenate(held)
                    whole = count // _BLOCK * _BLOCK
                    flush(rows[:whole])
                    held[:] = [rows[whole:]]

            yield write
            if held and sum(map(len, held)):
                flush(np.concatenate(held))
    except RasterioIOError as error:
        raise cannot_write(target, _cause(error)) from error


def _is_turned(path: Path) -> bool:
    """Return whether a viewer would turn the image, as Pillow reads its header."""
    try:
        with (
            warnings.catch_warnings(action="ignore", category=Image.DecompressionBombWarning),
            Image.open(path, formats=FORMATS) as opened,
        ):
            # Asked for EXIF that it has not met, Pillow decodes a whole PNG to look behind it.
            exif = opened.getexif() if opened.format != "PNG" or "exif" in opened.info else {}
            return int(exif.get(ExifTags.Base.Orientation, 1)) not in (0, 1)
    except Exception:  # damaged EXIF, or larger than Pillow opens: taken as it is stored
        return False


def _cause(error: BaseException) -> str:
    """Return GDAL's own words, which rasterio keeps as the cause."""
    return str(error.__cause__ or error).partition("\n")[0]
