"""LIP: layouts that people have, left and right in mirror images, trees that are wrong."""

import re

import numpy as np
import pytest
from PIL import Image

from hrseg.data import LIP
from hrseg.data.dataset import Key
from hrseg.errors import DataError
from tests.conftest import save_image
from tests.trees import make_lip


def data(root, **arguments):
    return LIP(str(root), batch_size=1, workers=0, **arguments)


@pytest.fixture
def tree(tmp_path):
    return make_lip(tmp_path)


def test_the_official_and_the_flat_layout_pair_by_name(tmp_path):
    for flat in (False, True):
        module = data(make_lip(tmp_path / str(flat), flat=flat))
        for split, count in (("train", 3), ("val", 2)):
            files = module.files(split)
            assert len(files) == count
            assert all(image.stem == mask.stem for image, mask in files)


def test_archives_that_unpack_into_a_folder_of_their_name_are_found(tree):
    for home in ("TrainVal_images", "TrainVal_parsing_annotations"):
        (tree / home).rename(tree / "inner")
        (tree / home).mkdir()
        (tree / "inner").rename(tree / home / home)
    assert len(data(tree).files("val")) == 2


def test_test_images_have_no_masks(tree):
    save_image(tree / "Testing_images/testing_images/7_1.jpg", np.zeros((40, 40, 3), np.uint8))
    assert [mask for _, mask in data(tree).files("test")] == [None]


def test_ids_are_train_ids_background_included(tree):
    _, mask = data(tree).files("val")[0]
    np.testing.assert_array_equal(data(tree).mask_reader()(mask), np.asarray(Image.open(mask)))


def test_grey_photographs_become_colour(tree):
    image, _ = data(tree).dataset("val").read(1)
    assert image.shape[2] == 3 and (image[..., 0] == image[..., 2]).all()


@pytest.mark.parametrize(
    "line", ["val_images/{0}.jpg val_segmentations/{0}.png", "{0}.jpg {0}.png"]
)
def test_the_authors_list_files_are_read_with_and_without_the_folder(tree, line):
    pairs = data(tree).files("val")
    lines = [line.format(image.stem) for image, _ in pairs]
    (tree / "valList.txt").write_text("\n".join(lines))
    assert data(tree).files("valList.txt") == pairs


def test_a_mirrored_image_swaps_left_and_right(tree):
    # Scale 1 of the squashed size, so the crop is the whole image; classes 14 and 15 on one side
    # each: in the mirror image the same person's left arm is still on the picture's left.
    mask = np.zeros((90, 60), np.uint8)
    mask[:, :30], mask[:, 30:] = 14, 15
    for _, path in data(tree).files("train"):
        Image.fromarray(mask).save(path)
    always = data(tree, crop_size=(48, 48), squash=(48, 48), scales=(1.0, 1.0), flip=1.0)
    never = data(tree, crop_size=(48, 48), squash=(48, 48), scales=(1.0, 1.0), flip=0.0)
    flipped = always.dataset("train", train=True)[Key(0)]
    plain = never.dataset("train", train=True)[Key(0)]
    assert plain["mask"].shape == (48, 48)
    assert (plain["mask"][:, :24] == 14).all() and (plain["mask"][:, 24:] == 15).all()
    np.testing.assert_array_equal(flipped["mask"], plain["mask"])
    np.testing.assert_array_equal(flipped["image"], plain["image"].flip(2))


def test_a_squashed_image_keeps_all_of_it_whatever_its_shape(tree):
    module = data(tree, crop_size=(32, 32), squash=(32, 32), scales=(1.0, 1.0), flip=0.0)
    item = module.dataset("train", train=True)[Key(0)]
    assert set(item["mask"].unique().tolist()) == set(range(20))


def break_tree(root, how):
    masks = root / "TrainVal_parsing_annotations"
    path = masks / "val_segmentations/103_000000.png"
    pixels = np.asarray(Image.open(path)).copy()
    if how == "three columns":
        (root / "val.txt").write_text("val_images/1.jpg val_segmentations/1.png reversed/1.png")
    elif how == "four columns":
        (root / "val.txt").write_text("val_images/1.jpg val_segmentations/1.png rev/1.png 0")
    elif how == "no masks":
        masks.rename(root / "elsewhere")
    elif how == "list names more":
        with (root / "TrainVal_images/val_id.txt").open("a") as file:
            file.write("100034_483681\n")
    elif how == "other split":
        path.rename(masks / "train_segmentations" / path.name)
    elif how == "id 254":
        pixels[:2, :2] = 254
        Image.fromarray(pixels).save(path)
    elif how == "visualised":
        Image.fromarray(np.array(LIP.palette, np.uint8)[pixels]).save(path)


@pytest.mark.parametrize(
    ("how", "split", "message"),
    [
        (
            "three columns",
            "val.txt",
            r"3 columns; .* mirrored mask: hrseg mirrors .*\nKeep the first two",
        ),
        (
            "four columns",
            "val.txt",
            r"line 1 has 4 columns; .*\nKeep the first two: cut -d' ' -f1,2",
        ),
        ("no masks", "val", r"no folder .*TrainVal_parsing_annotations/val_segm.*\nUnpack"),
        (
            "list names more",
            "val",
            r"1 of 3 names of .*/val_id\.txt have no image in .*, e.g. 100034_483681\nUnpack",
        ),
        ("other split", "val", "no mask in .*103_000000\nIt is in another split, .*train_segm"),
        ("id 254", "val", r"unknown id 254 \(4 pixels\)\nexpected 0..19, 255. These are not LIP's"),
        ("visualised", "val", "is a coloured image"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tree, how, split, message):
    break_tree(tree, how)
    with pytest.raises(DataError, match=message) as error:
        data(tree, val_split=split).check("validate")
    assert str(error.value).count("\n") < 3


def test_a_root_one_level_off_is_named(tmp_path):
    root = make_lip(tmp_path / "sets" / "lip")
    for wrong in (root.parent, root / "TrainVal_images", root / "TrainVal_images/val_images"):
        with pytest.raises(DataError, match=f"Did you mean data.root={re.escape(str(root))}"):
            data(wrong).files("val")


def test_a_folder_without_images_is_named(tree):
    for path in (tree / "TrainVal_images/val_images").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"val_images holds no images; expected \*\.jpg"):
        data(tree).files("val")


def test_the_official_squash_keeps_the_whole_image_at_scale_1(tree):
    module = data(tree, crop_size=(473, 473), squash=(473, 473), base_size=473,
                  scales=(1.0, 1.0), flip=0.0)  # fmt: skip
    item = module.dataset("train", train=True)[Key(0)]
    raw = np.asarray(Image.open(module.files("train")[0][1]))
    # 90x60 to 473x473: pixel (row, column) shows (row * 90 / 473, column * 60 / 473).
    rows, columns = (np.arange(473) * n // 473 for n in raw.shape)
    assert (item["mask"].numpy() == raw[rows][:, columns]).mean() > 0.98


def test_a_list_for_another_root_names_both(tree, tmp_path):
    (tree / "val.txt").write_text("val_images/1.jpg val_segmentations/1.png")
    with pytest.raises(DataError, match=r"val\.txt, line 1: no file .*1\.png\n.*/nowhere"):
        data(tmp_path / "nowhere").files(str(tree / "val.txt"))
