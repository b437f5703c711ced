"""Cityscapes: facts against cityscapesscripts, and an answer to each tree that is wrong."""

import shutil

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels
from PIL import Image

from hrseg.data import Cityscapes
from hrseg.data.datasets.cityscapes import LABEL_KINDS
from hrseg.errors import DataError
from tests.trees import make_cityscapes

TRAIN = [label for label in sorted(labels, key=lambda x: x.trainId) if 0 <= label.trainId < 255]


def data(root, **arguments):
    return Cityscapes(str(root), batch_size=1, crop_size=(32, 32), workers=0, **arguments)


@pytest.fixture
def tree(tmp_path):
    return make_cityscapes(tmp_path)


def test_classes_colours_and_ids_are_those_of_cityscapesscripts():
    assert Cityscapes.class_names == tuple(label.name for label in TRAIN)
    assert Cityscapes.palette == tuple(label.color for label in TRAIN)
    assert Cityscapes.submission_ids == tuple(label.id for label in TRAIN)
    assert len(Cityscapes.class_weights) == 19


@pytest.mark.parametrize("kind", LABEL_KINDS)
def test_both_kinds_of_masks_become_train_ids(tmp_path, kind):
    root = make_cityscapes(tmp_path, {"val": 1}, label=kind)
    [(_, mask)] = data(root).files("val")
    raw = np.asarray(Image.open(mask))
    expected = raw
    if kind == "labelIds":
        by_id = {label.id: label.trainId for label in labels if label.id >= 0}
        expected = np.vectorize(lambda i: by_id[i] if 0 <= by_id[i] < 255 else 255)(raw)
    np.testing.assert_array_equal(data(root).mask_reader()(mask), expected)


def test_splits_pair_images_and_masks_by_name(tree):
    module = data(tree)
    for split, count in (("train", 3), ("val", 2)):
        files = module.files(split)
        assert len(files) == count
        for image, mask in files:
            assert image.name.replace("_leftImg8bit", "_gtFine_labelIds") == mask.name
    assert [mask for _, mask in module.files("test")] == [None]
    assert len(module.dataset("trainval")) == 5


def test_coarse_masks_are_a_split_and_part_of_a_union(tmp_path):
    root = make_cityscapes(tmp_path, {"train": 2, "train_extra": 3})
    module = data(root)
    assert all("gtCoarse" in str(mask) for _, mask in module.files("train_extra"))
    assert len(module.dataset("train_all")) == 5


def test_the_authors_list_files_are_read(tree):
    pairs = data(tree).files("val")
    lines = ["\t".join(str(path.relative_to(tree)) for path in pair) for pair in pairs]
    (tree / "val.lst").write_text("\n".join(lines))
    assert data(tree).files("val.lst") == pairs
    assert data(tree).files(str(tree / "val.lst")) == pairs


def test_a_shortfall_is_said_and_val_within_trainval_too(tree):
    with pytest.warns(UserWarning) as warned:
        data(tree, train_split="trainval").check()
    said = " ".join(str(warning.message) for warning in warned)
    assert "split val in" in said and "2 images, the official data set has 500" in said
    assert "trainval contains val: its score says nothing" in said


def break_tree(root, how):
    fine = root / "gtFine"
    if how == "no gtFine":
        shutil.rmtree(fine)
    elif how == "only colours":
        for path in fine.rglob("*_labelIds.png"):
            path.rename(path.with_name(path.name.replace("labelIds", "color")))
    elif how == "wrong suffix":
        for path in (root / "leftImg8bit").rglob("*.png"):
            path.rename(path.with_name(path.name.replace("_leftImg8bit", "")))
    elif how == "mixed splits":
        mask = next((fine / "val").rglob("*.png"))
        target = fine / "train" / mask.parent.name / mask.name
        target.parent.mkdir()
        mask.rename(target)
    elif how == "one mask missing":
        next((fine / "val").rglob("*.png")).unlink()
    elif how == "one image missing":
        next((root / "leftImg8bit/val").rglob("*.png")).unlink()
    else:
        mask = next((fine / "val").rglob("*.png"))
        pixels = np.array(Image.open(mask))
        pixels[:2, :3] = 254
        Image.fromarray(pixels).save(mask)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no gtFine", "no folder .*gtFine/val\nexpected leftImg8bit and gtFine side by side"),
        ("only colours", r"no \*_gtFine_labelTrainIds.png, only color.png.\nUnpack .*csCreateTr"),
        ("wrong suffix", r"holds no <city>/\*_leftImg8bit.png, only 000019.png.\nUnpack"),
        ("mixed splits", "1 of 2 files have no mask .*\nIts mask is in another folder, .*train/"),
        ("one mask missing", "1 of 2 files have no mask .*val.*\nexpected .*gtFine. Unpack"),
        ("one image missing", "1 of 2 files have no image .*\nexpected .*leftImg8bit. Unpack"),
        ("id 254", r"unknown id 254 \(6 pixels\)\nexpected 0..33, 255. This is no labelIds file"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tree, how, message):
    break_tree(tree, how)
    with pytest.raises(DataError, match=message) as error:
        data(tree).check("validate")
    assert str(error.value).count("\n") < 3


def test_masks_of_the_validation_cities_in_train_are_told_where_their_images_are(tree):
    shutil.copytree(tree / "gtFine/val", tree / "gtFine/train", dirs_exist_ok=True)
    message = "2 of 5 files have no image .*\nIts image is in another folder, .*leftImg8bit/val/"
    with pytest.raises(DataError, match=message):
        data(tree).files("train")


def test_label_ids_are_taken_before_train_ids_and_either_where_there_is_one(tmp_path):
    for label in LABEL_KINDS:
        make_cityscapes(tmp_path, {"val": 2}, label=label)
    [kept, removed] = [mask for _, mask in data(tmp_path).files("val")]
    removed.unlink()
    names = [mask.name.rsplit("_", 1)[-1] for _, mask in data(tmp_path).files("val")]
    assert kept.exists() and names == ["labelIds.png", "labelTrainIds.png"]


def test_what_a_mac_adds_to_an_archive_is_no_image(tree):
    image, _ = data(tree).files("val")[0]
    image.with_name(f"._{image.name}").touch()
    assert len(data(tree).files("val")) == 2


def test_a_split_that_is_not_there_is_answered_with_those_that_are(tree):
    with pytest.raises(DataError, match=r"no folder .*/vall\nThere are: test, train, val. Unpack"):
        data(tree).files("vall")


def test_coarse_masks_that_are_missing_are_in_other_archives(tree):
    with pytest.raises(
        DataError, match=r"no folder .*gtCoarse.*\nexpected .*gtCoarse side by side"
    ):
        data(tree).files("train_coarse")


@pytest.mark.parametrize("arguments", [{"train_split": "test"}, {"val_split": "test"}])
@pytest.mark.filterwarnings("ignore:split val")
def test_images_without_masks_are_no_split_to_train_or_score_on(tree, arguments):
    with pytest.raises(DataError, match=r"1 of 1 images of split test have no mask, e.g. "):
        data(tree, **arguments).check()


def test_archives_unpacked_each_into_its_own_folder_are_told(tree):
    for name in ("leftImg8bit", "gtFine"):
        (tree / f"{name}_trainvaltest").mkdir()
        (tree / name).rename(tree / f"{name}_trainvaltest" / name)
    with pytest.raises(DataError, match="expected leftImg8bit and gtFine side by side in"):
        data(tree).files("val")


def test_a_root_one_level_off_is_named(tmp_path):
    root = make_cityscapes(tmp_path / "sets" / "cityscapes")
    for wrong in (root.parent, root / "leftImg8bit", root / "leftImg8bit" / "train"):
        with pytest.raises(DataError, match=f"Did you mean data.root={root}\\?"):
            data(wrong).files("val")
