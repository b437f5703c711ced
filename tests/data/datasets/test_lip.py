"""LIP: layouts, left and right in mirrored images, and the errors of wrong trees."""

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


def test_the_flat_layout_pairs_by_name(tmp_path):
    module = data(make_lip(tmp_path, flat=True))
    assert len(module.files("train")) == 3
    assert all(image.stem == mask.stem for image, mask in module.files("train"))


def test_archives_unpacked_into_a_folder_of_their_name_are_read(tree):
    for name in ("TrainVal_images", "TrainVal_parsing_annotations"):
        (tree / name).rename(tree / "inner")
        (tree / name).mkdir()
        (tree / "inner").rename(tree / name / name)
    assert len(data(tree).files("val")) == 2


def test_test_images_have_no_masks(tree):
    save_image(tree / "Testing_images/testing_images/7_1.jpg", np.zeros((40, 40, 3), np.uint8))
    assert [mask for _, mask in data(tree).files("test")] == [None]


def test_ids_are_train_ids_and_grey_photographs_become_colour(tree):
    _, mask = data(tree).files("val")[0]
    np.testing.assert_array_equal(data(tree).mask_reader()(mask), np.asarray(Image.open(mask)))
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


def test_the_third_column_of_the_authors_list_is_ignored_with_a_warning(tree):
    lines = "train_images/{0}.jpg train_segmentations/{0}.png train_segmentations_reversed/{0}.png"
    pairs = data(tree).files("train")
    (tree / "trainList.txt").write_text("\n".join(lines.format(i.stem) for i, _ in pairs))
    with pytest.warns(UserWarning, match=r"trainList.txt: the third column is ignored \(mirrored"):
        assert data(tree).files("trainList.txt") == pairs


def test_a_mirrored_image_swaps_left_and_right(tree):
    # At scale 1 of the squashed size the crop is the whole image. Each half has one of the classes
    # 14 and 15: in the mirrored image the left half is again class 14, the left arm.
    mask = np.zeros((90, 60), np.uint8)
    mask[:, :30], mask[:, 30:] = 14, 15
    for _, path in data(tree).files("train"):
        Image.fromarray(mask).save(path)
    always, never = (
        data(tree, crop_size=(48, 48), squash=(48, 48), scales=(1.0, 1.0), flip=flip)
        for flip in (1.0, 0.0)
    )
    flipped = always.dataset("train", train=True)[Key(0)]
    plain = never.dataset("train", train=True)[Key(0)]
    assert plain["mask"].shape == (48, 48)
    assert (plain["mask"][:, :24] == 14).all() and (plain["mask"][:, 24:] == 15).all()
    np.testing.assert_array_equal(flipped["mask"], plain["mask"])
    np.testing.assert_array_equal(flipped["image"], plain["image"].flip(2))


def test_the_official_squash_keeps_the_whole_image_at_scale_1(tree):
    module = data(tree, crop_size=(473, 473), squash=(473, 473), base_size=473,
                  scales=(1.0, 1.0), flip=0.0)  # fmt: skip
    item = module.dataset("train", train=True)[Key(0)]
    raw = np.asarray(Image.open(module.files("train")[0][1]))
    # 90x60 to 473x473: pixel (row, column) shows (row * 90 / 473, column * 60 / 473).
    rows, columns = (np.arange(473) * n // 473 for n in raw.shape)
    assert (item["mask"].numpy() == raw[rows][:, columns]).mean() > 0.98


def break_tree(root, fault):
    masks = root / "TrainVal_parsing_annotations"
    if fault == "no masks":
        masks.rename(root / "elsewhere")
    elif fault == "list names more":
        with (root / "TrainVal_images/val_id.txt").open("a") as file:
            file.write("100034_483681\n")
    elif fault == "no images":
        for path in (root / "TrainVal_images/val_images").iterdir():
            path.unlink()
    else:
        path = masks / "val_segmentations/103_000000.png"
        Image.fromarray(np.array(LIP.palette, np.uint8)[np.asarray(Image.open(path))]).save(path)


@pytest.mark.parametrize(
    ("fault", "split", "message"),
    [
        ("no masks", "val", r"folder .*TrainVal_parsing_annotations/val_segm.* does not exist"),
        ("list names more", "val",
         r"1 of 3 names of .*/val_id\.txt have no image in .*, e.g. 100034_483681\.\n.*\nFix: "),
        ("no images", "val", r"val_images contains no images.\nExpected: \*\.jpg"),
        ("visualised", "val", "is a coloured image"),
    ],
)  # fmt: skip
def test_a_wrong_tree_is_an_error_with_the_fix(tree, fault, split, message):
    break_tree(tree, fault)
    with pytest.raises(DataError, match=message) as error:
        data(tree, val_split=split).check("validate")
    assert str(error.value).count("\n") < 3
