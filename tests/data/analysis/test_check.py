"""Check of all files of a split: sums, faults, notes, workers."""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from PIL import Image

from hrseg.data.analysis.check import check_splits, find_split
from hrseg.data.datasets.camvid import CamVid
from hrseg.errors import DataError
from tests.camvid_tree import make_camvid
from tests.conftest import picture, save_image

SIZE = (48, 64)
OUTSIDE = "links to files outside data.root, followed"


@pytest.fixture
def root(tmp_path):
    return make_camvid(tmp_path / "camvid")


def checked(root, *names, workers=0):
    data = CamVid(str(root))
    splits = [find_split(data, name) for name in names or ("train", "val")]
    check_splits(splits, data.mask_reader(), workers)
    return splits


def test_contents_of_images_and_masks_are_summed(tmp_path):
    """By hand: two images of 2x2; Sky has 3 + 1 pixels in both, Building 2 in the second."""
    for index, ids in enumerate([[0, 0, 0, 11], [0, 1, 1, 11]]):
        image = np.full((2, 2, 3), (10, 20, 30 + index), np.uint8)
        save_image(tmp_path / f"train/{index}.png", image)
        save_image(tmp_path / f"trainannot/{index}.png", np.array(ids, np.uint8).reshape(2, 2))
    (split,) = checked(tmp_path, "train")
    assert (split.pixels[0], split.pixels[1], split.pixels[255]) == (4, 2, 2)
    assert split.images[:3].tolist() == [2, 1, 0]
    assert split.surroundings[:3].tolist() == [8, 4, 0]
    assert split.sums.tolist() == [80, 160, 4 * 30 + 4 * 31]
    assert split.size_rows() == [{"height": 2, "width": 2, "images": 2}]
    assert split.class_rows(["Sky"]) == [{"name": "Sky", "pixels": 4, "images": 2}]
    assert (split.faults, split.file_notes) == ([], {})


def test_sums_equal_numpy_and_are_exact_beyond_32_bits(tmp_path):
    images = [picture((97 + seed, 131), (seed,)) for seed in range(8)]
    images.append(np.full((1024, 2048, 3), 255, np.uint8))
    images[-1][7, 9] = 1, 2, 254
    for index, image in enumerate(images):
        save_image(tmp_path / f"train/{index}.png", image)
        save_image(tmp_path / f"trainannot/{index}.png", np.zeros(image.shape[:2], np.uint8))
    (split,) = checked(tmp_path, "train")
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.int64)
    assert split.sums.tolist() == pixels.sum(0).tolist()
    assert split.squares.tolist() == (pixels**2).sum(0).tolist()


def test_workers_and_one_process_find_the_same(root):
    (root / "trainannot" / "001.png").write_bytes(b"")
    for serial, parallel in zip(checked(root), checked(root, workers=2), strict=True):
        for name in ("pixels", "sums", "squares"):
            assert np.array_equal(getattr(serial, name), getattr(parallel, name))
        assert (serial.faults, serial.file_notes, serial.sizes) == (
            parallel.faults, parallel.file_notes, parallel.sizes)  # fmt: skip


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((*SIZE, 3), np.uint8), ["coloured image (RGB)", "SegNet's CamVid"]),
        (np.full(SIZE, 254, np.uint8), ["unknown id 254 (3072 pixels)", "0..11", "Fix: download"]),
        (np.zeros((20, 64), np.uint8), ["64x20", "image 64x48", "export the mask again"]),
        (None, ["cannot be read", "copy it again"]),
    ],
)
def test_a_faulty_mask_is_a_fault_with_the_fix(root, mask, words):
    path = root / "trainannot/001.png"
    if mask is None:
        path.write_bytes(path.read_bytes()[:-30])
    else:
        save_image(path, mask)
    (split,) = checked(root, "train")
    (fault,) = split.faults
    assert fault.file == path
    assert all(word in fault.message for word in words), fault.message
    assert len(fault.message.splitlines()) <= 3


def test_the_mask_of_an_unreadable_image_is_still_counted(root):
    for split in ("train", "val"):
        (root / split / "000.png").write_bytes(b"")
    train, val = checked(root)
    for split in (train, val):  # unreadable images are not duplicates
        (fault,) = split.faults
        assert fault.file.name == "000.png" and "cannot be read" in fault.message
    assert train.pixels.sum() == 4 * 48 * 64


def test_masks_without_a_class_are_noted(root):
    path = save_image(root / "trainannot/000.png", np.full(SIZE, 11, np.uint8))
    (split,) = checked(root, "train")
    assert (split.faults, split.file_notes) == ([], {"masks all ignored": [path]})


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
    (split,) = checked(root, "train")
    assert split.file_notes == ({noted: [path]} if noted else {})
    assert split.faults == [] and split.sizes == {SIZE: 4}


def test_an_unpaired_split_does_not_affect_the_others(root, monkeypatch):
    (root / "valannot" / "000.png").unlink()
    train, val = checked(root)
    assert (len(train.files), train.faults) == (4, [])
    assert val.files == () and "000.png" in val.faults[0].message
    monkeypatch.setattr(CamVid, "files", lambda self, split: [])
    (train,) = checked(root, "train")
    assert [fault.message for fault in train.faults] == [
        f"{root} contains no images of split train."
    ]


@pytest.mark.parametrize(
    ("copy", "words"), [(shutil.copyfile, "same bytes"), (os.symlink, "same file")]
)
def test_an_image_in_two_splits_is_a_fault_with_both_files(root, copy, words):
    source, target = root / "train" / "002.png", root / "val" / "001.png"
    target.unlink()
    copy(source, target)
    train, val = checked(root)
    (fault,) = val.faults
    assert train.faults == [] and fault.file == target
    assert words in fault.message and f"{source} of split train" in fault.message


def test_a_duplicate_image_in_a_split_is_noted(root):
    shutil.copyfile(root / "train" / "002.png", root / "train" / "003.png")
    (train,) = checked(root, "train")
    assert train.faults == []
    assert f"duplicate images: {root / 'train' / '003.png'}" in train.remarks([])


def test_another_number_of_images_than_the_official_one_is_noted(root, monkeypatch):
    monkeypatch.setattr(CamVid, "expected_images", {"train": 367})
    split = find_split(CamVid(str(root)), "train")
    assert (split.expected, split.faults) == (367, [])
    assert "4 images, the official data set has 367" in split.notes[0]


def be_killed(path):
    os.kill(os.getpid(), signal.SIGKILL)


def hang(path):
    time.sleep(1000)


@pytest.mark.parametrize(
    ("read", "message"),
    [
        (be_killed, r"killed \(SIGKILL\), at sample 0: .*000\.png[\s\S]*lower data.workers"),
        (hang, r"has been at sample 0: .*000\.png, mask .* for 1 s"),
    ],
)
def test_a_killed_or_hanging_worker_is_an_error_with_the_file(root, read, message):
    splits = [find_split(CamVid(str(root)), "train")]
    with pytest.raises(DataError, match=message):
        check_splits(splits, read, 1, patience=1)


def test_links_outside_the_root_are_followed_and_noted(root, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    (root / "train" / "002.png").rename(elsewhere)
    os.symlink(elsewhere, root / "train" / "002.png")
    os.rename(root / "valannot", tmp_path / "masks")
    os.symlink(tmp_path / "masks", root / "valannot")
    os.rename(root / "val" / "000.png", root / "first.png")
    os.symlink("../first.png", root / "val" / "000.png")  # stays within the root
    train, val = checked(root)
    assert train.faults == val.faults == []
    assert f"{OUTSIDE}: {root / 'train' / '002.png'}" in train.remarks([])
    assert f"{OUTSIDE}: 2, e.g. {root / 'valannot' / '000.png'}" in val.remarks([])
