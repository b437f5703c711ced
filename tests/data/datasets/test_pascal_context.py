import json
import re

import numpy as np
import pytest
from PIL import Image

from hrseg.data import PascalContext
from hrseg.data.analysis.check import find_split
from hrseg.data.datasets.pascal_context import CLASS_NAMES, FREQUENT, FREQUENT_IN_FCN_ORDER
from hrseg.errors import ConfigError, DataError
from tests.conftest import save_image
from tests.trees import make_pascal_context

# The order of FCN's list, its first entries.
FCN = ("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
       "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
       "train", "tvmonitor", "bag", "bed", "bench", "book")  # fmt: skip


def data(root, **arguments):
    return PascalContext(str(root), batch_size=1, crop_size=(32, 32), workers=0, **arguments)


@pytest.fixture
def tree(tmp_path):
    return make_pascal_context(tmp_path)


def test_classes_are_in_the_order_of_their_names():
    assert CLASS_NAMES[0] == "background" and list(CLASS_NAMES[1:]) == sorted(CLASS_NAMES[1:])
    assert len(CLASS_NAMES) == 60


@pytest.mark.parametrize("num_classes", [59, 60])
def test_the_background_is_ignored_or_a_class(tree, num_classes):
    module = data(tree, num_classes=num_classes)
    assert module.num_classes == len(module.palette) == num_classes
    assert module.class_names[-1] == "wood"
    _, mask = module.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    expected = raw if num_classes == 60 else np.where(raw == 0, 255, raw - 1)
    np.testing.assert_array_equal(module.mask_reader()(mask), expected)


def test_another_number_of_classes_is_refused(tree):
    with pytest.raises(ConfigError, match="num_classes is 33; expected 59 or 60"):
        data(tree, num_classes=33)


def test_lists_say_which_images_belong_to_a_split(tree):
    module = data(tree)
    assert len(module.files("train")) == 3 and len(module.files("val")) == 2
    assert all(image.stem == mask.stem for image, mask in module.files("train"))


def test_root_may_be_a_folder_above(tmp_path):
    make_pascal_context(tmp_path / "VOCdevkit" / "VOC2010")
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert len(data(root).files("val")) == 2


def test_either_official_count_is_taken_without_a_word(tree):
    module = data(tree)
    for split, counts in (("train", (4996, 4998)), ("val", (5104, 5105))):
        assert [module.shortfall(split, count) for count in counts] == [None, None]
    assert "100 images, the official data set has 5104" in module.shortfall("val", 100)


def realistic(root, frequent, count=32):
    """Masks that are mostly of the frequent classes, as photographs are."""
    make_pascal_context(root, {"val": count})
    for index, path in enumerate(sorted((root / "SegmentationClassContext").glob("*.png"))):
        mask = np.random.default_rng(index).choice(np.array(frequent, np.uint8), (6, 8))
        mask[0], mask[1] = 7, 59
        Image.fromarray(mask.repeat(10, 0).repeat(10, 1)).save(path)
        save_image(root / f"JPEGImages/{path.stem}.jpg", np.zeros((60, 80, 3), np.uint8))
    return data(root)


def test_masks_in_the_order_of_fcn_are_seen_by_what_is_frequent(tmp_path):
    realistic(tmp_path / "ours", FREQUENT).check("validate")
    # A few masks prove nothing: a warning.
    with pytest.warns(UserWarning, match="are they in FCN's order"):
        realistic(tmp_path / "few", FREQUENT_IN_FCN_ORDER, count=31).check("validate")
    with pytest.raises(DataError, match=r"order of FCN \(aeroplane, bicycle") as error:
        realistic(tmp_path / "fcn", FREQUENT_IN_FCN_ORDER).check("validate")
    assert "scripts/prepare_pascal_context" in str(error.value)
    # `hrseg data check` pairs the files and looks at each of them.
    [fault] = find_split(data(tmp_path / "fcn"), "val").faults
    assert "order of FCN" in fault.message


def test_masks_of_the_20_classes_of_voc_are_refused(tmp_path):
    module = realistic(tmp_path, FREQUENT)
    for path in module.masks.glob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)) % 21).save(path)
    with pytest.raises(DataError, match=r"20 classes of VOC .*\n.*prepare_pascal_context"):
        module.files("val")


def test_masks_of_the_459_labels_are_refused(tree):
    for path in (tree / "SegmentationClassContext").glob("*.png"):
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) + 400).save(path)
    message = r"ids up to 459.*\nNone of 2 masks .*459 labels.*prepare_pascal_context"
    with pytest.raises(DataError, match=message):
        data(tree).files("val")


@pytest.mark.parametrize("place", ["SegmentationClassContext/", ""])
def test_a_list_of_names_in_the_order_of_fcn_is_refused(tree, place):
    write_fcn_names(tree / f"{place}59_labels.txt")
    with pytest.raises(DataError, match=r"_labels.*names the classes in the order of FCN"):
        data(tree).check("validate")


def test_masks_that_are_surely_in_the_right_order_outweigh_a_list_of_names(tmp_path, tree):
    # The list comes with the .mat files, from which our masks may have been made.
    module = realistic(tmp_path / "many", FREQUENT)
    write_fcn_names(tmp_path / "many" / "59_labels.txt")
    module.check("validate")
    assert len(module.val_dataset) == len(module.files("val"))
    write_fcn_names(tree / "59_labels.txt")
    names = json.dumps({"classes": CLASS_NAMES})
    (tree / "SegmentationClassContext/classes.json").write_text(names)
    assert len(data(tree).files("val")) == 2


def write_fcn_names(path):
    path.write_text("".join(f"{number}: {name}\n" for number, name in enumerate(FCN, 1)))


def test_a_list_of_names_in_the_right_order_is_no_trouble(tree):
    names = json.dumps({"classes": CLASS_NAMES})
    (tree / "SegmentationClassContext/classes.json").write_text(names)
    assert len(data(tree).files("val")) == 2


@pytest.mark.parametrize("text", ["{", "[]", '{"names": 3}', '{"classes": 3}'])
def test_another_classes_json_is_no_trouble(tree, text):
    (tree / "SegmentationClassContext/classes.json").write_text(text)
    assert len(data(tree).files("val")) == 2


def break_tree(root, how):
    masks = root / "SegmentationClassContext"
    path = masks / "2008_300000.png"
    pixels = np.asarray(Image.open(path)).copy()
    if how == "no masks":
        masks.rename(root / "elsewhere")
    elif how == "no list":
        (root / "ImageSets/SegmentationContext/train.txt").unlink()
        (root / "ImageSets/SegmentationContext/val.txt").unlink()
    elif how == "one missing":
        path.unlink()
    elif how == "16 bit":
        Image.fromarray(pixels.astype(np.uint16) + 400).save(path)
    elif how == "another set":
        Image.fromarray(pixels + 60).save(path)
    elif how == "id 254":
        pixels[:2, :2] = 254
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no masks", "no folder .*SegmentationClassContext\nexpected JPEGImages and"),
        ("no list", r"no list .*SegmentationContext/val.txt; expected a stem per line.\nMake"),
        ("one missing", "1 of 2 names in .*val.txt have no mask in .*2008_300000"),
        ("16 bit", "holds ids up to 459"),
        ("another set", "unknown id 60 "),
        ("id 254", r"unknown id 254 \(4 pixels\)\nexpected 0..59, 255"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tree, how, message):
    break_tree(tree, how)
    with pytest.raises(DataError, match=message) as error:
        data(tree).check("validate")
    if how != "16 bit":
        assert "scripts/prepare_pascal_context" in str(error.value)


def test_an_unknown_split_is_answered_with_those_that_are_there(tree):
    with pytest.raises(DataError, match=r"no list .*/test.txt.*\nThe splits here are train, val"):
        data(tree).files("test")


def test_a_list_that_names_a_missing_file_is_named_with_its_line(tree):
    (tree / "val.lst").write_text("JPEGImages/gone.jpg\n")
    with pytest.raises(DataError, match=r"val.lst, line 1: no file JPEGImages/gone.jpg"):
        data(tree).files("val.lst")


def test_a_root_one_level_off_is_named(tmp_path):
    root = make_pascal_context(tmp_path / "somewhere" / "voc")
    for wrong in (root.parent, root / "JPEGImages"):
        with pytest.raises(DataError, match=f"Did you mean data.root={re.escape(str(root))}"):
            data(wrong).files("val")
