import numpy as np
import pytest
from PIL import Image

from hrseg.data import ADE20K
from hrseg.errors import DataError
from tests.conftest import picture, save_image
from tests.trees import blocks, make_ade20k


def data(root, **arguments):
    return ADE20K(str(root), batch_size=1, crop_size=(32, 32), workers=0, **arguments)


def test_there_are_150_classes_and_colours():
    assert len(ADE20K.class_names) == len(ADE20K.palette) == 150
    assert ADE20K.class_names[0] == "wall" and ADE20K.class_names[149] == "flag"


def test_other_is_ignored_and_the_rest_moves_down_by_one(tmp_path):
    module = data(make_ade20k(tmp_path))
    _, mask = module.files("val")[0]
    raw = np.asarray(Image.open(mask)).astype(int)
    expected = np.where(raw == 0, 255, raw - 1)
    np.testing.assert_array_equal(module.mask_reader()(mask), expected)


def test_splits_are_found_from_the_folder_and_from_above_it(tmp_path):
    make_ade20k(tmp_path / "ADEChallengeData2016")
    for root in (tmp_path, tmp_path / "ADEChallengeData2016"):
        assert len(data(root).files("train")) == 3 and len(data(root).files("val")) == 2


def test_the_authors_layout_and_list_are_read(tmp_path):
    save_image(tmp_path / "val/image/ADE_val_1.jpg", picture((40, 50), [1]))
    save_image(tmp_path / "val/label/ADE_val_1.png", blocks((40, 50), range(5), [1]))
    save_image(tmp_path / "train/label/1.png", blocks((40, 50), range(5), [1]))
    (tmp_path / "val.lst").write_text("val/image/ADE_val_1.jpg val/label/ADE_val_1.png\n")
    pair = (tmp_path / "val/image/ADE_val_1.jpg", tmp_path / "val/label/ADE_val_1.png")
    assert list(data(tmp_path).files("val")) == [pair]
    assert data(tmp_path).files("val.lst") == [pair]
    (tmp_path / "val.lst").write_text("val/image/ADE_val_1.jpg val/label/gone.png\n")
    with pytest.raises(DataError, match=r"val.lst, line 1: no file val/label/gone.png"):
        data(tmp_path).files("val.lst")


@pytest.mark.parametrize("beside", ["", "ADEChallengeData2016"])
def test_the_test_images_have_no_masks(tmp_path, beside):
    make_ade20k(tmp_path / beside)
    with pytest.raises(DataError, match=r"no test images in .*\nUnpack release_test.zip"):
        data(tmp_path).files("test")
    image = save_image(
        tmp_path / "release_test/testing/ADE_test_00000001.jpg", picture((40, 50), [1])
    )
    assert data(tmp_path).files("test") == [(image, None)]


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (np.full((80, 100), 200, np.uint8), r"unknown id 200 .*\n.*0..150, 255. ADE20K has ids"),
        (np.full((80, 100), 254, np.uint8), r"unknown id 254 \(8000 pixels\)\nexpected 0..150"),
    ],
)
def test_masks_of_another_kind_are_refused(tmp_path, raw, message):
    root = make_ade20k(tmp_path)
    Image.fromarray(raw).save(root / "annotations/validation/ADE_val_00000001.png")
    with pytest.raises(DataError, match=message):
        data(root).check("validate")


def test_a_root_one_level_off_is_named(tmp_path):
    root = make_ade20k(tmp_path / "sets" / "ade")
    for wrong in (root.parent, root / "images"):
        with pytest.raises(DataError, match=f"Did you mean data.root={root}\\?"):
            data(wrong).files("val")
    with pytest.raises(DataError, match="Unpack ADEChallengeData2016"):
        data(tmp_path / "nowhere").files("val")
