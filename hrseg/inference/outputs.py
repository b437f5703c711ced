"""Outputs of a prediction: files per input, and their encoding."""

import io
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.inference.inputs import Source
from hrseg.inference.predictor import Prediction


@dataclass(frozen=True)
class Wanted:
    """Options of the outputs: files to write, masks of a video's `frames`, and tiles in pixels."""

    overlays: bool = True
    probabilities: bool = False
    polygons: bool = False
    frames: bool = False
    tile: int = 1024
    overlap: int = 256

    def paths(self, out: Path, source: Source) -> dict[str, Path]:
        """Return the files to write for an input, by kind of output; the mask is the last."""
        if source.kind == "video":
            return {"overlays": out / "overlays" / f"{source.name}.mp4"}
        tiles = source.kind == "tiles"
        suffixes = {"overlays": "jpg"} if self.overlays else {}
        if self.probabilities and not tiles:
            suffixes["probabilities"] = "npz"
        if self.polygons and not tiles:
            suffixes["polygons"] = "geojson"
        suffixes["masks"] = "tif" if tiles else "png"
        return {kind: out / kind / f"{source.name}.{end}" for kind, end in suffixes.items()}


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture as the bytes of a file of a kind of Pillow, such as "PNG"."""
    stored = io.BytesIO()
    picture.save(stored, kind, **options)
    return stored.getvalue()


def _probabilities_npz(prediction: Prediction) -> bytes:
    stored = io.BytesIO()
    shares = prediction.probabilities().astype(np.float16)
    np.savez(stored, probabilities=shares, class_names=np.array(prediction.class_names))
    return stored.getvalue()


def polygons(mask: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection: a polygon, holes included, per connected region.

    `mask` are ids (H, W). Regions are joined over edges, not over corners. Coordinates are pixels,
    x to the right, y down, (0, 0) the upper left corner of the first pixel.
    """
    # Imported late: GDAL takes time.
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import shapes

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    features = [
        {
            "type": "Feature",
            "properties": {"class": class_names[int(i)], "id": int(i), "pixels": _area(shape)},
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


def _area(shape: dict[str, Any]) -> int:
    outer, *holes = (cv2.contourArea(np.array(ring, np.float32)) for ring in shape["coordinates"])
    return round(outer - sum(holes))


ENCODERS: dict[str, Callable[[Prediction], bytes]] = {
    "masks": lambda p: encoded(p.to_pil(), "PNG"),
    "overlays": lambda p: encoded(Image.fromarray(p.overlay()), "JPEG", quality=90),
    "probabilities": _probabilities_npz,
    "polygons": lambda p: json.dumps(polygons(p.mask, p.class_names)).encode(),
}
