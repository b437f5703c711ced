"""Output files of a prediction: their options, paths and encoding."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.inference.inputs import Source
from hrseg.inference.polygons import geojson, labelme
from hrseg.inference.prediction import Prediction
from hrseg.visualize import indexed

_POLYGONS = {"geojson": "geojson", "labelme": "json"}  # format -> suffix of the file per image


@dataclass(frozen=True)
class OutputOptions:
    """Options of a prediction's outputs.

    Attributes:
        overlays: write overlays of images.
        probabilities: write probabilities of images.
        polygons: format of the polygons of images, "geojson", "coco" or "labelme"; "": none.
        frames: write a mask of each frame of a video.
        confidence: write maps of the confidence of images.
        pseudo: smallest confidence of pseudo-labels; pixels below it are 255 in the masks.
        tile: side of a tile of large images, in pixels.
        overlap: width that neighbouring tiles share, in pixels.
    """

    overlays: bool = True
    probabilities: bool = False
    polygons: str = ""
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
        if self.polygons in _POLYGONS and not tiles:  # COCO has one file for all images
            suffixes["polygons"] = _POLYGONS[self.polygons]
        suffixes["masks"] = "tif" if tiles else "png"
        return {kind: out / kind / f"{source.name}.{end}" for kind, end in suffixes.items()}

    def to_dict(self) -> dict[str, Any]:
        """Return the options as recorded in predict.json, where GeoJSON is true."""
        recorded = {"": False, "geojson": True}.get(self.polygons, self.polygons)
        return {**asdict(self), "polygons": recorded}

    @property
    def needs_confidence(self) -> bool:
        """Whether the confidence has to be computed."""
        return self.confidence or self.pseudo is not None

    def encode(self, kind: str, prediction: Prediction, source: Path, path: Path) -> bytes:
        """Return the content of the output `path`, of a key of `paths`, for the image `source`."""
        if kind == "masks":
            return self.mask_png(prediction)
        if kind == "polygons":
            return json.dumps(self._polygons(prediction, source, path)).encode()
        return ENCODERS[kind](prediction)

    def mask_png(self, prediction: Prediction) -> bytes:
        """Return the mask, or the pseudo-labels, as a palette PNG."""
        return encoded(indexed(self._labels(prediction), prediction.palette), "PNG")

    def _polygons(self, prediction: Prediction, source: Path, path: Path) -> dict[str, Any]:
        mask, names = self._labels(prediction), prediction.class_names
        if self.polygons == "labelme":
            return labelme(mask, names, os.path.relpath(source, path.parent))
        return geojson(mask, names)

    def _labels(self, prediction: Prediction) -> NDArray[np.uint8]:
        return prediction.mask if self.pseudo is None else prediction.pseudo_labels(self.pseudo)


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


ENCODERS: dict[str, Callable[[Prediction], bytes]] = {
    "confidence": lambda p: encoded(Image.fromarray(p.confidence_map()), "PNG"),
    "overlays": lambda p: encoded(Image.fromarray(p.overlay()), "JPEG", quality=90),
    "probabilities": _probabilities_npz,
}
