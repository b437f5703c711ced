"""Polygons of predicted masks as GeoJSON, COCO JSON and LabelMe files, for annotation tools."""

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import replacing

Ring = Sequence[tuple[float, float]]  # closed: the last point is the first
_LABELME_VERSION = "5.5.0"  # whose files are written


class Region(NamedTuple):
    """A 4-connected region of one class.

    Attributes:
        id: of the class.
        rings: the outer ring, then the holes. Coordinates are in pixels: x to the right, y down,
            from the upper left corner of the first pixel.
        pixels: area without the holes.
    """

    id: int
    rings: Sequence[Ring]
    pixels: int


def regions(mask: NDArray[np.uint8]) -> Iterator[Region]:
    """Yield the 4-connected regions of a mask, ids (H, W), without ignored pixels (255).

    Their edges run along the pixels.
    """
    # Imported here because GDAL is slow to import.
    from rasterio.errors import NotGeoreferencedWarning
    from rasterio.features import shapes

    warnings.simplefilter("ignore", NotGeoreferencedWarning)
    for shape, index in shapes(mask, mask != IGNORE_INDEX, connectivity=4):
        outer, *holes = map(_area, shape["coordinates"])
        yield Region(int(index), shape["coordinates"], round(outer - sum(holes)))


def _area(ring: Ring) -> float:
    return float(cv2.contourArea(np.array(ring, np.float32)))


def geojson(mask: NDArray[np.uint8], class_names: Sequence[str]) -> dict[str, Any]:
    """Return a GeoJSON FeatureCollection with one polygon, holes included, per region."""
    features = [
        {
            "type": "Feature",
            "properties": {
                "class": class_names[region.id],
                "id": region.id,
                "pixels": region.pixels,
            },
            "geometry": {"type": "Polygon", "coordinates": region.rings},
        }
        for region in regions(mask)
    ]
    return {
        "type": "FeatureCollection",
        "width": mask.shape[1],
        "height": mask.shape[0],
        "coordinates": "pixels",
        "features": features,
    }


def labelme(mask: NDArray[np.uint8], class_names: Sequence[str], image_path: str) -> dict[str, Any]:
    """Return the content of a LabelMe file.

    LabelMe has no holes. The regions in a hole come later in the file, so that they cover it.

    Args:
        mask: ids (H, W).
        class_names: of the ids.
        image_path: path of the image, relative to the folder of the LabelMe file.
    """
    largest_first = sorted(regions(mask), key=lambda region: -_area(region.rings[0]))
    outlines: list[dict[str, Any]] = [
        {
            "label": class_names[region.id],
            "points": region.rings[0][:-1],
            "group_id": None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
        }
        for region in largest_first
    ]
    return {
        "version": _LABELME_VERSION,
        "flags": {},
        "shapes": outlines,
        "imagePath": image_path,
        "imageData": None,
        "imageHeight": mask.shape[0],
        "imageWidth": mask.shape[1],
    }


def write_coco(
    path: Path, masks: Mapping[str, Path], class_names: Sequence[str], writer: str = ""
) -> None:
    """Write the regions of all masks as a COCO JSON file, one mask in memory at a time.

    Args:
        path: of the JSON file.
        masks: `file_name` of each image -> its mask of ids, a palette image.
        class_names: of the ids. The category of id i is i + 1, because 0 is often the background.
        writer: see `replacing`.
    """
    categories = [{"id": index, "name": name} for index, name in enumerate(class_names, 1)]
    images: list[dict[str, Any]] = []
    count = 0
    with replacing(path, writer=writer) as partial, partial.open("w", encoding="utf-8") as file:
        file.write(f'{{"categories": {json.dumps(categories)},\n"annotations": [')
        for file_name, mask_path in masks.items():
            with Image.open(mask_path) as picture:
                mask = np.asarray(picture)
            height, width = mask.shape
            image = {"id": len(images) + 1, "file_name": file_name}
            images.append({**image, "width": width, "height": height})
            for region in regions(mask):
                count += 1
                annotation = {"id": count, "image_id": image["id"], **_coco(region, mask.shape)}
                file.write(f"{',' * (count > 1)}\n{json.dumps(annotation)}")
        file.write(f'\n],\n"images": {json.dumps(images)}}}\n')


def _coco(region: Region, size: tuple[int, ...]) -> dict[str, Any]:
    """Return a COCO annotation: a polygon, or run lengths for a region with holes."""
    corners = np.array(region.rings[0])
    left, top = corners.min(0).tolist()
    right, bottom = corners.max(0).tolist()
    has_holes = len(region.rings) > 1
    return {
        "category_id": region.id + 1,
        "iscrowd": 0,
        "area": region.pixels,
        "bbox": [left, top, right - left, bottom - top],
        "segmentation": _run_lengths(region, size)
        if has_holes
        else [corners[:-1].ravel().tolist()],
    }


def _run_lengths(region: Region, size: tuple[int, ...]) -> dict[str, Any]:
    from pycocotools import mask as coco_mask
    from rasterio.features import rasterize

    area = rasterize([{"type": "Polygon", "coordinates": region.rings}], size, dtype=np.uint8)
    counts = coco_mask.encode(np.asfortranarray(area))["counts"]
    return {"size": list(size), "counts": counts.decode()}
