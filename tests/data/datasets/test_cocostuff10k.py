import numpy as np
import pytest
from PIL import Image

from hrseg.data import COCOStuff10K
from hrseg.errors import DataError
from tests.conftest import picture, save_image
from tests.trees import blocks, make_cocostuff10k


def test_unlabelled_is_ignored_and_the_rest_moves_down_by_one(tmp_path):
    data = COCOStuff10K(str(make_cocostuff10k(tmp_path)))
    _, mask = data.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    np.testing.assert_array_equal(data.mask_reader()(mask), np.where(raw == 0, 255, raw - 1))


def test_the_authors_layout_has_the_ids_of_coco(tmp_path):
    # 12 (street sign) is no category: 11 fire hydrant and 13 stop sign are neighbours.
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


def test_a_wrong_tree_is_answered_with_its_repair(tmp_path):
    data = COCOStuff10K(str(make_cocostuff10k(tmp_path)))
    message = r"no folder .*/vall\nexpected images/ and annotations/ of the splits train, val"
    with pytest.raises(DataError, match=message):
        data.files("vall")
    for path in (tmp_path / "annotations/test2014").iterdir():
        path.rename(path.with_suffix(".mat"))
    message = r"holds no \*_labelTrainIds.png files.\nMake the masks with scripts/prepare"
    with pytest.raises(DataError, match=message):
        data.files("val")
