"""Folder data set: layouts, masks, class names, and the error of each mistake."""

import json
from pathlib import Path

import numpy as np
import pytest

from hrseg.data import Folder
from hrseg.data.datasets.folder import read_classes
from hrseg.errors import ConfigError, DataError
from tests.conftest import save_image

NAMES = ["road", "car", "tree"]
COLORS = [[128, 64, 128], [0, 0, 142], [107, 142, 35]]
MASK = np.random.default_rng(0).integers(0, 3, (23, 31), np.uint8)


def tree(root: Path, *stems: str, mask: np.ndarray = MASK, image: str = ".jpg") -> Path:
    for stem in stems:
        save_image(root / f"images/{stem}{image}", np.repeat(mask[..., None] * 50, 3, 2))
        save_image(root / f"masks/{stem}.png", mask)
    return root


def folder(root: Path, **arguments) -> Folder:
    given = {"class_names": NAMES, "batch_size": 1, "workers": 0, "crop_size": (32, 32)}
    return Folder(str(root), **{**given, **arguments})


def stems(data: Folder, split: str) -> list[str]:
    return [image.stem for image, _ in data.files(split)]


def test_split_folders_with_images_of_mixed_sizes(tmp_path):
    root = tree(tmp_path, "train/a", "val/b")
    tree(root, "train/big", "val/tiny", mask=np.ones((301, 7), np.uint8), image=".png")
    data = folder(root, batch_size=2)
    data.check()
    assert stems(data, "train") == ["a", "big"] and stems(data, "val") == ["b", "tiny"]
    np.testing.assert_array_equal(data.val_dataset[0]["mask"].numpy(), MASK)
    assert next(iter(data.train_dataloader()))["image"].shape == (2, 3, 32, 32)
    shapes = [tuple(item["image"].shape[2:]) for item in data.val_dataloader()]
    assert shapes == [(23, 31), (301, 7)]


def test_seeded_fraction_is_stable_complete_and_disjoint(tmp_path):
    root = tree(tmp_path, *[f"{i:02}" for i in range(20)])
    data = folder(root, val_fraction=0.25)
    data.check()
    train, val = stems(data, "train"), stems(data, "val")
    assert len(val) == 5 and sorted(train + val) == [f"{i:02}" for i in range(20)]
    assert stems(folder(root, val_fraction=0.25, seed=1), "val") == val
    assert stems(folder(root, val_fraction=0.25, split_seed=1), "val") != val
    tree(root, "new")
    assert len(set(stems(folder(root, val_fraction=0.25), "val")) - set(val)) <= 1


def test_a_list_of_all_pairs_is_divided_by_the_fraction(tmp_path):
    for index in range(10):
        save_image(tmp_path / f"photos/{index}.jpg", np.repeat(MASK[..., None], 3, 2))
        save_image(tmp_path / f"other/{index}0.png", MASK)
    lines = [f"photos/{index}.jpg,other/{index}0.png" for index in range(10)]
    (tmp_path / "pairs.csv").write_text("\n".join(["image,mask", *lines]))
    data = folder(tmp_path, pair_list="pairs.csv", val_fraction=0.2)
    data.check()
    train, val = stems(data, "train"), stems(data, "val")
    assert len(val) == 2 and sorted(train + val) == [str(index) for index in range(10)]
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("photos", "other", "pairs.csv"):
        (tmp_path / name).rename(moved / name)
    assert stems(folder(moved, pair_list="pairs.csv", val_fraction=0.2), "val") == val


@pytest.mark.parametrize(
    ("split", "arguments"),
    [("val", {}), ("test", {"val_fraction": 0.5}),
     ("vlaidation", {"val_fraction": 0.5, "val_split": "vlaidation", "train_split": "foo"}),
     ("train", {"val_fraction": 0.5, "val_split": "train"})],
)  # fmt: skip
def test_the_error_of_an_undefined_split_has_the_three_ways_to_define_it(
    tmp_path, split, arguments
):
    message = r"has no folder [\s\S]*val_fraction[\s\S]*images/val[\s\S]*train\.txt"
    with pytest.raises(DataError, match=message) as error:
        folder(tree(tmp_path, "a", "b"), **arguments).files(split)
    assert len(str(error.value).splitlines()) <= 4


def test_two_classes_with_the_same_name_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.class_names has 'car' twice") as error:
        folder(tmp_path, class_names=["road", "car", "car"])
    assert "Fix: " in str(error.value)


@pytest.mark.parametrize("fraction", [0.01, 1.0, -0.5])
def test_a_fraction_that_leaves_a_split_empty_is_an_error(tmp_path, fraction):
    data = folder(tree(tmp_path, "a", "b"), val_fraction=fraction)
    with pytest.raises(DataError, match=r"val_fraction .* of 2 images .* empty"):
        data.check()


def test_lists_with_a_common_image_are_an_error(tmp_path):
    root = tree(tmp_path, "a", "b")
    (root / "train.txt").write_text("a\nb\n")
    (root / "val.txt").write_text("images/b.jpg\n")
    data = folder(root, train_split="train.txt", val_split="val.txt")
    assert stems(data, "train.txt") == ["a", "b"] and stems(data, "val.txt") == ["b"]
    with pytest.raises(DataError, match="1 images are in the training and in the validation"):
        data.check()


@pytest.mark.parametrize(
    ("image_folder", "mask_folder"),
    [("{split}/images", "{split}/masks"), ("{split}", "{split}annot"), ("{split}", "labels")],
)
def test_the_split_may_be_anywhere_in_the_folder_names(tmp_path, image_folder, mask_folder):
    for split in ("train", "val"):
        masks = mask_folder if "{split}" in mask_folder else mask_folder + "/{split}"
        save_image(tmp_path / image_folder.format(split=split) / f"{split}.png", MASK)
        save_image(tmp_path / masks.format(split=split) / f"{split}.png", MASK)
    data = folder(tmp_path, image_folder=image_folder, mask_folder=mask_folder)
    assert stems(data, "train") == ["train"] and stems(data, "val") == ["val"]


def test_masks_beside_the_images_with_a_suffix(tmp_path):
    for stem in ("a", "b"):
        save_image(tmp_path / f"all/{stem}.png", np.repeat(MASK[..., None], 3, 2))
        save_image(tmp_path / f"all/{stem}_mask.png", MASK)
    options = {"image_folder": "all", "mask_folder": "all", "mask_suffix": "_mask"}
    data = folder(tmp_path, val_fraction=0.5, **options)
    assert sorted(stems(data, "train") + stems(data, "val")) == ["a", "b"]


def test_id_map_and_ignore_ids_return_train_ids(tmp_path):
    raw = np.array([[0, 7, 9], [33, 255, 7]], np.uint8)
    root = tree(tmp_path, "val/b", mask=raw)
    data = folder(root, id_map={7: 0, 9: 1, 33: 2}, ignore_ids=[0, 255])
    assert data.dataset("val")[0]["mask"].tolist() == [[255, 0, 1], [2, 255, 0]]


def test_rgb_masks_with_a_void_colour(tmp_path):
    palette = [*COLORS, [0, 0, 0]]
    ids = MASK.copy()
    ids[0] = 3
    root = tree(tmp_path, "val/b")
    save_image(root / "masks/val/b.png", np.array(palette, np.uint8)[ids])
    data = folder(root, mask_format="rgb", palette=palette, ignore_ids=[3])
    expected = np.where(ids == 3, 255, ids)
    np.testing.assert_array_equal(data.dataset("val")[0]["mask"].numpy(), expected)
    assert data.palette == tuple(map(tuple, COLORS))


def test_a_class_may_have_several_colours(tmp_path):
    palette = [*COLORS, [9, 9, 9]]
    data = folder(tmp_path, mask_format="rgb", palette=palette, id_map={0: 2, 1: 1, 2: 0, 3: 0})
    assert data.palette == ((107, 142, 35), (0, 0, 142), (128, 64, 128))


@pytest.mark.parametrize(
    ("mask_format", "palette", "message"),
    [
        ("rgb", None, "needs a palette"),
        ("rgb", [[1, 1, 1], [1, 1, 1], [2, 2, 2]], "palette with different colours"),
        ("rgb", COLORS[:2], r"class 2 \(tree\)"),
        ("index", COLORS[:2], "palette has 2 colours for 3 class_names"),
    ],
)
def test_a_palette_of_another_size_is_refused(tmp_path, mask_format, palette, message):
    with pytest.raises(ConfigError, match=message):
        folder(tmp_path, mask_format=mask_format, palette=palette)


def test_too_few_class_names_are_refused_with_the_fix(tmp_path):
    with pytest.raises(
        DataError, match=r"unknown id 2 .*\n.*0\.\.1, 255.*\n.*2 class_names"
    ) as error:
        folder(tree(tmp_path, "train/a", "val/b"), class_names=NAMES[:2]).check()
    assert len(str(error.value).splitlines()) <= 4


def test_class_names_and_palette_from_files(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ntraffic light\n\n")
    assert folder(tmp_path, class_names=[]).class_names == ("road", "traffic light")
    (tmp_path / "classes.json").write_text(json.dumps({"classes": NAMES, "palette": COLORS}))
    data = folder(tmp_path, class_names=[])
    assert data.class_names == tuple(NAMES) and data.palette == tuple(map(tuple, COLORS))


def test_missing_class_names_are_an_error(tmp_path):
    (tmp_path / "classes.txt").write_text("\n")
    with pytest.raises(DataError, match=r"classes\.json or classes\.txt[\s\S]*data\.class_names="):
        read_classes(tmp_path)
    with pytest.raises(DataError, match=r"folder .*gone does not exist"):
        read_classes(tmp_path / "gone")


@pytest.mark.parametrize(
    "text", ["{", "[" * 5000, '{"classes": 3}', '{"classes": ["a"], "palette": [[1, 2, 256]]}']
)
def test_invalid_json_is_an_error_with_an_example(tmp_path, text):
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes\.json is invalid: .*\nExpected: {\"classes\""):
        read_classes(tmp_path)


@pytest.mark.parametrize("name", ["a\nhrseg: all is well", "a" * 10**6])
def test_a_class_name_with_control_characters_or_too_long_is_refused(name, tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps({"classes": ["road", name, "tree"]}))
    with pytest.raises(
        ConfigError, match=r"The name of class 1 is .*\nExpected: one line"
    ) as error:
        folder(tmp_path, class_names=[])
    assert len(str(error.value)) < 1500 and "\x1b" not in str(error.value)


def test_a_custom_transform_changes_training_crops_only(tmp_path):
    root = tree(tmp_path, "train/a", "val/b")
    data = folder(root, transform=lambda image, mask: {"image": 255 - image, "mask": mask})
    plain = folder(root)
    for each in (data, plain):
        each.setup()
    assert (data.train_dataset[0]["image"] == 255 - plain.train_dataset[0]["image"]).all()
    assert (data.val_dataset[0]["image"] == plain.val_dataset[0]["image"]).all()


def test_nested_folders_are_one_data_set(tmp_path):
    for scene in ("scene0", "scene1"):
        tree(tmp_path / scene, "a", "b", "c")
    data = folder(tmp_path, image_folder="*/images", mask_folder="*/masks", val_fraction=0.5)
    data.check()
    pairs = data.files("train") + data.files("val")
    names = {f"{s}/images/{n}.jpg" for s in ("scene0", "scene1") for n in "abc"}
    assert {image.relative_to(tmp_path).as_posix() for image, _ in pairs} == names
    assert all(image.parts[-3] == mask.parts[-3] for image, mask in pairs)


def test_on_error_skip_leaves_out_images_without_a_mask(tmp_path):
    tree(tmp_path, "train/a", "train/b", "val/c")
    (tmp_path / "masks/train/b.png").unlink()
    with pytest.raises(DataError, match=r"no mask: b.jpg[\s\S]*data.on_error=skip"):
        folder(tmp_path).files("train")
    with pytest.warns(UserWarning, match=r"1 of 2 images .* b.jpg. They are left out"):
        assert stems(folder(tmp_path, on_error="skip"), "train") == ["a"]


@pytest.mark.parametrize("header", ["", "image,mask\n", "Filename,Label\n"])
def test_a_csv_list_is_read_with_and_without_a_header(tmp_path, header):
    root = tree(tmp_path, "a 1", "b")
    lines = [f"images/{stem}.jpg,masks/{stem}.png" for stem in ("b", "a 1")]
    (root / "pairs.csv").write_text(header + "\n".join(lines))
    assert stems(folder(root), "pairs.csv") == ["b", "a 1"]
    with pytest.raises(
        DataError, match=r"other.csv does not exist.\nExpected: a list.*`image,mask`"
    ):
        folder(root).files("other.csv")


def test_the_error_of_a_coloured_mask_has_the_init_command(tmp_path):
    mask = save_image(tmp_path / "a.png", np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=f"Fix: .*hrseg init {tmp_path}"):
        folder(tmp_path).mask_reader()(mask)


def test_custom_names_without_a_pixel_are_a_warning_before_training(tmp_path):
    tree(tmp_path, "train/a", "val/b")
    with pytest.warns(UserWarning, match=r"without a pixel in a sample .*: bus, boat"):
        folder(tmp_path, class_names=[*NAMES, "bus", "boat"]).check()
