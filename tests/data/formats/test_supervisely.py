"""Supervisely projects: polygons with holes, bitmaps, splits, and damaged or hostile files."""

import base64
import io
import json
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    blob,
    coco_pixels,
    imported,
    mask,
    objects,
    painted,
    refused,
    save_json,
    save_photo,
    truth,
)

LARGE = (600, 800)
META = {
    "classes": [
        {"title": name, "shape": "any", "color": f"#0000{16 * i:02X}"}
        for i, name in enumerate(NAMES)
    ],
    "tags": [{"name": "val", "value_type": "none"}],
}


def polygon(points, label="car", holes=()):
    points = {"exterior": np.asarray(points).tolist(), "interior": [h.tolist() for h in holes]}
    return {"classTitle": label, "geometryType": "polygon", "points": points}


def png(picture, **options):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def packed(data):
    return base64.b64encode(zlib.compress(data)).decode()


def bitmap(pixels, label="car", mode="P", data=None):
    """Return a bitmap cropped to its extent, as a palette, RGBA or 1-bit PNG."""
    (top, left), (bottom, right) = np.argwhere(pixels).min(0), np.argwhere(pixels).max(0) + 1
    crop = pixels[top:bottom, left:right]
    if mode == "RGBA":
        values = np.zeros((*crop.shape, 4), np.uint8)
        values[..., 0], values[..., 3] = 9, crop * 255
        content = png(Image.fromarray(values))
    elif mode == "P":
        picture = Image.fromarray(crop.astype(np.uint8), mode="P")
        picture.putpalette([0, 0, 0, 255, 255, 255])
        content = png(picture, transparency=0)
    else:
        content = png(Image.fromarray(crop))
    area = {"data": packed(content) if data is None else data, "origin": [int(left), int(top)]}
    return {"classTitle": label, "geometryType": "bitmap", "bitmap": area}


def add(project, items, name="a.jpg", folder="ds", size=SIZE, **keys):
    size_keys = {"height": size[0], "width": size[1]}
    content = {"description": "", "tags": [], "size": size_keys, "objects": items, **keys}
    save_photo(project / folder / "img" / name, size=size)
    save_json(project / folder / "ann" / f"{name}.json", content)


def source_of(tmp_path, items, size=SIZE, meta=META):
    save_json(tmp_path / "set/meta.json", meta)
    add(tmp_path / "set", items, size=size)
    return tmp_path / "set"


def drawn(tmp_path, items, size=SIZE):
    return mask(imported(source_of(tmp_path, items, size), tmp_path / "out"), "a.png")


def test_polygons_have_the_pixels_of_pycocotools(tmp_path):
    scene = objects(2, LARGE, (280, 190, 120, 75, 45))
    ids = drawn(tmp_path, [polygon(points, name) for name, points in scene], LARGE)
    equal = np.mean(ids == truth(scene, size=LARGE))
    print(f"equal pixels: {equal:.4%}")
    assert equal >= 0.999


def test_integers_are_centres_of_pixels(tmp_path):
    points = np.array([(100, 50), (700, 90), (400, 550)])
    box = {"exterior": [[30, 400], [10, 380]], "interior": []}
    rectangle = {"classTitle": "tree", "geometryType": "rectangle", "points": box}
    ids = drawn(tmp_path, [polygon(points), rectangle], LARGE)
    assert np.mean((ids == 1) == coco_pixels(points + 0.5, LARGE)) >= 0.999
    assert (ids[380:401, 10:31] == 2).all() and (ids == 2).sum() == 21 * 21


def test_interior_rings_are_holes(tmp_path):
    outer = np.array([(10, 10), (90, 10), (90, 80), (10, 80)]) + 0.25
    hole = np.array([(30, 30), (50, 30), (50, 60), (30, 60)]) + 0.25
    ids = drawn(tmp_path, [polygon(outer, holes=[hole])])
    expected = np.full(SIZE, 255)
    expected[10:80, 10:90] = 1
    expected[30:60, 30:50] = 255
    assert np.array_equal(ids, expected)


@pytest.mark.parametrize("mode", ["P", "RGBA", "1"])
def test_bitmaps_are_exact(tmp_path, mode):
    layers = [blob(4), blob(5) & ~blob(6)]
    items = [bitmap(pixels, name, mode) for name, pixels in zip(NAMES, layers, strict=False)]
    assert np.array_equal(drawn(tmp_path, items), painted(enumerate(layers)))


def test_data_sets_and_tags_are_splits(tmp_path, capsys):
    project = tmp_path / "set/project"
    save_json(project / "meta.json", META)
    point = {"classTitle": "car", "geometryType": "point", "points": {"exterior": [[1, 2]]}}
    add(project, [bitmap(blob(4)), point], folder="train")
    add(project, [], "b.png", folder="photos", tags=[{"name": "val"}])
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (mask(out, "train/a.png") == np.where(blob(4), 1, 255)).all()
    assert (mask(out, "val/b.png") == 255).all()
    with Image.open(out / "masks/train/a.png") as picture:
        assert picture.getpalette()[:9] == [0, 0, 0, 0, 0, 16, 0, 0, 32]
    assert "1 objects of the type 'point' were left out" in capsys.readouterr().out


def huge_png():
    return png(Image.new("1", (9_000, 9_000)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": "%%%"}, "the bitmap of object 1 cannot be read"),
        ({"data": packed(b"\x89PNG")[:-6] + "==="}, "cannot be read"),
        ({"data": base64.b64encode(zlib.compress(b"x" * 999)[:9]).decode()}, "it is cut off"),
        ({"data": packed(b"no picture")}, "cannot identify image file"),
        ({"data": packed(bytes(2**28))}, "it is larger than its image"),
        ({"data": packed(huge_png())}, "it has 9000x9000 pixels"),
        ({"data": packed(png(Image.new("RGB", (9, 9))))}, "it has colours (RGB)"),
        ({"data": 7}, 'the key "data" of object 1 has the value 7'),
        ({"origin": [120, 90]}, "does not fit into its image"),
        ({"origin": [1, 2, 3, 4]}, 'has 2 points as "origin"'),
    ],
)  # fmt: skip
def test_damaged_bitmaps_are_named(tmp_path, capsys, change, message):
    item = bitmap(blob(4))
    item["bitmap"] |= change
    text = refused(source_of(tmp_path, [item]), tmp_path, capsys)
    assert "a.jpg.json: " in text and message in text


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (polygon([(1, 2), (3, 4)]), "object 1 has 2 points"),
        (polygon([(1, 2), (3, float("nan")), (5, 6)]), "coordinates [3.0, nan]"),
        (polygon([(1, 2), (3, 4), (5, 9)], "bus"), "unknown class 'bus'"),
        ({**polygon([(1, 2), (3, 4), (5, 9)]), "points": {"exterior": 3}}, '"exterior" of object'),
        ({"classTitle": "car", "geometryType": 3}, '"geometryType" of an object'),
        ("car", '"geometryType" of an object is missing'),
    ],
)
def test_damaged_objects_are_named(tmp_path, capsys, item, message):
    assert message in refused(source_of(tmp_path, [item]), tmp_path, capsys)


def test_damaged_projects_are_named(tmp_path, capsys):
    source = source_of(tmp_path, [])
    annotation = source / "ds/ann/a.jpg.json"
    (source / "ds/img/a.jpg").rename(source / "ds/img/b.jpg")
    assert "the image 'a.jpg' does not exist" in refused(source, tmp_path, capsys)
    annotation.write_text(json.dumps({"size": {"height": 1}, "objects": []}))
    assert 'the key "width" of "size" is missing' in refused(source, tmp_path, capsys)
    annotation.write_text("{")
    assert "invalid JSON in line 1" in refused(source, tmp_path, capsys)
    save_json(source / "meta.json", {"classes": [{"title": 3}]})
    assert 'the key "title" of a class' in refused(source, tmp_path, capsys)
