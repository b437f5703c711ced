"""Roboflow semantic masks and CSV pairs: ids, class names and damaged tables."""

import numpy as np
import pytest
from PIL import Image

from tests.conftest import save_image
from tests.data.formats.scenes import imported, mask, refused, save_photo
from tests.trees import blocks

SIZE = (40, 60)


def save_pair(folder, name, ids, suffix="_mask", seed=0):
    save_photo(folder / f"{name}.jpg", seed, SIZE)
    save_image(folder / f"{name}{suffix}.png", blocks(SIZE, ids, seed))


def roboflow(folder, name="a", ids=(0, 3, 7), classes="0, background\n3, road\n7, car\n"):
    save_pair(folder, name, ids)
    (folder / "_classes.csv").write_text(f"Pixel Value, Class\n{classes}")
    return folder


def csv_pairs(root, table, ids=(0, 1, 2)):
    save_pair(root, "a", ids)
    (root / "pairs.csv").write_text(table)
    return root


def test_roboflow_masks_keep_their_classes_in_all_splits(tmp_path):
    roboflow(tmp_path / "set/train")
    roboflow(tmp_path / "set/valid", "b", (0, 3), "0, background\n3, car\n")
    out = imported(tmp_path / "set", tmp_path / "out")
    assert (out / "classes.txt").read_text() == "background\nroad\ncar\n"
    table = np.zeros(8, int)
    table[[3, 7]] = 1, 2
    assert (mask(out, "train/a.png") == table[blocks(SIZE, (0, 3, 7), 0)]).all()
    assert (mask(out, "val/b.png") == np.where(blocks(SIZE, (0, 3), 0), 2, 0)).all()


def test_roboflow_faults_are_named(tmp_path, capsys):
    source = roboflow(tmp_path / "set", ids=(0, 3, 9))
    assert "the mask has the unknown value 9" in refused(source, tmp_path, capsys)
    save_photo(source / "b.jpg")
    assert "the image b.jpg has no mask b_mask.png" in refused(source, tmp_path, capsys)
    roboflow(source, classes="0, background\n300, road\n")
    assert "line 3 is not a pixel value and a class" in refused(source, tmp_path, capsys)


@pytest.mark.parametrize(
    "table",
    [
        "image,mask\na.jpg,a_mask.png\n",
        "a.jpg;a_mask.png\n",
        "\ufeffMask\tImage\na_mask.png\ta.jpg\n",
    ],
)
def test_csv_pairs_with_and_without_a_header(tmp_path, table):
    source = csv_pairs(tmp_path / "set", table)
    (source / "classes.txt").write_text("sky\nroad\ncar\n")
    out = imported(source, tmp_path / "out")
    assert (mask(out, "a.png") == blocks(SIZE, (0, 1, 2), 0)).all()
    assert (out / "classes.txt").read_text() == "sky\nroad\ncar\n"


def test_csv_splits_and_missing_names(tmp_path, capsys):
    source = csv_pairs(
        tmp_path / "set", "image,mask,split\na.jpg,a_mask.png,train\nb.jpg,b.png,val\n"
    )
    save_pair(source, "b", (0, 4, 255), "")
    out = imported(source, tmp_path / "out")
    assert (out / "classes.txt").read_text().split() == [f"class_{i}" for i in range(5)]
    assert (mask(out, "val/b.png") == blocks(SIZE, (0, 4, 255), 0)).all()
    assert "no classes.txt: the 5 classes are named" in capsys.readouterr().out


def test_binary_masks_are_background_and_foreground(tmp_path):
    source = csv_pairs(tmp_path / "set", "image,mask\na.jpg,a_mask.png\n", (0, 255))
    out = imported(source, tmp_path / "out")
    assert (out / "classes.txt").read_text() == "background\nforeground\n"
    assert (mask(out, "a.png") == (blocks(SIZE, (0, 255), 0) > 0)).all()


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ("a.jpg,../../etc/passwd", "points outside of"),
        ("a.jpg,c.png", "'c.png' does not exist in"),
        ("a.jpg", "line 2 has 1 columns"),
        ("a.jpg,rgb.png", "is a coloured image"),
        ("a.jpg,small.png", "have 5x5 and 40x60 pixels"),
        ("a.jpg,a_mask.png\na.jpg,a_mask.png", "has two annotations"),
    ],
)
def test_csv_faults_are_named(tmp_path, capsys, row, text):
    source = csv_pairs(tmp_path / "set", f"image,mask\n{row}\n")
    save_photo(source / "rgb.png")
    Image.new("L", (5, 5)).save(source / "small.png")
    (source / "classes.txt").write_text("a\nb\nc\n")
    assert text in refused(source, tmp_path, capsys)
