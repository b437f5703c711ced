"""COCO-Stuff-10K: ids of both layouts, and the errors of wrong trees and masks."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data import COCOStuff10K
from hrseg.errors import DataError
from tests.conftest import picture, save_image
from tests.trees import blocks, make_cocostuff10k


def test_unlabelled_is_ignored_and_other_ids_decrease_by_one(tmp_path):
    data = COCOStuff10K(str(make_cocostuff10k(tmp_path)))
    _, mask = data.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    np.testing.assert_array_equal(data.mask_reader()(mask), np.where(raw == 0, 255, raw - 1))


def test_the_authors_layout_has_the_ids_of_coco(tmp_path):
    # 12 (street sign) is unused: 11 fire hydrant and 13 stop sign are neighbours.
    mask = blocks((40, 50), [0, 1, 11, 13, 90, 92, 182], [1])
    save_image(tmp_path / "val/image/1.jpg", picture((40, 50), [1]))
    save_image(tmp_path / "val/label/1.png", mask)
    data = COCOStuff10K(str(tmp_path))
    [(_, path)] = data.files("val")
    ids = data.mask_reader()(path)
    names = {raw: data.class_names[ids[mask == raw][0]] for raw in (1, 11, 13, 90, 92, 182)}
    assert names == {1: "person", 11: "fire hydrant", 13: "stop sign", 90: "toothbrush",
                     92: "banner", 182: "wood"}  # fmt: skip
    assert (ids[mask == 0] == 255).all()


def test_a_wrong_tree_is_an_error_with_the_fix(tmp_path):
    data = COCOStuff10K(str(make_cocostuff10k(tmp_path)))
    message = r"/vall does not exist.\nExpected: images/ and annotations/ of the splits train, val"
    with pytest.raises(DataError, match=message):
        data.files("vall")
    for path in (tmp_path / "annotations/test2014").iterdir():
        path.rename(path.with_suffix(".mat"))
    message = r"no masks.\nExpected: \*_labelTrainIds.png files.\nFix: make the masks with scripts/"
    with pytest.raises(DataError, match=message):
        data.files("val")


@pytest.mark.parametrize("path", ["val/label/1.png", "annotations/test2014/1_labelTrainIds.png"])
def test_masks_of_cocostuff_164k_are_refused(tmp_path, path):
    """Their ids begin at 0 = person; 255 is unlabelled, which masks of the 10k set never have."""
    mask = save_image(tmp_path / path, blocks((40, 50), [0, 10, 90, 255], [1]))
    with pytest.raises(DataError, match=r"unknown id 255[\s\S]*164k"):
        COCOStuff10K(str(tmp_path)).mask_reader()(mask)


def test_only_a_folder_with_this_data_set_is_suggested_as_root(tmp_path):
    """ADE20K also has a folder named annotations."""
    (tmp_path / "ade/annotations/training").mkdir(parents=True)
    with pytest.raises(DataError, match="Expected: images/ and annotations/"):
        COCOStuff10K(str(tmp_path)).files("val")
    make_cocostuff10k(tmp_path / "coco")
    with pytest.raises(DataError, match=r"data\.root=.*/coco"):
        COCOStuff10K(str(tmp_path)).files("val")
