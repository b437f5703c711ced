"""Files of a prediction: their paths, encodings, and polygons along the pixels."""

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image
from rasterio.features import rasterize

from hrseg.inference.inputs import Source
from hrseg.inference.outputs import ENCODERS, Wanted, polygons
from hrseg.inference.predictor import Prediction

NAMES = ["road", "car", "tree"]


def written(kind, **wanted):
    paths = Wanted(**wanted).paths(Path("out"), Source(Path("x"), "a", kind))
    return [str(path) for path in paths.values()]


def test_the_files_of_an_input_follow_from_its_kind_the_mask_comes_last():
    assert written("image") == ["out/overlays/a.jpg", "out/masks/a.png"]
    assert written("image", overlays=False, polygons=True, probabilities=True) == [
        "out/probabilities/a.npz", "out/polygons/a.geojson", "out/masks/a.png"
    ]  # fmt: skip
    assert written("tiles", polygons=True) == ["out/overlays/a.jpg", "out/masks/a.tif"]
    assert written("video", polygons=True) == ["out/overlays/a.mp4"]


def test_every_encoding_is_read_back():
    mask = np.array([[0, 1, 1], [0, 0, 1]], np.uint8)
    scores = np.stack([mask == 0, mask == 1]).astype(np.float32) + 1
    image = np.full((2, 3, 3), 90, np.uint8)
    prediction = Prediction(image, mask, ["road", "car"], [[0, 0, 9], [9, 0, 0]], scores)
    encoded = {what: encode(prediction) for what, encode in ENCODERS.items()}
    assert np.array_equal(np.array(Image.open(io.BytesIO(encoded["masks"]))), mask)
    assert Image.open(io.BytesIO(encoded["overlays"])).size == (3, 2)
    stored = np.load(io.BytesIO(encoded["probabilities"]))
    assert stored["probabilities"][1].tolist() == [
        [np.float16(1 / 3), np.float16(2 / 3), np.float16(2 / 3)],
        [np.float16(1 / 3), np.float16(1 / 3), np.float16(2 / 3)],
    ]
    features = json.loads(encoded["polygons"])["features"]
    assert sorted(f["properties"]["pixels"] for f in features) == [3, 3]


def test_a_square_in_a_square_is_a_hole():
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


def test_regions_that_touch_at_a_corner_are_apart():
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert [f["properties"]["pixels"] for f in polygons(mask, NAMES)["features"]] == [1] * 4


def test_the_polygons_give_the_mask_back():
    generator = np.random.default_rng(0)
    mask = np.kron(generator.integers(0, 3, (12, 9)), np.ones((4, 5))).astype(np.uint8)
    features = polygons(mask, NAMES)["features"]
    shapes = [(f["geometry"], f["properties"]["id"]) for f in features]
    assert np.array_equal(rasterize(shapes, mask.shape, fill=255, dtype=np.uint8), mask)
    assert sum(f["properties"]["pixels"] for f in features) == mask.size
