"""Output files of a prediction: their options, paths and encoding."""

import io
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrseg.inference.inputs import Source
from hrseg.inference.polygons import geojson, labelme
from hrseg.inference.predictor import Prediction

_POLYGONS = {"geojson": "geojson", "labelme": "json"}  # format -> suffix of the file per image


@dataclass(frozen=True)
class OutputOptions:
    """Options of a prediction's outputs.

    Attributes:
        overlays: write overlays of images.
        probabilities: write probabilities of images.
        polygons: format of the polygons of images, "geojson", "coco" or "labelme"; "": none.
        frames: write a mask of each frame of a video.
        tile: side of a tile of large images, in pixels.
        overlap: width that neighbouring tiles share, in pixels.
    """

    overlays: bool = True
    probabilities: bool = False
    polygons: str = ""
    frames: bool = False
    tile: int = 1024
    overlap: int = 256

    def paths(self, out: Path, source: Source) -> dict[str, Path]:
        """Return the files to write for an input, by kind of output; the mask is written last."""
        if source.kind == "video":
            return {"overlays": out / "overlays" / f"{source.name}.mp4"}
        tiles = source.kind == "tiles"
        suffixes = {"overlays": "jpg"} if self.overlays else {}
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


def mask_png(prediction: Prediction) -> bytes:
    """Return the mask as a palette PNG."""
    return encoded(prediction.to_pil(), "PNG")


def encode_output(prediction: Prediction, source: Path, path: Path) -> bytes:
    """Return the content of the output file `path`; the suffix selects the encoding.

    Args:
        prediction: of an image.
        source: path of the image, to which LabelMe files refer.
        path: of the output.
    """
    return _ENCODERS[path.suffix](prediction, os.path.relpath(source, path.parent))


_ENCODERS: dict[str, Callable[[Prediction, str], bytes]] = {
    ".png": lambda p, _: mask_png(p),
    ".jpg": lambda p, _: encoded(Image.fromarray(p.overlay()), "JPEG", quality=90),
    ".npz": lambda p, _: _probabilities_npz(p),
    ".geojson": lambda p, _: json.dumps(geojson(p.mask, p.class_names)).encode(),
    ".json": lambda p, image: json.dumps(labelme(p.mask, p.class_names, image)).encode(),
}
