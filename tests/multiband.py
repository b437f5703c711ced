"""TIFF files of several bands, and a small data set of them, written by rasterio."""

import warnings

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import from_origin

from tests.conftest import save_image

GEOREFERENCE = {"crs": "EPSG:32632", "transform": from_origin(500000, 5400000, 0.5, 0.5)}


def scene(count, dtype, seed=0, size=(64, 80)):
    """Return an image (H, W, N) and its mask: a square, brighter only in the last band."""
    draw = np.random.default_rng(seed)
    mask = np.zeros(size, np.uint8)
    y, x = draw.integers(8, 32, 2)
    mask[y : y + 24, x : x + 24] = 1
    shares = draw.uniform(0.2, 0.4, (*size, count))
    shares[..., -1] += 0.5 * mask
    top = 1.0 if np.dtype(dtype).kind == "f" else 200 if dtype == "uint8" else 4000
    return (shares * top).astype(dtype), mask


def write_tiff(path, image, **options):
    """Write an image (H, W, N); return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = image.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": count}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(path, "w", **profile, dtype=image.dtype, **options) as file:
            file.write(np.moveaxis(image, -1, 0))
    return path


def make_bands(root, count, dtype, train=4, val=2):
    """Write a folder data set of georeferenced TIFF images; return its root."""
    for split, number in (("train", train), ("val", val)):
        for index in range(number):
            image, mask = scene(count, dtype, 10 * number + index)
            write_tiff(root / "images" / split / f"{split}{index}.tif", image, **GEOREFERENCE)
            save_image(root / "masks" / split / f"{split}{index}.png", mask)
    (root / "classes.txt").write_text("field\nhouse\n")
    return root
