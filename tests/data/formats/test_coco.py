"""COCO JSON: polygons and run lengths against pycocotools, splits, and damaged files."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from hrseg.data.formats.coco import decompressed
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
    star,
    truth,
)

CATEGORIES = [{"id": 10 * i + 7, "name": name} for i, name in enumerate(NAMES)]
ID = {row["name"]: row["id"] for row in CATEGORIES}


def polygons(scene, image=1):
    return [
        {"image_id": image, "category_id": ID[name], "segmentation": [points.ravel().tolist()]}
        for name, points in scene
    ]


def coco(images, annotations, categories=CATEGORIES, size=SIZE):
    rows = [
        {"id": key, "file_name": name, "height": size[0], "width": size[1]}
        for key, name in images.items()
    ]
    return {"images": rows, "annotations": annotations, "categories": categories}


def one_image(tmp_path, annotations, **arguments):
    """Write a folder with one image `a.jpg` and its objects."""
    save_photo(tmp_path / "set/images/a.jpg")
    save_json(tmp_path / "set/labels.json", coco({1: "a.jpg"}, annotations, **arguments))
    return tmp_path / "set"


def rle(pixels, category="car", compressed=True, **keys):
    encoded = coco_mask.encode(np.asfortranarray(pixels.astype(np.uint8)))
    counts = encoded["counts"].decode()
    counts = counts if compressed else decompressed(counts).tolist()
    outline = {"size": list(pixels.shape), "counts": counts}
    return {"image_id": 1, "category_id": ID[category], "segmentation": outline, **keys}


def test_polygons_have_the_pixels_of_pycocotools(tmp_path):
    size = (480, 640)
    scenes = {key: objects(key, size, (220, 150, 100, 60, 30)) for key in range(4)}
    for key in scenes:
        save_photo(tmp_path / f"set/{key}.jpg", key, size)
    annotations = [item for key, scene in scenes.items() for item in polygons(scene, key)]
    names = {key: f"{key}.jpg" for key in scenes}
    save_json(tmp_path / "set/all.json", coco(names, annotations, size=size))
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (out / "classes.txt").read_text() == "road\ncar\ntree\n"
    for key, scene in scenes.items():
        assert np.mean(mask(out, f"{key}.png") == truth(scene, size=size)) >= 0.999


@pytest.mark.parametrize("compressed", [True, False])
def test_run_lengths_are_exact(tmp_path, compressed):
    pixels = blob(3)
    out = imported(one_image(tmp_path, [rle(pixels, compressed=compressed)]), tmp_path / "out")
    assert (mask(out, "a.png") == np.where(pixels, 1, 255)).all()


def test_compressed_run_lengths_equal_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(200):
        pixels = rng.random(rng.integers(1, 200, 2)) < rng.random() ** 3
        counts = decompressed(
            coco_mask.encode(np.asfortranarray(pixels, np.uint8))["counts"].decode()
        )
        bits = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
        assert (bits == pixels.ravel(order="F")).all()


def test_crowds_are_ignored_below_other_objects(tmp_path):
    crowd, car = np.zeros(SIZE, bool), np.zeros(SIZE, bool)
    crowd[10:20, 10:20], car[12:50, 15:60] = True, True
    source = one_image(tmp_path, [rle(car), rle(crowd, "tree", iscrowd=1)])
    out = imported(source, tmp_path / "out", "--unlabelled", "background")
    expected = np.zeros(SIZE, np.uint8)
    expected[crowd] = 255
    expected[car] = 2  # background, road, car, tree
    assert (mask(out, "a.png") == expected).all()


def test_parts_of_an_object_are_joined(tmp_path):
    first = np.array([[10, 10], [40, 10], [40, 40], [10, 40]])
    item = polygons([("car", first)])[0]
    item["segmentation"].append((first + 15).ravel().tolist())
    pixels = np.zeros(SIZE, bool)
    pixels[10:40, 10:40] = pixels[25:55, 25:55] = True
    out = imported(one_image(tmp_path, [item]), tmp_path / "out")
    assert (mask(out, "a.png") == np.where(pixels, 1, 255)).all()


def test_official_layout_with_one_file_per_split(tmp_path):
    for seed, split in enumerate(("train2017", "val2017")):
        save_photo(tmp_path / f"set/{split}/a.jpg", seed)
        content = coco({1: "a.jpg"}, polygons(objects(seed)))
        save_json(tmp_path / f"set/annotations/instances_{split}.json", content)
        content["annotations"] = [{"image_id": 1, "caption": "a road", "categories": 0}]
        save_json(tmp_path / f"set/annotations/captions_{split}.json", content)
    out = imported(tmp_path / "set", tmp_path / "out")
    for seed, split in enumerate(("train", "val")):
        assert np.mean(mask(out, f"{split}/a.png") == truth(objects(seed))) > 0.99
        photo = (tmp_path / f"set/{split}2017/a.jpg").read_bytes()
        assert (out / f"images/{split}/a.jpg").read_bytes() == photo


def test_roboflow_folders_and_its_parent_category(tmp_path, capsys):
    categories = [{"id": 0, "name": "set", "supercategory": "none"}]
    categories += [{**row, "supercategory": "set"} for row in CATEGORIES]
    for split in ("train", "valid", "test"):
        save_photo(tmp_path / f"set/{split}/{split}.jpg")
        content = coco({1: f"{split}.jpg"}, polygons(objects(1)), categories)
        save_json(tmp_path / f"set/{split}/_annotations.coco.json", content)
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (out / "classes.txt").read_text() == "road\ncar\ntree\n"
    assert sorted(path.name for path in (out / "images").iterdir()) == ["test", "train", "val"]
    assert "the category 'set' is the parent of others" in capsys.readouterr().out


def test_boxes_are_drawn_with_a_warning(tmp_path, capsys):
    item = {"image_id": 1, "category_id": ID["tree"], "segmentation": [], "bbox": [10, 20, 30, 40]}
    out = imported(one_image(tmp_path, [item]), tmp_path / "out")
    pixels = np.zeros(SIZE, bool)
    pixels[20:60, 10:40] = True
    assert (mask(out, "a.png") == np.where(pixels, 2, 255)).all()
    assert "1 of 1 objects have no outline: drawn as boxes" in capsys.readouterr().out


SQUARE = [1, 1, 9, 1, 9, 9, 1, 9]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"segmentation": [[1, 1, float("nan"), 5, 8, 8]]}, "nan"),
        ({"segmentation": [[1, 1, 1e300, 5, 8, 8]]}, "1e+300"),
        ({"segmentation": [[1, 1, "x", 5, 8, 8]]}, "not pairs of numbers"),
        ({"segmentation": [[1, 1, 5, 5]]}, "has 2 points"),
        ({"segmentation": [[1, 1, 5, 5, 8]]}, "not pairs of numbers"),
        ({"segmentation": {"size": [5, 5], "counts": [25]}}, "for the size [5, 5]"),
        ({"segmentation": {"size": list(SIZE), "counts": [7, 9]}}, "for 16 pixels"),
        ({"segmentation": {"size": list(SIZE), "counts": [-1, SIZE[0] * SIZE[1] + 1]}}, "invalid"),
        ({"segmentation": {"size": list(SIZE), "counts": "52203"}}, "for 16 pixels"),
        ({"segmentation": {"size": list(SIZE), "counts": "oooooooooooo"}}, "invalid run lengths"),
        ({"segmentation": {"size": list(SIZE), "counts": "\u00e9"}}, "invalid run lengths"),
        ({"segmentation": 5}, "invalid segmentation"),
        ({"segmentation": []}, "neither an outline nor a box"),
        ({"category_id": 999}, "unknown category_id 999"),
        ({"category_id": None}, "category_id"),
        ({"image_id": [1]}, "image_id"),
    ],
)
def test_damaged_objects_are_named_and_nothing_is_written(tmp_path, capsys, change, text):
    item = {"image_id": 1, "category_id": 7, "segmentation": [SQUARE], **change}
    message = refused(one_image(tmp_path, [item]), tmp_path, capsys)
    assert "labels.json" in message and text in message


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\secret.jpg", "b.jpg"])
def test_images_outside_of_the_source_are_refused(tmp_path, capsys, name):
    save_photo(tmp_path / "secret.jpg")
    source = one_image(tmp_path, [])
    save_json(source / "labels.json", coco({1: name}, []))
    message = refused(source, tmp_path, capsys)
    assert ("does not exist in" if name == "b.jpg" else "points outside of") in message


def test_invalid_json_is_refused_with_its_line(tmp_path, capsys):
    source = one_image(tmp_path, [])
    (source / "labels.json").write_text('{"images": [],\n"annotations": [], "categories": ]}')
    assert "line 2, column 34" in refused(source, tmp_path, capsys)
    (source / "labels.json").write_text('{"images": 1, "annotations": [], "categories": []}')
    assert 'the key "images" of the file has the value 1' in refused(source, tmp_path, capsys)
    (source / "labels.json").write_text('"images" "annotations" "categories"' + "[" * 100_000)
    assert "invalid JSON" in refused(source, tmp_path, capsys)


def test_a_category_with_an_odd_parent_is_read(tmp_path):
    categories = [{**row, "supercategory": ["x"]} for row in CATEGORIES]
    assert imported(one_image(tmp_path, [], categories=categories), tmp_path / "out")


def test_an_image_of_another_size_is_refused(tmp_path, capsys):
    source = one_image(tmp_path, [])
    save_photo(source / "images/a.jpg", size=(48, 64))
    message = refused(source, tmp_path, capsys)
    assert "has 48x64 pixels, but its annotation is for 96x128 pixels" in message


def test_more_than_254_classes_are_refused(tmp_path, capsys):
    categories = [{"id": key, "name": f"name {key}"} for key in range(255)]
    source = one_image(tmp_path, [], categories=categories)
    assert "255 classes" in refused(source, tmp_path, capsys)
    imported(one_image(tmp_path, [], categories=categories[:254]), tmp_path / "out")
    source = one_image(tmp_path, [], categories=categories[:254])
    assert "255 classes" in refused(source, tmp_path, capsys, "--unlabelled", "background")


def test_smaller_objects_lie_over_larger_ones_in_any_order(tmp_path):
    rng = np.random.default_rng(5)
    large, small = (rng.uniform(size=2) + star(rng, (1, 1), r) + 40 for r in (35, 9))
    expected = painted([(0, coco_pixels(large)), (1, coco_pixels(small))])
    pair = [("road", large), ("car", small)]
    for index, scene in enumerate((pair, pair[::-1])):
        source = one_image(tmp_path / str(index), polygons(scene))
        out = imported(source, tmp_path / f"out{index}")
        assert np.mean(mask(out, "a.png") == expected) > 0.99
