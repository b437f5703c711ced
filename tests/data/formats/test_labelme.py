"""LabelMe JSON: shapes against pycocotools and hand-worked pixels, and embedded images."""

import base64
import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    blob,
    coco_pixels,
    imported,
    mask,
    objects,
    refused,
    save_json,
    save_photo,
    truth,
)

ORDER = sorted(NAMES)  # without a labels.txt


def shape(label, points, kind="polygon", **keys):
    return {"label": label, "points": np.asarray(points).tolist(), "shape_type": kind, **keys}


def labelme(shapes, image="a.jpg", **keys):
    size = {"imageHeight": SIZE[0], "imageWidth": SIZE[1]}
    return {"imagePath": image, "imageData": None, "shapes": shapes, **size, **keys}


def one_image(tmp_path, shapes, **keys):
    save_photo(tmp_path / "set/a.jpg")
    save_json(tmp_path / "set/a.json", labelme(shapes, **keys))
    return tmp_path / "set"


def encoded(array):
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_polygons_in_split_folders(tmp_path):
    for seed, split in enumerate(("train", "validation")):
        scene = objects(seed)
        save_photo(tmp_path / f"set/{split}/images/{seed}.jpg", seed)
        content = labelme([shape(*item) for item in scene], f"..\\images\\{seed}.jpg")
        save_json(tmp_path / f"set/{split}/labels/{seed}.json", content)
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (out / "classes.txt").read_text().split() == ORDER
    assert np.mean(mask(out, "train/0.png") == truth(objects(0), ORDER)) > 0.99
    assert np.mean(mask(out, "val/1.png") == truth(objects(1), ORDER)) > 0.99


def test_outlines_differ_from_labelmes_own_rule_by_their_pixels_only(tmp_path):
    """LabelMe's ImageDraw also fills the pixels that the outline touches."""
    points = objects(0)[1][1]
    out = imported(one_image(tmp_path, [shape("car", points)]), tmp_path / "out")
    drawn = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(drawn).polygon([tuple(point) for point in points], outline=1, fill=1)
    ours, theirs = mask(out, "a.png") == 0, np.asarray(drawn)
    line = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(line).line([tuple(p) for p in (*points, points[0])], fill=1, width=3)
    assert not (ours ^ theirs)[~np.asarray(line)].any()
    assert ours.sum() < theirs.sum()


def test_rectangles_circles_and_masks_have_hand_worked_pixels(tmp_path):
    patch = blob(1, (20, 30))
    shapes = [
        shape("tree", [[30, 50], [10, 20]], "rectangle"),
        shape("car", [[80.5, 40.5], [83.5, 44.5]], "circle"),
        shape("road", [[90, 70], [119, 89]], "mask", mask=encoded(patch)),
    ]
    out = imported(one_image(tmp_path, shapes), tmp_path / "out")
    rows, columns = np.indices(SIZE)
    expected = np.full(SIZE, 255)
    expected[20:50, 10:30] = ORDER.index("tree")
    expected[(columns - 80) ** 2 + (rows - 40) ** 2 <= 25] = ORDER.index("car")
    expected[70:90, 90:120][patch] = ORDER.index("road")
    assert (mask(out, "a.png") == expected).all()


def test_labels_txt_orders_the_classes_and_ignores_a_label(tmp_path):
    square = [[0, 0], [20, 0], [20, 20], [0, 20]]
    source = one_image(tmp_path, [shape("__ignore__", square), shape("car", np.add(square, 30))])
    (source / "labels.txt").write_text("__ignore__\n_background_\nroad\ncar\n")
    out = imported(source, tmp_path / "out", "--unlabelled", "background")
    assert (out / "classes.txt").read_text() == "_background_\nroad\ncar\n"
    ids = mask(out, "a.png")
    assert (ids[:20, :20] == 255).all() and (ids[30:50, 30:50] == 2).all() and ids[60, 60] == 0


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_an_embedded_image_replaces_a_missing_file(tmp_path, kind):
    file = io.BytesIO()
    save_photo(tmp_path / "photo.png")
    Image.open(tmp_path / "photo.png").save(file, kind)
    data = base64.b64encode(file.getvalue()).decode()
    save_json(
        tmp_path / "set/b.json", labelme([shape(*objects(0)[0])], "gone/x.bmp", imageData=data)
    )
    out = imported(tmp_path / "set", tmp_path / "out")
    suffix = {"PNG": ".png", "JPEG": ".jpg"}[kind]
    assert (out / f"images/b{suffix}").read_bytes() == file.getvalue()
    assert np.mean((mask(out, "b.png") == 0) == coco_pixels(objects(0)[0][1])) > 0.99


def test_points_and_lines_are_omitted_with_a_warning(tmp_path, capsys):
    shapes = [shape("dot", [[1, 2]], "point"), shape("way", [[1, 2], [3, 4]], "linestrip")]
    out = imported(
        one_image(tmp_path, [shape("car", [[0, 0], [9, 0], [9, 9]]), *shapes]), tmp_path / "out"
    )
    assert (out / "classes.txt").read_text() == "car\n"
    printed = capsys.readouterr().out
    assert "1 shapes of the kind point: omitted" in printed and "linestrip" in printed


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("stored", [False, True])
def test_turned_photos_have_masks_of_the_annotated_orientation(tmp_path, orientation, stored):
    """Tools show the upright picture, 128x96 here; a size of 96x128 means the stored one."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    save_photo(tmp_path / "set/a.jpg", exif=exif)
    size = SIZE if stored or orientation == 3 else SIZE[::-1]
    corner = shape("car", [[0, 0], [10, 0], [10, 5], [0, 5]])
    content = labelme([corner]) | {"imageHeight": size[0], "imageWidth": size[1]}
    save_json(tmp_path / "set/a.json", content)
    ids = mask(imported(tmp_path / "set", tmp_path / "out"), "a.png")
    assert ids.shape == size and (ids[:5, :10] == 0).all() and (ids == 0).sum() == 50


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"shapes": [shape("car", [[0, 0], [1, float("inf")], [2, 2]])]}, "inf"),
        ({"shapes": [shape("car", [[0, 0], [1, 1]])]}, "has 2 points"),
        ({"shapes": [shape(None, [[0, 0]])]}, '"label"'),
        ({"shapes": [{"label": "car"}]}, '"points"'),
        ({"shapes": [shape("a\nb", [[0, 0], [1, 1], [2, 0]])]}, "a class has the name"),
        ({"shapes": 5}, '"shapes"'),
        ({"shapes": [shape("car", [[0, 0]], {})]}, "has 1 points"),
        ({"shapes": [shape("car", [[0, 0], [1, 1]], "mask", mask="?")]}, "invalid base64"),
        ({"shapes": [shape("c", [[120, 90], [1, 1]], "mask", mask=encoded(blob(0)))]}, "not fit"),
        ({"imagePath": "../../etc/passwd"}, "points outside of"),
        ({"imagePath": "b.jpg", "imageData": "AAAA"}, "cannot be read"),
        ({"imagePath": "b.jpg", "imageData": "%"}, "invalid base64"),
        ({"imageHeight": 5}, "its annotation is for 5x128 pixels"),
    ],
)
def test_damaged_files_are_named_and_nothing_is_written(tmp_path, capsys, keys, text):
    shapes = [shape("car", [[0, 0], [9, 0], [9, 9]])]
    source = one_image(tmp_path, shapes)
    save_json(source / "a.json", labelme(shapes) | keys)
    message = refused(source, tmp_path, capsys, "--format", "labelme")
    assert "a.json" in message and text in message
