"""Discovery of folder layouts from the names of files and folders."""

import os
from pathlib import Path

import numpy as np
import pytest

from hrseg.data.analysis.folder_layout import find_layout
from hrseg.errors import DataError
from tests.conftest import save_image

PHOTO = np.random.default_rng(0).integers(0, 256, (20, 24, 3), np.uint8)
MASK = np.zeros((20, 24), np.uint8)


def put(root, *names):
    """Write photos, which end in .jpg, and masks, which end in .png."""
    for name in names:
        save_image(root / name, PHOTO if name.endswith(".jpg") else MASK)


def words(layout):
    counts = [len(pairs) for pairs in layout.pairs.values()]
    return layout.image_folder, layout.mask_folder, layout.names.mask_suffix, layout.splits, counts


SPLITS = ("train", "val")


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("images/{}.jpg", "masks/{}.png", ("images", "masks", "", (), [2])),
        ("img/{}.jpg", "labels/{}_L.png", ("img", "labels", "_L", (), [2])),
        ("all/{}.jpg", "all/{}_mask.png", ("all", "all", "_mask", (), [2])),
        ("{}.jpg", "{}-labels.png", (".", ".", "-labels", (), [2])),
        ("a/{}.jpg", "b/{}.png", ("a", "b", "", (), [2])),
        ("deep/images/{}.jpg", "deep/gt/{}.png", ("deep/images", "deep/gt", "", (), [2])),
        ("images/train/{}.jpg", "masks/train/{}.png", ("images/train", "masks/train", "", (), [2])),
    ],
)  # fmt: skip
def test_folders_without_splits(tmp_path, image, mask, expected):
    for stem in ("one", "two"):
        put(tmp_path, image.format(stem), mask.format(stem))
    assert words(find_layout(tmp_path)) == expected


@pytest.mark.parametrize(
    ("image", "mask", "expected"),
    [
        ("images/{s}/{n}.jpg", "masks/{s}/{n}.png", ("images", "masks", "")),
        ("{s}/images/{n}.jpg", "{s}/masks/{n}.png", ("{split}/images", "{split}/masks", "")),
        ("{s}/{n}.jpg", "{s}annot/{n}.png", ("{split}", "{split}annot", "")),
        ("{s}/{n}.jpg", "{s}_labels/{n}_L.png", ("{split}", "{split}_labels", "_L")),
        ("{s}/{n}.jpg", "{s}/{n}_mask.png", (".", ".", "_mask")),
        ("images_{s}/{n}.jpg", "masks_{s}/{n}.png", ("images_{split}", "masks_{split}", "")),
        ("left/{s}/town/{n}.jpg", "gtFine/{s}/town/{n}.png", ("left", "gtFine", "")),
    ],
)
def test_folders_with_splits(tmp_path, image, mask, expected):
    for split in SPLITS:
        for stem in ("one", "two", "three"):
            put(tmp_path, image.format(s=split, n=stem), mask.format(s=split, n=stem))
    assert words(find_layout(tmp_path)) == (*expected, SPLITS, [3, 3])


@pytest.mark.parametrize(
    ("existing", "chosen"),
    [
        (("train", "val", "test"), ("train", "val")),
        (("training", "test"), ("training", "test")),
        (("Train", "Valid"), ("Train", "Valid")),
    ],
)
def test_validation_is_preferred_to_test(tmp_path, existing, chosen):
    for split in existing:
        put(tmp_path, f"images/{split}/a.jpg", f"masks/{split}/a.png")
    assert find_layout(tmp_path).splits == chosen


def test_lists_define_splits_of_one_folder(tmp_path):
    stems = ("a", "b", "c", "unlabelled")
    put(tmp_path, *(f"JPEGImages/{stem}.jpg" for stem in stems))
    put(tmp_path, *(f"SegmentationClass/{stem}.png" for stem in stems[:3]))
    lists = tmp_path / "ImageSets/Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("c\n")
    layout = find_layout(tmp_path)
    assert layout.splits == ("ImageSets/Segmentation/train.txt", "ImageSets/Segmentation/val.txt")
    assert [len(pairs) for pairs in layout.pairs.values()] == [2, 1]
    assert layout.unpaired == ()


def test_unpaired_files_of_both_sides_are_listed(tmp_path):
    put(tmp_path, "images/a.jpg", "masks/a.png", "images/b.jpg", "masks/c.png")
    assert [path.name for path in find_layout(tmp_path).unpaired] == ["b.jpg", "c.png"]


def test_numbers_in_names_are_not_suffixes(tmp_path):
    put(tmp_path, "all/f1.jpg", "all/f12.jpg", "all/f1_gt.png", "all/f12_gt.png")
    layout = find_layout(tmp_path)
    assert layout.names.mask_suffix == "_gt"
    assert [(i.name, m.name) for i, m in layout.pairs[""]] == [
        ("f1.jpg", "f1_gt.png"),
        ("f12.jpg", "f12_gt.png"),
    ]


@pytest.mark.parametrize("names", [(), ("images/a.jpg", "masks/b.png"), ("a.jpg", "masks/a.png")])
def test_no_pairs_are_an_error_with_the_expected_layout(tmp_path, names):
    put(tmp_path, *names)
    with pytest.raises(DataError) as error:
        find_layout(tmp_path)
    assert str(tmp_path) in str(error.value) and "images/a.jpg" in str(error.value)
    assert len(str(error.value).splitlines()) <= 4
    with pytest.raises(DataError, match="nowhere"):
        find_layout(tmp_path / "nowhere")


def test_nested_folders_are_all_found(tmp_path):
    for scene in ("scene0", "scene1", "scene2"):
        put(tmp_path, f"{scene}/images/a.jpg", f"{scene}/masks/a.png")
    assert words(find_layout(tmp_path)) == ("*/images", "*/masks", "", (), [3])


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    put(tmp_path / "real", "i/a.jpg", "m/a.png")
    (tmp_path / "set").mkdir()
    for name, target in (("images", "real/i"), ("masks", "real/m"), ("set/loop", "set")):
        folder = tmp_path / "set" / Path(name).name
        folder.symlink_to(tmp_path / target)
    assert words(find_layout(tmp_path / "set")) == ("images", "masks", "", (), [1])


def test_omitted_files_are_listed(tmp_path):
    for split in ("train", "val", "test"):
        put(tmp_path, f"{split}/images/a.jpg", f"{split}/masks/a.png")
    put(tmp_path, "raw/b.jpg", "raw/c.jpg")
    expected = ("2 files in raw", "1 files in test/images", "1 files in test/masks")
    assert find_layout(tmp_path).left_out == expected


def test_lists_pair_files_with_different_names(tmp_path):
    put(tmp_path, "image_1.jpg", "label_1.png", "image_2.jpg", "label_2.png")
    (tmp_path / "train.txt").write_text("image_1.jpg label_1.png")
    (tmp_path / "val.txt").write_text("image_2.jpg label_2.png")
    layout = find_layout(tmp_path)
    assert layout.splits == ("train.txt", "val.txt")
    assert layout.pairs["val.txt"] == [(tmp_path / "image_2.jpg", tmp_path / "label_2.png")]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["images/a1_x.jpg", "masks/b1_y.png"], r"a1_x.jpg and masks/b1_y.png look[\s\S]*list the"),
        (["images/a.jpg", "images/b.jpg", "masks/a_car.png", "masks/a_road.png", "masks/b_car.png"],
         r"one binary mask per class \(names with _car, _road\)[\s\S]*1 = car, 2 = road"),
        (["images/a.jpg", "masks/car/a.png", "masks/road/a.png"],
         r"one binary mask per class \(folders car, road\)[\s\S]*Fix: merge"),
    ],
)  # fmt: skip
def test_similar_names_and_masks_per_class_are_errors_with_the_fix(tmp_path, names, message):
    put(tmp_path, *names)
    with pytest.raises(DataError, match=message) as error:
        find_layout(tmp_path)
    assert len(str(error.value).splitlines()) <= 4


def test_other_formats_a_file_and_a_folder_without_masks_are_errors(tmp_path):
    put(tmp_path, "images/a.jpg", "masks/a.png")
    for given, message in (
        ("images", f"Fix: hrseg init {tmp_path}"),
        ("images/a.jpg", r"is a file, not a folder[\s\S]*Fix: hrseg init .*images"),
    ):
        with pytest.raises(DataError, match=message):
            find_layout(tmp_path / given)
    (tmp_path / "masks/a.png").rename(tmp_path / "masks/a.npy")
    with pytest.raises(DataError, match=r"1 \.npy files, which are not supported[\s\S]*Fix: write"):
        find_layout(tmp_path)


def test_an_unreadable_folder_is_an_error_with_chmod(tmp_path, monkeypatch):
    put(tmp_path, "images/a.jpg", "masks/a.png")
    listed = os.scandir

    def denied(path):
        if str(path).endswith("masks"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr("os.scandir", denied)
    with pytest.raises(
        DataError, match=r"masks cannot be read: Permission denied[\s\S]*Fix: chmod"
    ):
        find_layout(tmp_path)
