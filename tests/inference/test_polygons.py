"""Polygons of a prediction, drawn again by GDAL, pycocotools and Pillow."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools.coco import COCO
from rasterio.features import rasterize

from hrseg.inference.polygons import geojson, labelme, write_coco
from hrseg.visualize import indexed

NAMES = ["road", "car", "tree"]


def test_a_region_inside_a_region_is_a_hole():
    mask = np.zeros((5, 6), np.uint8)
    mask[1:3, 2:5] = 1
    collection = geojson(mask, NAMES)
    assert (collection["width"], collection["height"]) == (6, 5)
    by_class = {f["properties"]["class"]: f for f in collection["features"]}
    car, road = by_class["car"], by_class["road"]
    assert car["properties"] == {"class": "car", "id": 1, "pixels": 6}
    assert set(car["geometry"]["coordinates"][0]) == {(2, 1), (2, 3), (5, 3), (5, 1)}
    assert road["properties"]["pixels"] == 5 * 6 - 6
    assert len(road["geometry"]["coordinates"]) == 2


def test_regions_are_4_connected():
    mask = np.array([[1, 0], [0, 1]], np.uint8)
    assert [f["properties"]["pixels"] for f in geojson(mask, NAMES)["features"]] == [1] * 4


@pytest.fixture
def mask():
    """Blocks of three classes, with holes in holes and regions of one pixel."""
    generator = np.random.default_rng(0)
    mask = np.kron(generator.integers(0, 3, (12, 9)), np.ones((4, 5))).astype(np.uint8)
    for size in range(9, 0, -1):
        mask[20 - size : 20 + size, 22 - size : 22 + size] = size % 3
    mask[20, 22] = 2
    return mask


def test_rasterized_polygons_are_the_mask(mask):
    features = geojson(mask, NAMES)["features"]
    shapes = [(f["geometry"], f["properties"]["id"]) for f in features]
    assert np.array_equal(rasterize(shapes, mask.shape, fill=255, dtype=np.uint8), mask)
    assert sum(f["properties"]["pixels"] for f in features) == mask.size


def test_pycocotools_draws_the_mask_from_the_coco_file(mask, tmp_path):
    masks = {"deep/a.jpg": mask, "b.png": mask[::2, ::3].copy()}
    for name, ids in masks.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        indexed(ids, []).save(tmp_path / f"{name}.png")
    paths = {name: tmp_path / f"{name}.png" for name in masks}
    write_coco(tmp_path / "coco.json", paths, NAMES)
    coco = COCO(tmp_path / "coco.json")
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == NAMES
    kinds = set()
    for image in coco.loadImgs(coco.getImgIds()):
        expected = masks[image["file_name"]]
        assert (image["height"], image["width"]) == expected.shape
        times = np.zeros(expected.shape, int)
        for annotation in coco.imgToAnns[image["id"]]:
            area = coco.annToMask(annotation) == 1
            rows, columns = np.nonzero(area)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert annotation["bbox"] == box
            assert annotation["area"] == area.sum()
            assert (expected[area] == annotation["category_id"] - 1).all()
            times += area
            kinds.add(type(annotation["segmentation"]))
        assert (times == 1).all()
    assert kinds == {list, dict}


def test_labelme_shapes_in_their_order_cover_holes(mask):
    content = json.loads(json.dumps(labelme(mask, NAMES, "../photos/a.png")))
    assert (content["imagePath"], content["imageData"]) == ("../photos/a.png", None)
    assert (content["imageHeight"], content["imageWidth"]) == mask.shape
    # Pillow also fills the outline. At four times the size it is one quarter of a pixel wide.
    picture = Image.new("L", (4 * mask.shape[1], 4 * mask.shape[0]), 255)
    for shape in content["shapes"]:
        assert shape["shape_type"] == "polygon"
        corners = [(4 * x, 4 * y) for x, y in shape["points"]]
        ImageDraw.Draw(picture).polygon(corners, fill=NAMES.index(shape["label"]))
    assert np.array_equal(np.array(picture)[2::4, 2::4], mask)
