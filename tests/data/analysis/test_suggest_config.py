"""Suggested config of `hrseg init`: it trains on its folder, and the errors of bad folders."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from hrseg.config.loader import load_config, to_dict
from hrseg.data import Folder
from hrseg.data.analysis.suggest_config import inspect_folder, write_config
from hrseg.errors import DataError
from tests.conftest import save_image
from tests.paths import CAMVID

RNG = np.random.default_rng(0)
ROAD, CAR, SKY = (128, 64, 128), (0, 0, 142), (70, 130, 180)


def dataset(root, ids=(0, 1, 2), count=10, size=(70, 100), split=""):
    for index in range(count):
        save_image(root / f"images/{split}{index}.jpg", RNG.integers(0, 256, (*size, 3), np.uint8))
        save_image(root / f"masks/{split}{index}.png", RNG.choice(np.array(ids, np.uint8), size))
    return root


def configured(root, tmp_path):
    """Return findings, the written text, and the data set of the config, checked."""
    findings = inspect_folder(root)
    text = write_config(findings)
    path = tmp_path / "written.yaml"
    path.write_text(text, encoding="utf-8")
    config = load_config(path)
    assert config.inference.pad_multiple == 32
    arguments = to_dict(config.data)
    assert arguments.pop("name") == "folder"
    data = Folder(**arguments, seed=config.seed)
    data.check()
    return findings, text, data


def test_index_masks_in_one_place(tmp_path):
    _, text, data = configured(dataset(tmp_path / "my set"), tmp_path)
    assert data.class_names == ("class_0", "class_1", "class_2")
    assert len(data.train_dataset) == 8 and len(data.val_dataset) == 2
    assert 'name: "my set"' in text
    assert "# 10 images with masks: 20% of them held out" in text
    assert "class_0  # id 0, 33." in text


def test_split_folders_with_gaps_in_the_ids(tmp_path):
    root = dataset(tmp_path / "set", (7, 11, 255), count=3, split="train/")
    dataset(root, (7, 11, 255), count=2, split="val/")
    findings, text, data = configured(root, tmp_path)
    assert len(data.train_dataset) == 3 and len(data.val_dataset) == 2
    assert set(np.unique(data.val_dataset[0]["mask"])) == {0, 1, 255}
    assert findings.settings.batch_size == 3
    assert "id_map: {7: 0, 11: 1}" in text and "train 3, val 2" in text


def test_colour_masks(tmp_path):
    root = tmp_path / "set"
    colors = np.array([SKY, ROAD, CAR], np.uint8)
    for index in range(5):
        save_image(root / f"images/{index}.png", RNG.integers(0, 256, (40, 50, 3), np.uint8))
        save_image(root / f"masks/{index}.png", colors[RNG.choice(3, (40, 50), p=[0.6, 0.3, 0.1])])
    _, text, data = configured(root, tmp_path)
    assert data.palette == (CAR, SKY, ROAD)
    assert "mask_format: rgb" in text and "class_0  # colour (0, 0, 142), " in text


def test_class_names_and_colours_come_from_classes_json(tmp_path):
    root = dataset(tmp_path / "set", (0, 1, 2))
    names = ["a: b", "#1", "void"]
    content = {"classes": names, "palette": [SKY, ROAD, CAR]}
    (root / "classes.json").write_text(json.dumps(content))
    _, _, data = configured(root, tmp_path)
    assert data.class_names == ("a: b", "#1") and data.palette == (SKY, ROAD)
    assert set(np.unique(data.val_dataset[0]["mask"])) == {0, 1, 255}


@pytest.mark.skipif(not CAMVID.is_dir(), reason="no CamVid here")
def test_camvid(tmp_path):
    findings, text, data = configured(CAMVID, tmp_path)
    assert (len(data.train_dataset), len(data.val_dataset)) == (367, 101)
    assert findings.classes.keys == list(range(12)) and findings.settings.crop_size == (256, 256)
    assert "360x480" in text


def test_warnings_are_in_the_header(tmp_path):
    root = dataset(tmp_path / "set", count=4, size=(200, 200))
    save_image(root / "images/unpaired.jpg", np.zeros((200, 200, 3), np.uint8))
    save_image(root / "masks/3.png", np.zeros((30, 40), np.uint8))
    mask = np.zeros((200, 200), np.uint8)
    mask[0, :3] = 3
    save_image(root / "masks/1.png", mask)
    (root / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    lines = write_config(inspect_folder(root)).splitlines()
    warnings = [line for line in lines if line.startswith("# WARNING: ")]
    expected = ("unpaired.jpg", "3.png", "too few", "masks: e", "rare")
    for words in expected:
        assert sum(words in line for line in warnings) == 1, words
    assert len(warnings) == len(expected)


def test_jpeg_masks_are_refused_with_the_fix(tmp_path):
    for index in range(3):
        save_image(tmp_path / f"images/{index}.jpg", np.zeros((40, 40, 3), np.uint8))
        save_image(tmp_path / f"masks/{index}.jpg", np.zeros((40, 40), np.uint8))
    with pytest.raises(DataError, match=r"3 are JPEG.*\n.*PNG"):
        inspect_folder(tmp_path)


def test_only_a_sample_of_many_masks_is_read(tmp_path):
    findings = inspect_folder(dataset(tmp_path, count=12, size=(8, 8)), sample=4)
    assert len(findings.survey.sizes) == 4


@pytest.mark.parametrize("name", ["a\nmodel: {weights: evil}", "a\x1b[2J", "a\udcff"])
def test_a_folder_name_cannot_inject_lines_into_the_config(name, tmp_path):
    root = tmp_path / name
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
        Image.fromarray(np.eye(40, dtype=np.uint8)).save(root / kind / "a.png")
    with pytest.raises(DataError, match="a config cannot contain this name"):
        write_config(inspect_folder(root))


def test_both_readings_of_id_0_and_the_ignored_share_are_in_the_config(tmp_path):
    root = dataset(tmp_path / "set", (0, 1, 2, 255))
    _, text, _ = configured(root, tmp_path)
    assert re.search(r"3 classes, ignored ids: 255 \(2\d\.\d+% of", text)
    assert re.search(r"Id 0 \(2\d\.\d+% of the pixels\) is read as a class", text)
    other = text.replace("    - class_0", "#").replace("  id_map: null", "#")
    other = other.replace("  ignore_ids: [255]", "#").replace("  # id_map: {1", "  id_map: {1")
    other = other.replace("  # ignore_ids: [0", "  ignore_ids: [0")
    (tmp_path / "other.yaml").write_text(other)
    read = load_config(tmp_path / "other.yaml").data
    assert list(read.class_names) == ["class_1", "class_2"]
    assert (dict(read.id_map), list(read.ignore_ids)) == ({1: 0, 2: 1}, [0, 255])


@pytest.mark.parametrize(
    "lines",
    ["1 wall\n2 floor\n3 tree", "Idx\tRatio\tName\n1\t0.15\twall\n2\t.1\tfloor\n3\t0.1\ttree"],
)
def test_names_numbered_from_1_make_0_unlabelled(tmp_path, lines):
    root = dataset(tmp_path / "set", (0, 1, 2, 3))
    (root / "objectInfo150.txt").write_text(lines)
    _, text, data = configured(root, tmp_path)
    assert data.class_names == ("wall", "floor", "tree") and "ignore_ids: [0, 255]" in text
    assert set(np.unique(data.val_dataset[0]["mask"])) == {0, 1, 2, 255}
    assert "is read as a class" not in text


def test_exif_and_a_mask_without_permission_are_in_the_header(tmp_path, monkeypatch):
    root = dataset(tmp_path / "set", count=3)
    exif = Image.Exif()
    exif[0x0112] = 3
    Image.open(root / "images/0.jpg").save(root / "images/0.jpg", exif=exif)
    assert "# WARNING: 1 images turned upright by their EXIF" in write_config(inspect_folder(root))
    open_image = Image.open

    def denied(path, *arguments, **options):
        if str(path).endswith("masks/1.png"):
            raise PermissionError(13, "Permission denied", str(path))
        return open_image(path, *arguments, **options)

    monkeypatch.setattr("PIL.Image.open", denied)
    text = write_config(inspect_folder(root))
    assert (
        "1 files that cannot be read" in text
        and "masks/1.png cannot be read: Permission denied" in text
    )


def test_the_error_of_a_name_unreadable_in_the_locale_has_the_fix(tmp_path):
    root = dataset(tmp_path / "set", count=2)
    findings = inspect_folder(root)
    findings.root = root / "k\udcc3\udcb6ln"  # UTF-8 bytes under an ASCII locale
    with pytest.raises(DataError, match=r"locale cannot read this name[\s\S]*LC_ALL=C.UTF-8"):
        write_config(findings)
