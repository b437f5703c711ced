"""A look through splits: sums, files that repeat, workers."""

import os
import shutil
import signal
import time

import numpy as np
import pytest

from hrseg.data.analysis.check import find_split, look_through
from hrseg.data.datasets.camvid import CamVid
from hrseg.errors import DataError
from tests.camvid_tree import make_camvid
from tests.conftest import save_image


@pytest.fixture
def root(tmp_path):
    return make_camvid(tmp_path / "camvid")


def looked(root, names=("train", "val"), workers=0):
    data = CamVid(str(root))
    splits = [find_split(data, name) for name in names]
    look_through(splits, data.mask_reader(), data.palette, workers)
    return splits


def test_what_images_hold_is_added_up(tmp_path):
    """By hand: two images of 2x2; Sky has 3 + 1 pixels in both, Building 2 in the second."""
    for index, ids in enumerate([[0, 0, 0, 11], [0, 1, 1, 11]]):
        image = np.full((2, 2, 3), (10, 20, 30 + index), np.uint8)
        save_image(tmp_path / f"train/{index}.png", image)
        save_image(tmp_path / f"trainannot/{index}.png", np.array(ids, np.uint8).reshape(2, 2))
    (split,) = looked(tmp_path, ["train"])
    assert (split.pixels[0], split.pixels[1], split.pixels[255]) == (4, 2, 2)
    assert split.images[:3].tolist() == [2, 1, 0]
    assert split.surroundings[:3].tolist() == [8, 4, 0]
    assert split.sums == [80, 160, 4 * 30 + 4 * 31]
    assert split.size_rows() == [{"height": 2, "width": 2, "images": 2}]
    assert split.class_rows(["Sky"]) == [{"name": "Sky", "pixels": 4, "images": 2}]
    assert split.faults == []


def test_workers_find_what_one_process_finds(root):
    (root / "trainannot" / "001.png").write_bytes(b"")
    for one, two in zip(looked(root), looked(root, workers=2), strict=True):
        assert np.array_equal(one.pixels, two.pixels)
        assert (one.sums, one.squares, one.sizes) == (two.sums, two.squares, two.sizes)
        assert (one.faults, one.odd) == (two.faults, two.odd)


def test_a_split_that_does_not_pair_leaves_the_others(root):
    (root / "valannot" / "000.png").unlink()
    train, val = looked(root)
    assert (len(train.files), train.faults) == (4, [])
    assert val.files == ()
    assert "000.png" in val.faults[0].message


def test_a_split_without_an_image_is_a_fault(root, monkeypatch):
    monkeypatch.setattr(CamVid, "files", lambda self, split: [])
    (train,) = looked(root, ["train"])
    assert [fault.message for fault in train.faults] == [f"no images of split train in {root}"]


@pytest.mark.parametrize(
    ("copy", "words"), [(shutil.copyfile, "same bytes"), (os.symlink, "same file")]
)
def test_an_image_in_two_splits_is_a_fault_that_names_both(root, copy, words):
    source, target = root / "train" / "002.png", root / "val" / "001.png"
    target.unlink()
    copy(source, target)
    train, val = looked(root)
    (fault,) = val.faults
    assert train.faults == []
    assert fault.file == target
    assert words in fault.message
    assert f"{source} of split train" in fault.message


def test_an_image_twice_in_a_split_is_noted(root):
    shutil.copyfile(root / "train" / "002.png", root / "train" / "003.png")
    (train,) = looked(root, ["train"])
    assert train.faults == []
    assert f"images that are there twice: {root / 'train' / '003.png'}" in train.remarks([])


def test_unreadable_files_are_no_duplicates_of_each_other(root):
    for split in ("train", "val"):
        (root / split / "000.png").write_bytes(b"")
    train, val = looked(root)
    assert len(train.faults) == len(val.faults) == 1
    assert "cannot read" in val.faults[0].message


def test_a_count_other_than_the_official_one_is_noted(root, monkeypatch):
    monkeypatch.setattr(CamVid, "expected_images", {"train": 367})
    split = find_split(CamVid(str(root)), "train")
    assert split.expected == 367
    assert split.faults == []
    assert "4 images, the official data set has 367" in split.notes[0]


def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_an_error_and_no_hang(root):
    splits = [find_split(CamVid(str(root)), "train")]
    with pytest.raises(DataError, match=r"killed \(SIGKILL\), at sample 0: .*000\.png") as error:
        look_through(splits, killed, (), 1)
    assert "lower data.workers" in str(error.value)


def never_read(path):
    time.sleep(1000)


def test_a_file_that_is_never_read_is_named_and_no_hang(root):
    splits = [find_split(CamVid(str(root)), "train")]
    with pytest.raises(DataError, match=r"has been at sample 0: .*000\.png, mask .* for 1 s"):
        look_through(splits, never_read, (), 1, patience=1)


def test_links_out_of_the_root_are_followed_and_noted(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (root / "train" / "002.png").rename(elsewhere)
    os.symlink(elsewhere, root / "train" / "002.png")
    os.rename(root / "valannot", tmp_path / "masks")
    os.symlink(tmp_path / "masks", root / "valannot")
    os.rename(root / "val" / "000.png", root / "first.png")
    os.symlink("../first.png", root / "val" / "000.png")  # one within is no news
    train, val = looked(root)
    note = "links that lead out of data.root, followed"
    assert train.faults == val.faults == []
    assert f"{note}: {root / 'train' / '002.png'}" in train.remarks([])
    assert f"{note}: 2, e.g. {root / 'valannot' / '000.png'}" in val.remarks([])
