"""Output files of a prediction: their options, paths and encoding."""

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
from hrseg.visualize import indexed


@dataclass(frozen=True)
class OutputOptions:
    """Options of a prediction's outputs.

    Attributes:
        overlays: write overlays of images.
        probabilities: write probabilities of images.
        polygons: write polygons of images.
        frames: write a mask of each frame of a video.
        confidence: write maps of the confidence of images.
        pseudo: smallest confidence of pseudo-labels; pixels below it are 255 in the masks.
        tile: side of a tile of large images, in pixels.
        overlap: width that neighbouring tiles share, in pixels.
    """

    overlays: bool = True
    probabilities: bool = False
    polygons: bool = False
    frames: bool = False
    confidence: bool = False
    pseudo: float | None = None
    tile: int = 1024
    overlap: int = 256

    def paths(self, out: Path, source: Source) -> dict[str, Path]:
        """Return the files to write for an input, by kind of output; the mask is written last."""
        if source.kind == "video":
            return {"overlays": out / "overlays" / f"{source.name}.mp4"}
        tiles = source.kind == "tiles"
        suffixes = {"overlays": "jpg"} if self.overlays else {}
        if self.confidence:
            suffixes["confidence"] = "tif" if tiles else "png"
        if self.probabilities and not tiles:
            suffixes["probabilities"] = "npz"
        if self.polygons and not tiles:
            suffixes["polygons"] = "geojson"
        suffixes["masks"] = "tif" if tiles else "png"
        return {kind: out / kind / f"{source.name}.{end}" for kind, end in suffixes.items()}

    @property
    def needs_confidence(self) -> bool:
        """Whether the confidence has to be computed."""
        return self.confidence or self.pseudo is not None

    def encode(self, kind: str, prediction: Prediction) -> bytes:
        """Return the content of a file of a key of `paths`."""
        if kind == "masks" and self.pseudo is not None:
            labels = prediction.pseudo_labels(self.pseudo)
            return encoded(indexed(labels, prediction.palette), "PNG")
        return ENCODERS[kind](prediction)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    """Return a picture encoded in a format of Pillow, such as "PNG", with options of `save`."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def _probabilities_npz(prediction: Prediction) -> bytes:
    buffer = io.BytesIO()
    probabilities = prediction.probabilities().astype(np.float16)
    np.savez(buffer, probabilities=probabilities, class_names=np.array(prediction.class_names))
    return buffer.getvalue()


def polygons(mask: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection with one polygon, holes included, per connected region.

    `mask` contains ids (H, W). Regions are 4-connected. Coordinates are in pixels: x to the right,
    y down, from the upper left corner of the first pixel.
    """
    # Imported here because GDAL is slow to import.
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
    "confidence": lambda p: encoded(Image.fromarray(p.confidence_map()), "PNG"),
    "overlays": lambda p: encoded(Image.fromarray(p.overlay()), "JPEG", quality=90),
    "probabilities": _probabilities_npz,
    "polygons": lambda p: json.dumps(polygons(p.mask, p.class_names)).encode(),
}
