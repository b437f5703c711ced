"""Polygons of a prediction."""

import numpy as np
from rasterio.features import rasterize

from hrseg.inference.outputs import polygons

NAMES = ["road", "car", "tree"]


def test_a_region_inside_a_region_is_a_hole():
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 2:5] = 1
    collection = polygons(mask, NAMES)
    assert (collection["width"], collection["height"]) == (6, 5)
    by_class = {f["properties"]["class"]: f for f in collection["features"]}
    car, road = by_class["car"], by_class["road"]
    assert car["properties"] == {"class": "car", "id": 1, "pixels": 6}
    assert set(car["geometry"]["coordinates"][0]) == {(2, 1), (2, 3), (5, 3), (5, 1)}
    assert road["properties"]["pixels"] == 5 * 6 - 6
    assert len(road["geometry"]["coordinates"]) == 2


def test_regions_are_4_connected():
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert [f["properties"]["pixels"] for f in polygons(mask, NAMES)["features"]] == [1] * 4


def test_rasterized_polygons_are_the_mask():
    generator = np.random.default_rng(0)
    mask = np.kron(generator.integers(0, 3, (12, 9)), np.ones((4, 5))).astype(np.uint8)
    features = polygons(mask, NAMES)["features"]
    shapes = [(f["geometry"], f["properties"]["id"]) for f in features]
    assert np.array_equal(rasterize(shapes, mask.shape, fill=255, dtype=np.uint8), mask)
    assert sum(f["properties"]["pixels"] for f in features) == mask.size
