"""A mask as polygons: GeoJSON whose edges run exactly along the pixels."""

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
