"""A check of all files of a split: sums, faults, notes, workers."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from hrseg.data.analysis.check import find_split, look_through
from hrseg.data.datasets.camvid import CamVid
from hrseg.errors import DataError
from tests.camvid_tree import make_camvid
from tests.conftest import picture, save_image

SIZE = (48, 64)
OUTWARD = "links that lead out of data.root, followed"


@pytest.fixture
def root(tmp_path):
    return make_camvid(tmp_path / "camvid")


def looked(root, *names, workers=0):
    data = CamVid(str(root))
    splits = [find_split(data, name) for name in names or ("train", "val")]
    look_through(splits, data.mask_reader(), workers)
    return splits


def test_contents_of_images_and_masks_are_added_up(tmp_path):
    """By hand: two images of 2x2; Sky has 3 + 1 pixels in both, Building 2 in the second."""
    for index, ids in enumerate([[0, 0, 0, 11], [0, 1, 1, 11]]):
        image = np.full((2, 2, 3), (10, 20, 30 + index), np.uint8)
        save_image(tmp_path / f"train/{index}.png", image)
        save_image(tmp_path / f"trainannot/{index}.png", np.array(ids, np.uint8).reshape(2, 2))
    (split,) = looked(tmp_path, "train")
    assert (split.pixels[0], split.pixels[1], split.pixels[255]) == (4, 2, 2)
    assert split.images[:3].tolist() == [2, 1, 0]
    assert split.surroundings[:3].tolist() == [8, 4, 0]
    assert split.sums.tolist() == [80, 160, 4 * 30 + 4 * 31]
    assert split.size_rows() == [{"height": 2, "width": 2, "images": 2}]
    assert split.class_rows(["Sky"]) == [{"name": "Sky", "pixels": 4, "images": 2}]
    assert (split.faults, split.odd) == ([], {})


def test_sums_are_numpys_and_exact_beyond_32_bits(tmp_path):
    images = [picture((97 + seed, 131), (seed,)) for seed in range(8)]
    images.append(np.full((1024, 2048, 3), 255, np.uint8))
    images[-1][7, 9] = 1, 2, 254
    for index, image in enumerate(images):
        save_image(tmp_path / f"train/{index}.png", image)
        save_image(tmp_path / f"trainannot/{index}.png", np.zeros(image.shape[:2], np.uint8))
    (split,) = looked(tmp_path, "train")
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.int64)
    assert split.sums.tolist() == pixels.sum(0).tolist()
    assert split.squares.tolist() == (pixels**2).sum(0).tolist()


def test_workers_find_what_one_process_finds(root):
    (root / "trainannot" / "001.png").write_bytes(b"")
    for serial, parallel in zip(looked(root), looked(root, workers=2), strict=True):
        for name in ("pixels", "sums", "squares"):
            assert np.array_equal(getattr(serial, name), getattr(parallel, name))
        assert (serial.faults, serial.odd, serial.sizes) == (
            parallel.faults, parallel.odd, parallel.sizes)  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((*SIZE, 3), np.uint8), ["coloured image (RGB)", "SegNet's CamVid"]),
        (np.full(SIZE, 254, np.uint8), ["unknown id 254 (3072 pixels)", "0..11", "get them again"]),
        (np.zeros((20, 64), np.uint8), ["64x20", "image 64x48", "export the mask again"]),
        (None, ["cannot be read", "copy it again"]),
    ],
)
def test_a_faulty_mask_is_named_with_its_repair(root, mask, words):
    path = root / "trainannot/001.png"
    if mask is None:
        path.write_bytes(path.read_bytes()[:-30])
    else:
        save_image(path, mask)
    (split,) = looked(root, "train")
    (fault,) = split.faults
    assert fault.file == path
    assert all(word in fault.message for word in words), fault.message
    assert len(fault.message.splitlines()) <= 3


def test_the_mask_of_an_unreadable_image_is_still_counted(root):
    for split in ("train", "val"):
        (root / split / "000.png").write_bytes(b"")
    train, val = looked(root)
    for split in (train, val):  # and they are no duplicates of each other
        (fault,) = split.faults
        assert fault.file.name == "000.png" and "cannot be read" in fault.message
    assert train.pixels.sum() == 4 * 48 * 64


def test_masks_without_a_class_are_noted(root):
    path = save_image(root / "trainannot/000.png", np.full(SIZE, 11, np.uint8))
    (split,) = looked(root, "train")
    assert (split.faults, split.odd) == ([], {"masks all ignored": [path]})


STORED = "images used as stored, the size of their masks; EXIF orientation not applied"
UPRIGHT = "images turned upright by their EXIF orientation, as annotation tools do"


@pytest.mark.parametrize(
    ("suffix", "turn", "noted"),
    [(".jpg", 6, STORED), (".png", 6, STORED), (".jpg", 3, UPRIGHT), (".jpg", 1, "")],
)
def test_exif_orientations_are_noted(root, suffix, turn, noted):
    exif = Image.Exif()
    exif[0x0112] = turn
    (root / "train/000.png").unlink()
    path = root / f"train/000{suffix}"
    Image.fromarray(picture(SIZE, (1,))).save(path, exif=exif)
    (split,) = looked(root, "train")
    assert split.odd == ({noted: [path]} if noted else {})
    assert split.faults == [] and split.sizes == {SIZE: 4}


def test_a_split_that_does_not_pair_leaves_the_others(root, monkeypatch):
    (root / "valannot" / "000.png").unlink()
    train, val = looked(root)
    assert (len(train.files), train.faults) == (4, [])
    assert val.files == () and "000.png" in val.faults[0].message
    monkeypatch.setattr(CamVid, "files", lambda self, split: [])
    (train,) = looked(root, "train")
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
    assert train.faults == [] and fault.file == target
    assert words in fault.message and f"{source} of split train" in fault.message


def test_an_image_twice_in_a_split_is_noted(root):
    shutil.copyfile(root / "train" / "002.png", root / "train" / "003.png")
    (train,) = looked(root, "train")
    assert train.faults == []
    assert f"duplicate images: {root / 'train' / '003.png'}" in train.remarks([])


def test_a_count_other_than_the_official_one_is_noted(root, monkeypatch):
    monkeypatch.setattr(CamVid, "expected_images", {"train": 367})
    split = find_split(CamVid(str(root)), "train")
    assert (split.expected, split.faults) == (367, [])
    assert "4 images, the official data set has 367" in split.notes[0]


def killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def never_read(path):
    time.sleep(1000)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (killed, r"killed \(SIGKILL\), at sample 0: .*000\.png[\s\S]*lower data.workers"),
        (never_read, r"has been at sample 0: .*000\.png, mask .* for 1 s"),
    ],
)
def test_a_killed_or_hanging_worker_is_an_error_that_names_the_file(root, read, message):
    splits = [find_split(CamVid(str(root)), "train")]
    with pytest.raises(DataError, match=message):
        look_through(splits, read, 1, patience=1)


def test_links_out_of_the_root_are_followed_and_noted(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (root / "train" / "002.png").rename(elsewhere)
    os.symlink(elsewhere, root / "train" / "002.png")
    os.rename(root / "valannot", tmp_path / "masks")
    os.symlink(tmp_path / "masks", root / "valannot")
    os.rename(root / "val" / "000.png", root / "first.png")
    os.symlink("../first.png", root / "val" / "000.png")  # stays within the root
    train, val = looked(root)
    assert train.faults == val.faults == []
    assert f"{OUTWARD}: {root / 'train' / '002.png'}" in train.remarks([])
    assert f"{OUTWARD}: 2, e.g. {root / 'valannot' / '000.png'}" in val.remarks([])
