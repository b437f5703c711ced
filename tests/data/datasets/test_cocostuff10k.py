import numpy as np
import pytest
from PIL import Image

from hrseg.data import COCOStuff10K
from hrseg.errors import DataError
from tests.conftest import picture, save_image
from tests.trees import blocks, make_cocostuff10k


def data(root, **arguments):
    return COCOStuff10K(str(root), batch_size=1, crop_size=(32, 32), workers=0, **arguments)


def test_there_are_171_classes_and_colours():
    assert len(COCOStuff10K.class_names) == len(COCOStuff10K.palette) == 171
    assert COCOStuff10K.class_names[:2] == ("person", "bicycle")


def test_unlabelled_is_ignored_and_the_rest_moves_down_by_one(tmp_path):
    module = data(make_cocostuff10k(tmp_path))
    assert len(module.files("train")) == 3
    _, mask = module.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    np.testing.assert_array_equal(module.mask_reader()(mask), np.where(raw == 0, 255, raw - 1))


def test_the_authors_layout_has_the_ids_of_coco(tmp_path):
    # 12 (street sign) is no category: 11 fire hydrant and 13 stop sign are neighbours.
    mask = blocks((40, 50), [0, 1, 11, 13, 90, 92, 182], [1])
    save_image(tmp_path / "val/image/1.jpg", picture((40, 50), [1]))
    save_image(tmp_path / "val/label/1.png", mask)
    (tmp_path / "val.lst").write_text("val/image/1.jpg val/label/1.png\n")
    for split in ("val", "val.lst"):
        [(_, path)] = data(tmp_path).files(split)
        ids = data(tmp_path).mask_reader()(path)
        names = COCOStuff10K.class_names
        found = {raw: names[ids[mask == raw][0]] for raw in (1, 11, 13, 90, 92, 182)}
        assert found == {1: "person", 11: "fire hydrant", 13: "stop sign", 90: "toothbrush",
                         92: "banner", 182: "wood"}  # fmt: skip
        assert (ids[mask == 0] == 255).all()


def break_tree(root, how):
    mask = root / "annotations/test2014/COCO_train2014_000000000000_labelTrainIds.png"
    if how == "no masks":
        (root / "annotations").rename(root / "other")
    elif how == "mat files":
        for path in (root / "annotations/test2014").iterdir():
            path.rename(path.with_name(path.stem.removesuffix("_labelTrainIds") + ".mat"))
    elif how == "categories":
        Image.fromarray(np.full((90, 120), 182, np.uint8)).save(mask)
    elif how == "id 254":
        Image.fromarray(np.full((90, 120), 254, np.uint8)).save(mask)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no masks", "no folder .*annotations/test2014\nexpected images/ and annotations/"),
        ("mat files", r"holds no \*_labelTrainIds.png files.\nMake the masks with scripts/prepare"),
        ("categories", r"unknown id 182 .*\n.*has 0 \(ignored\) and 1..171"),
        ("id 254", r"unknown id 254 \(10800 pixels\)\nexpected 0..171, 255"),
    ],
)
def test_a_wrong_tree_is_answered_with_its_repair(tmp_path, how, message):
    root = make_cocostuff10k(tmp_path)
    break_tree(root, how)
    with pytest.raises(DataError, match=message):
        data(root).check("validate")


def test_an_unknown_split_and_a_list_with_a_missing_file_are_named(tmp_path):
    root = make_cocostuff10k(tmp_path)
    with pytest.raises(DataError, match=r"/vall\nexpected one of the splits train, val"):
        data(root).files("vall")
    (root / "val.lst").write_text("val/image/gone.jpg val/label/gone.png\n")
    with pytest.raises(DataError, match=r"val.lst, line 1: no file val/label/gone.png"):
        data(root).files("val.lst")


def test_a_root_one_level_off_is_named(tmp_path):
    root = make_cocostuff10k(tmp_path / "sets" / "coco")
    with pytest.raises(DataError, match=f"Did you mean data.root={root}\\?"):
        data(root.parent).files("val")
