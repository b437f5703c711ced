"""YOLO polygons: folders, lists and labels against pycocotools, and damaged files."""

import numpy as np
import pytest

from tests.data.formats.scenes import (
    NAMES,
    SIZE,
    imported,
    mask,
    objects,
    refused,
    save_photo,
    truth,
)

YAML = "path: ../datasets/set\ntrain: images/train\nval: images/val\nnames: [road, car, tree]\n"


def rows(scene):
    lines = []
    for name, points in scene:
        numbers = " ".join(f"{value:.9f}" for value in (points / SIZE[::-1]).clip(0, 1).ravel())
        lines.append(f"{NAMES.index(name)} {numbers}\n")
    return "".join(lines)


def clipped(seed):
    return [(name, points.clip(0, SIZE[::-1])) for name, points in objects(seed)]


def save_pair(root, name, text, seed=0):
    image = save_photo(root / f"images/{name}.jpg", seed)
    label = root / f"labels/{name}.txt"
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(text)
    return image


def one_image(tmp_path, text, yaml=YAML):
    save_pair(tmp_path / "set", "train/a", text)
    (tmp_path / "set/data.yaml").write_text(yaml)
    return tmp_path / "set"


def test_polygons_of_split_folders(tmp_path):
    source = one_image(tmp_path, rows(objects(0)))
    save_pair(source, "val/b", rows(objects(1)))
    out = imported(source, tmp_path / "out")
    assert (out / "classes.txt").read_text().split() == list(NAMES)
    assert np.mean(mask(out, "train/a.png") == truth(clipped(0))) > 0.99
    assert np.mean(mask(out, "val/b.png") == truth(clipped(1))) > 0.99


def test_roboflow_paths_and_names_as_a_mapping(tmp_path):
    for seed, split in enumerate(("train", "valid")):
        save_pair(tmp_path / f"set/{split}", f"{seed}", rows(objects(seed)))
    (tmp_path / "set/data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n"
        "names:\n  0: road\n  1: car\n  2: tree\nnc: 3\n"
    )
    out = imported(tmp_path / "set", tmp_path / "out")
    assert np.mean(mask(out, "val/1.png") == truth(clipped(1))) > 0.99


def test_lists_of_images_and_missing_labels(tmp_path, capsys):
    source = one_image(tmp_path, rows(objects(0)), YAML.replace("images/train", "train.txt"))
    save_photo(source / "images/b.jpg")
    (source / "train.txt").write_text("./images/train/a.jpg\n\nimages/b.jpg\n")
    out = imported(source, tmp_path / "out")
    assert (mask(out, "train/b.png") == 255).all()
    printed = capsys.readouterr().out
    assert "1 images have no label file: no objects" in printed
    assert "1 images have no labelled pixel: all their pixels are ignored" in printed
    assert "val: images/val does not exist: omitted" in printed


def test_val_that_repeats_train_is_imported_with_a_warning(tmp_path, capsys):
    source = one_image(tmp_path, rows(objects(0)), YAML.replace("images/val", "images/train"))
    out = imported(source, tmp_path / "out")
    assert (mask(out, "train/a.png") == mask(out, "val/a.png")).all()
    assert "1 images are in the splits train and val" in capsys.readouterr().out


def test_boxes_are_drawn_with_a_warning(tmp_path, capsys):
    out = imported(one_image(tmp_path, "1 0.5 0.5 0.25 0.5\n"), tmp_path / "out")
    expected = np.full(SIZE, 255)
    expected[24:72, 48:80] = 1
    assert (mask(out, "train/a.png") == expected).all()
    assert "1 objects have no outline: drawn as boxes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0.1 0.1 0.5 0.5\n5 0.1 0.1 0.2 0.2 0.1 0.2", "line 2 has the unknown class 5"),
        ("0 0.1 0.1 nan 0.2 0.1 0.2", "line 1 has a coordinate outside of 0 to 1"),
        ("0 10 10 20 20 10 20", "line 1 has a coordinate outside of 0 to 1"),
        ("0 0.1 0.1 0.2 0.2 0.1", "line 1 has 6 numbers"),
        ("0 0.1", "line 1 has 2 numbers"),
        ("road 0.1 0.1 0.2 0.2 0.1 0.2", "line 1 is not a row of numbers"),
        ("\udcff\udcfe", "is not UTF-8"),
    ],
)
def test_damaged_labels_are_named_with_their_line(tmp_path, capsys, text, message):
    source = one_image(tmp_path, "")
    (source / "labels/train/a.txt").write_bytes(text.encode("utf-8", "surrogateescape"))
    printed = refused(source, tmp_path, capsys)
    assert "a.txt" in printed and message in printed


@pytest.mark.parametrize("place", ["../..", "/etc", "missing", "../../secret"])
def test_folders_outside_of_the_source_are_not_read(tmp_path, capsys, place):
    save_photo(tmp_path / "secret/a.jpg")
    source = one_image(tmp_path, "", f"train: {place}\nnames: [road]\n")
    assert "none of them has an annotated image" in refused(source, tmp_path, capsys)


def test_list_lines_outside_of_the_source_are_refused(tmp_path, capsys):
    source = one_image(tmp_path, "", "train: train.txt\nnames: [road]\n")
    (source / "train.txt").write_text("../../etc/passwd\n")
    assert "points outside of" in refused(source, tmp_path, capsys)


@pytest.mark.parametrize("names", ["5", "[]", "{a: road}", "[road, '']"])
def test_invalid_names_are_refused(tmp_path, capsys, names):
    message = refused(one_image(tmp_path, "", f"train: images\nnames: {names}\n"), tmp_path, capsys)
    assert "data.yaml" in message or "0 classes" in message


def test_an_alias_bomb_is_refused_at_once(tmp_path, capsys):
    bomb = "a0: &a0 [x, x]\n"
    bomb += "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
    for keys in ("names: *a59\ntrain: images", "names: [road]\ntrain: *a59"):
        message = refused(one_image(tmp_path, "", f"{bomb}{keys}\n"), tmp_path, capsys)
        assert "data.yaml: the key" in message
