"""Rasterisation of annotated shapes: polygons and masks to class ids, smaller objects on top."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hrseg.data.formats.annotations import UNLABELLED, BoolArray, IntArray, Polygon, Shape, fault
from hrseg.utils.constants import IGNORE_INDEX

Crop = tuple[BoolArray, tuple[int, int]]  # pixels of a part of the image, and its row and column


def draw(
    shapes: Sequence[Shape], height: int, width: int, ids: Mapping[str, int], source: Path
) -> tuple[IntArray, int]:
    """Return the id of each pixel (height, width), and the number of shapes without a pixel.

    Shapes of a higher layer are drawn over those of a lower one. In a layer, shapes with fewer
    pixels are drawn over shapes with more; later ones over earlier ones of the same size.
    Ignored shapes (255) are drawn first: they lie below all objects.

    Args:
        shapes: objects of an image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        ids: class name -> id.
        source: annotation file, for messages.

    Raises:
        DataError: a mask that extends beyond the image, or a label without an id.
    """
    crops = [(shape, *pixels_of(shape, height, width, source)) for shape in shapes]
    areas = [int(np.count_nonzero(pixels)) for _, pixels, _ in crops]
    order = sorted(
        range(len(crops)), key=lambda i: (not crops[i][0].ignore, crops[i][0].layer, -areas[i])
    )
    drawn = np.full((height, width), UNLABELLED, np.int16)
    for index in order:
        shape, pixels, (row, column) = crops[index]
        if shape.label not in ids and not shape.ignore:
            raise fault(source, f"an object has the unknown class {shape.label!r}",
                        "one of the class names of the data set")  # fmt: skip
        target = drawn[row : row + pixels.shape[0], column : column + pixels.shape[1]]
        target[pixels] = IGNORE_INDEX if shape.ignore else ids[shape.label]
    return drawn, areas.count(0)


def pixels_of(shape: Shape, height: int, width: int, source: Path) -> Crop:
    """Return the pixels of a shape, cropped to its extent, and the crop's row and column."""
    parts = [fill(polygon, height, width) for polygon in shape.polygons]
    if shape.mask is not None:
        (row, column), (rows, columns) = shape.corner, shape.mask.shape
        if row < 0 or column < 0 or row + rows > height or column + columns > width:
            raise fault(
                source,
                f"a mask of {rows}x{columns} pixels at row {row}, column {column} does not fit "
                f"into its image of {height}x{width} pixels (height x width)",
                "masks inside their image",
            )
        parts.append((shape.mask, shape.corner))
    return parts[0] if len(parts) == 1 else _union(parts)


def cropped(pixels: BoolArray) -> Crop:
    """Return a copy of the part of a mask (H, W) that has pixels, and its row and column."""
    rows, columns = (np.flatnonzero(pixels.any(axis)) for axis in (1, 0))
    if not len(rows):
        return np.zeros((0, 0), np.bool_), (0, 0)
    top, left = int(rows[0]), int(columns[0])
    return pixels[top : rows[-1] + 1, left : columns[-1] + 1].copy(), (top, left)


def fill(polygon: Polygon, height: int, width: int) -> Crop:
    """Return the pixels whose centre lies inside of a polygon, by the even-odd rule.

    Args:
        polygon: rings (N, 2), x, y in pixels.
        height: of the image, in pixels.
        width: of the image, in pixels.
    """
    from rasterio.features import rasterize  # takes half a second
    from rasterio.transform import Affine

    low = np.min([ring.min(0) for ring in polygon], 0)
    high = np.max([ring.max(0) for ring in polygon], 0)
    left, top = max(0, math.floor(low[0])), max(0, math.floor(low[1]))
    right, bottom = min(width, math.ceil(high[0])), min(height, math.ceil(high[1]))
    if right <= left or bottom <= top:
        return np.zeros((0, 0), np.bool_), (0, 0)
    rings = [[*map(tuple, ring.tolist()), tuple(ring[0].tolist())] for ring in polygon]
    pixels = rasterize(
        [{"type": "Polygon", "coordinates": rings}],
        out_shape=(bottom - top, right - left),
        transform=Affine.translation(left, top),
        all_touched=False,
        dtype="uint8",
    )
    return pixels.astype(np.bool_), (top, left)


def _union(parts: Sequence[Crop]) -> Crop:
    parts = [part for part in parts if part[0].size]
    if not parts:
        return np.zeros((0, 0), np.bool_), (0, 0)
    top, left = (min(corner[axis] for _, corner in parts) for axis in (0, 1))
    bottom, right = (max(c[axis] + p.shape[axis] for p, c in parts) for axis in (0, 1))
    union = np.zeros((bottom - top, right - left), np.bool_)
    for pixels, (row, column) in parts:
        rows, columns = pixels.shape
        union[row - top : row - top + rows, column - left : column - left + columns] |= pixels
    return union, (top, left)
