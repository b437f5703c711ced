import json

import numpy as np
import pytest
from PIL import Image

from hrseg.data import PascalContext
from hrseg.data.analysis.check import find_split
from hrseg.data.datasets.pascal_context import CLASS_NAMES, FREQUENT, FREQUENT_IN_FCN_ORDER
from hrseg.errors import DataError
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


@pytest.mark.parametrize("num_classes", [59, 60])
def test_the_background_is_ignored_or_a_class(tree, num_classes):
    module = data(tree, num_classes=num_classes)
    assert module.num_classes == len(module.palette) == num_classes
    assert list(module.class_names[-59:]) == sorted(CLASS_NAMES[1:])
    assert module.palette[-1] == (31, 0, 255)  # wood, in mmsegmentation
    _, mask = module.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    expected = raw if num_classes == 60 else np.where(raw == 0, 255, raw - 1)
    np.testing.assert_array_equal(module.mask_reader()(mask), expected)


def test_root_may_be_a_folder_above(tmp_path):
    make_pascal_context(tmp_path / "VOCdevkit" / "VOC2010")
    for root in (tmp_path, tmp_path / "VOCdevkit"):
        assert len(data(root).files("val")) == 2


def test_either_official_count_is_accepted(tree):
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


@pytest.mark.filterwarnings("ignore:split val")
def test_masks_in_the_order_of_fcn_are_refused(tmp_path):
    realistic(tmp_path / "ours", FREQUENT).check("validate")
    with pytest.raises(DataError, match=r"order of FCN \(aeroplane, bicycle") as error:
        realistic(tmp_path / "fcn", FREQUENT_IN_FCN_ORDER).check("validate")
    assert "scripts/prepare_pascal_context" in str(error.value)
    # `hrseg data check` reports it too.
    [fault] = find_split(data(tmp_path / "fcn"), "val").faults
    assert "order of FCN" in fault.message
    realistic(tmp_path / "few", FREQUENT_IN_FCN_ORDER, count=31).check("validate")


def write_names(path, names):
    if path.suffix == ".json":
        path.write_text(json.dumps({"classes": names, "made_from": "train"}, indent=1))
    else:
        path.write_text("".join(f"{number}: {name}\n" for number, name in enumerate(names, 1)))


@pytest.mark.parametrize("name", ["SegmentationClassContext/classes.json", "59_labels.txt"])
def test_names_beside_the_masks_must_be_in_the_right_order(tree, name):
    write_names(tree / name, FCN)
    with pytest.raises(DataError, match=rf"{name} names the classes in the order of FCN"):
        data(tree).files("val")
    write_names(tree / name, CLASS_NAMES)
    assert len(data(tree).files("val")) == 2


def test_masks_that_are_surely_in_the_right_order_outweigh_a_list_of_names(tmp_path):
    # The list comes with the .mat files, from which our masks may have been made.
    module = realistic(tmp_path, FREQUENT)
    write_names(tmp_path / "59_labels.txt", FCN)
    assert len(module.files("val")) == 32


def break_tree(root, how):
    path = root / "SegmentationClassContext" / "2008_300000.png"
    if how == "no masks":
        path.parent.rename(root / "elsewhere")
    elif how == "no list":
        (root / "ImageSets/SegmentationContext/val.txt").write_text("")
    elif how == "one missing":
        path.unlink()
    else:
        Image.fromarray(np.asarray(Image.open(path)).astype(np.uint16) + 400).save(path)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no masks", "no folder .*SegmentationClassContext\nexpected JPEGImages and .*scripts/"),
        ("no list", r"empty list .*/val.txt; expected a stem per line.\nThe splits here are train"),
        ("one missing", "1 of 2 names in .*val.txt have no mask in .*2008_300000.*\n.*scripts/"),
        ("16 bit", "contains ids up to 459"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tree, how, message):
    break_tree(tree, how)
    with pytest.raises(DataError, match=message):
        data(tree).check("validate")
