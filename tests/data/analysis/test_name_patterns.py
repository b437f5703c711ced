"""Prefixes and suffixes of names, from lists of names."""

from pathlib import Path

import pytest

from hrseg.data.analysis.name_patterns import class_endings, find_names
from hrseg.data.pairing import Names


def files(names):
    return {name: Path(f"{name}.png") for name in names.split()}


@pytest.mark.parametrize(
    ("images", "masks", "expected"),
    [
        ("a b", "a b", Names()),
        ("A_1 A_2", "a_1 a_2", Names()),
        ("a b", "a_L b_L", Names(mask_suffix="_L")),
        ("img_1 img_12", "mask_1 mask_12", Names("img_", "", "mask_", "")),
        ("1 2", "gt1 gt2", Names(mask_prefix="gt")),
        ("x/1_rgb y/1_rgb", "x/1_label y/1_label", Names("", "_rgb", "", "_label")),
        ("frame_rgb_001 frame_rgb_002", "frame_mask_001 frame_mask_002",
         Names("frame_rgb_", "", "frame_mask_", "")),
        # A data set with several kinds of masks: class ids are preferred.
        ("a b", "a_gt_color a_gt_instance a_gt_labelIds b_gt_color b_gt_instance b_gt_labelIds",
         Names(mask_suffix="_gt_labelIds")),
        ("a b", "c d", None),
        ("a b c d", "a_car a_road b_car b_road c_car c_road", None),
    ],
)  # fmt: skip
def test_names_in_two_folders(images, masks, expected):
    assert find_names(files(images), files(masks), same_folder=False) == expected


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("a a_mask b b_mask", Names(mask_suffix="_mask")),
        ("image_1 label_1 image_2 label_2", Names("image_", "", "label_", "")),
        ("1 mask_1 2 mask_2", Names(mask_prefix="mask_")),
        ("1_sat 1_mask 2_sat 2_mask", Names("", "_sat", "", "_mask")),
        ("left_1 right_1 left_2 right_2", None),  # two photos, no mask
        ("annotated_1 annotated_2", None),
    ],
)
def test_names_in_one_folder(names, expected):
    assert find_names(files(names), files(names), same_folder=True) == expected


def test_masks_per_class_have_the_classes_as_endings():
    assert class_endings(["a", "b"], ["a_car", "a_road", "b_car"]) == ["_car", "_road"]
    assert class_endings(["a", "b"], ["a_mask", "b_mask"]) == []
    assert class_endings(["a"], ["a_label", "a_color"]) == []
