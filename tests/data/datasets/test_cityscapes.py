"""Cityscapes: facts against cityscapesscripts, and an answer to each tree that is wrong."""

import shutil

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import labels
from PIL import Image

from hrseg.data import Cityscapes
from hrseg.data.datasets.cityscapes import LABEL_KINDS
from hrseg.errors import DataError
from tests.conftest import save_image
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
    image, _ = module.files("val")[0]
    image.with_name(f"._{image.name}").touch()  # as a Mac adds them to archives
    for image, mask in module.files("val"):
        assert image.name.replace("_leftImg8bit", "_gtFine_labelIds") == mask.name
    assert [mask for _, mask in module.files("test")] == [None]
    assert len(module.dataset("trainval")) == 5


def test_coarse_masks_are_a_split_and_part_of_a_union(tmp_path):
    module = data(make_cityscapes(tmp_path, {"train": 2, "train_extra": 3}))
    assert all("gtCoarse" in str(mask) for _, mask in module.files("train_extra"))
    assert len(module.dataset("train_all")) == 5


def test_a_shortfall_and_val_within_trainval_are_warnings(tree):
    with pytest.warns(UserWarning) as caught:
        data(tree, train_split="trainval").check()
    messages = " ".join(str(warning.message) for warning in caught)
    assert "split val in" in messages and "2 images, the official data set has 500" in messages
    assert "trainval contains val: its score does not hold" in messages


def break_tree(root, how):
    if how == "no gtFine":
        shutil.rmtree(root / "gtFine")
    elif how == "unpacked apart":
        (root / "archive").mkdir()
        (root / "gtFine").rename(root / "archive/gtFine")
    elif how == "only colours":
        for path in (root / "gtFine").rglob("*_labelIds.png"):
            path.rename(path.with_name(path.name.replace("labelIds", "color")))
    elif how == "wrong suffix":
        for path in (root / "leftImg8bit").rglob("*.png"):
            path.rename(path.with_name(path.name.replace("_leftImg8bit", "")))
    else:
        folder = "gtFine" if how == "one mask missing" else "leftImg8bit"
        next((root / folder / "val").rglob("*.png")).unlink()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no gtFine", "no folder .*gtFine/val\nexpected leftImg8bit and gtFine side by side"),
        ("unpacked apart", "expected leftImg8bit and gtFine side by side in"),
        ("only colours", r"no \*_gtFine_labelTrainIds.png, only color.png.\nUnpack .*csCreateTr"),
        ("wrong suffix", r"holds no <city>/\*_leftImg8bit.png, only 000019.png.\nUnpack"),
        ("one mask missing", "1 of 2 files have no mask .*val.*\nexpected .*gtFine. Unpack"),
        ("one image missing", "1 of 2 files have no image .*\nexpected .*leftImg8bit. Unpack"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tree, how, message):
    break_tree(tree, how)
    with pytest.raises(DataError, match=message) as error:
        data(tree).files("val")
    assert str(error.value).count("\n") < 3


def test_label_ids_are_preferred_to_train_ids(tmp_path):
    for label in LABEL_KINDS:
        make_cityscapes(tmp_path, {"val": 2}, label=label)
    [kept, removed] = [mask for _, mask in data(tmp_path).files("val")]
    removed.unlink()
    names = [mask.name.rsplit("_", 1)[-1] for _, mask in data(tmp_path).files("val")]
    assert kept.exists() and names == ["labelIds.png", "labelTrainIds.png"]


def test_a_missing_split_is_answered_with_the_existing_ones(tree):
    with pytest.raises(DataError, match=r"no folder .*/vall\nThere are: test, train, val. Unpack"):
        data(tree).files("vall")
    with pytest.raises(DataError, match=r"gtCoarse.*\nexpected .*gtCoarse side by side"):
        data(tree).files("train_coarse")


@pytest.mark.parametrize("arguments", [{"train_split": "test"}, {"val_split": "test"}])
@pytest.mark.filterwarnings("ignore:split val")
def test_images_without_masks_are_no_split_to_train_or_score_on(tree, arguments):
    with pytest.raises(DataError, match=r"1 of 1 images of split test have no mask, e.g. "):
        data(tree, **arguments).check()


def test_a_coloured_mask_names_no_key_that_this_data_set_lacks(tmp_path):
    path = save_image(tmp_path / "a_gtFine_labelIds.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"coloured image[\s\S]*Unpack") as error:
        Cityscapes(str(tmp_path)).mask_reader()(path)
    assert "mask_format" not in str(error.value)
