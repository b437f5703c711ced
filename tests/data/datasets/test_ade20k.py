"""ADE20K: ids, layouts, and the test split without masks."""

import numpy as np
import pytest
from PIL import Image

from hrseg.data import ADE20K
from hrseg.errors import DataError
from tests.conftest import picture, save_image
from tests.trees import blocks, make_ade20k


def test_other_is_ignored_and_other_ids_decrease_by_one(tmp_path):
    data = ADE20K(str(make_ade20k(tmp_path)))
    _, mask = data.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    np.testing.assert_array_equal(data.mask_reader()(mask), np.where(raw == 0, 255, raw - 1))
    assert data.class_names[0] == "wall" and data.class_names[149] == "flag"


def test_the_root_may_be_the_parent_folder(tmp_path):
    make_ade20k(tmp_path / "ADEChallengeData2016")
    assert len(ADE20K(str(tmp_path)).files("train")) == 3
    with pytest.raises(DataError, match="unpack ADEChallengeData2016"):
        ADE20K(str(tmp_path / "nowhere")).files("val")


def test_the_authors_layout_is_read(tmp_path):
    image = save_image(tmp_path / "val/image/ADE_val_1.jpg", picture((40, 50), [1]))
    mask = save_image(tmp_path / "val/label/ADE_val_1.png", blocks((40, 50), range(5), [1]))
    save_image(tmp_path / "train/label/1.png", blocks((40, 50), range(5), [1]))
    assert list(ADE20K(str(tmp_path)).files("val")) == [(image, mask)]


@pytest.mark.parametrize("beside", ["", "ADEChallengeData2016"])
def test_the_test_images_have_no_masks(tmp_path, beside):
    make_ade20k(tmp_path / beside)
    data = ADE20K(str(tmp_path))
    with pytest.raises(DataError, match=r"no test images in .*\n.*\nFix: unpack release_test.zip"):
        data.files("test")
    path = tmp_path / "release_test/testing/ADE_test_00000001.jpg"
    save_image(path, picture((40, 50), [1]))
    assert data.files("test") == [(path, None)]
