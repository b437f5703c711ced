"""Outputs of a prediction: files per input, and their encoding."""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.inference.inputs import Source
from hrseg.inference.predictor import Prediction
from hrseg.visualize import Array


@dataclass(frozen=True)
class Wanted:
    """What is written of each input.

    Attributes:
        overlays: the classes laid over the image.
        probabilities: float16 (K, H, W).
        polygons: GeoJSON.
        frames: a mask per frame of a video.
        tile: side of the tiles of large images, in pixels.
        overlap: of neighbouring tiles, in pixels.
    """

    overlays: bool = True
    probabilities: bool = False
    polygons: bool = False
    frames: bool = False
    tile: int = 1024
    overlap: int = 256

    def paths(self, out: Path, source: Source) -> dict[str, Path]:
        """Return what is written of an input, and where; the mask, or what stands for it, last."""
        name = source.name
        if source.kind == "video":
            return {"overlays": out / "overlays" / f"{name}.mp4"}
        suffix = "tif" if source.kind == "tiles" else "png"
        paths = {
            "overlays": out / "overlays" / f"{name}.jpg",
            "probabilities": out / "probabilities" / f"{name}.npz",
            "polygons": out / "polygons" / f"{name}.geojson",
            "masks": out / "masks" / f"{name}.{suffix}",
        }
        left_out = ("probabilities", "polygons") if source.kind == "tiles" else ()
        return {
            what: path
            for what, path in paths.items()
            if what not in left_out and (what == "masks" or getattr(self, what))
        }


def is_finished(source: Source, paths: dict[str, Path]) -> bool:
    """Return whether all that is wanted of an input is there, and newer than it."""
    changed = source.path.stat().st_mtime
    return all(path.is_file() and path.stat().st_mtime >= changed for path in paths.values())


def mask_png(prediction: Prediction) -> bytes:
    """Return the mask as a palette PNG."""
    return png(prediction.to_pil())


def overlay_jpeg(prediction: Prediction) -> bytes:
    """Return the image with the classes laid over it as JPEG."""
    stored = io.BytesIO()
    Image.fromarray(prediction.overlay()).save(stored, "JPEG", quality=90)
    return stored.getvalue()


def probabilities_npz(prediction: Prediction) -> bytes:
    """Return float16 (K, H, W) as `probabilities`, and `class_names`."""
    stored = io.BytesIO()
    shares = prediction.probabilities().astype(np.float16)
    np.savez(stored, probabilities=shares, class_names=np.array(prediction.class_names))
    return stored.getvalue()


ENCODERS: dict[str, Callable[[Prediction], bytes]] = {
    "masks": mask_png,
    "overlays": overlay_jpeg,
    "probabilities": probabilities_npz,
    "polygons": lambda prediction: to_json(polygons(prediction.mask, prediction.class_names), None),
}


def png(picture: Image.Image | Array) -> bytes:
    """Return a picture as PNG."""
    stored = io.BytesIO()
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    image.save(stored, "PNG")
    return stored.getvalue()


def to_json(content: Any, indent: int | None = 1) -> bytes:
    """Return plain data as JSON."""
    return json.dumps(content, indent=indent).encode()


def polygons(mask: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection: a polygon, holes included, per connected region.

    Regions are joined over edges, not over corners. Coordinates are pixels, x to the right, y
    down, (0, 0) the upper left corner of the first pixel.

    Args:
        mask: ids (H, W).
        class_names: a name per id.
    """
    # GDAL is in no other command's way.
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import shapes

    warnings.simplefilter("ignore", NotGeoreferencedWarning)  # pixels are what is wanted

    features = [
        {
            "type": "Feature",
            "properties": {"class": class_names[int(i)], "id": int(i), "pixels": _pixels(shape)},
            "geometry": {"type": "Polygon", "coordinates": shape["coordinates"]},
        }
        for shape, i in shapes(mask, connectivity=4)
    ]
    return {
        "type": "FeatureCollection",
        "width": mask.shape[1],
        "height": mask.shape[0],
        "coordinates": "pixels",
        "features": features,
    }


def _pixels(shape: dict[str, Any]) -> int:
    """Return the area of a polygon without its holes."""
    outer, *holes = (abs(_signed_area(ring)) for ring in shape["coordinates"])
    return round(outer - sum(holes))


def _signed_area(ring: Sequence[tuple[float, float]]) -> float:
    x, y = np.array(ring).T
    return float(x[:-1] @ y[1:] - x[1:] @ y[:-1]) / 2
