"""Grouped splits of the folder data set, and the error of each faulty grouping."""

import hashlib

import pytest

from hrseg.data.grouping import hold_out
from hrseg.errors import ConfigError, DataError
from tests.data.datasets.test_folder import folder, stems, tree

DRIVES = [f"{drive}_{frame:05}" for drive in ("north", "south", "west", "east") for frame in (1, 7)]
GROUPS = {"val_fraction": 0.25, "group_by": "^(.+)_"}


def drives(data, split):
    return {stem.partition("_")[0] for stem in stems(data, split)}


def test_a_group_is_on_one_side_and_no_image_is_lost(tmp_path):
    data = folder(tree(tmp_path, *DRIVES), **GROUPS)
    data.check()
    assert len(drives(data, "val")) == 1 and len(drives(data, "train")) == 3
    assert not drives(data, "val") & drives(data, "train")
    assert sorted(stems(data, "train") + stems(data, "val")) == sorted(DRIVES)


def test_the_split_seed_selects_the_held_out_group(tmp_path):
    root = tree(tmp_path, *DRIVES)

    def first(seed):  # the documented order, by hand
        digests = {
            hashlib.sha256(f"{seed}:{name}".encode()).digest(): name
            for name in ("north", "south", "west", "east")
        }
        return digests[min(digests)]

    for seed in range(6):
        data = folder(root, split_seed=seed, seed=9, **GROUPS)
        assert drives(data, "val") == {first(seed)}
    assert len({first(seed) for seed in range(6)}) > 1


def test_without_a_parenthesis_the_whole_match_is_the_group(tmp_path):
    data = folder(tree(tmp_path, *DRIVES), val_fraction=0.5, group_by="[a-z]+")
    assert len(drives(data, "val")) == 2 and not drives(data, "val") & drives(data, "train")


def test_folders_are_part_of_the_path(tmp_path):
    root = tree(tmp_path, "a/1", "a/2", "b/1", "b/2")
    data = folder(root, val_fraction=0.5, group_by="^(.+)/")
    sides = [{image.parent.name for image, _ in data.files(split)} for split in ("train", "val")]
    assert sorted(map(len, sides)) == [1, 1] and sides[0] != sides[1]


@pytest.mark.parametrize("group_by", ["groups.csv", "groups.csv:patient"])
def test_a_csv_column_groups_images(tmp_path, group_by):
    root = tree(tmp_path, "a", "b", "c", "d")
    site = group_by == "groups.csv"
    columns = "image,patient,site" if site else "image,site,patient"
    rows = [("a.jpg", "p1"), ("b", "p2"), ("c.jpg", "p2"), ("d.jpg", "p1")]
    lines = [f"{image},{group},x" if site else f"{image},x,{group}" for image, group in rows]
    (root / "groups.csv").write_text("\ufeff" + "\n".join([columns, *lines, ""]))
    data = folder(root, val_fraction=0.5, group_by=group_by)
    sides = sorted("".join(stems(data, split)) for split in ("train", "val"))
    assert sides == ["ad", "bc"]


@pytest.mark.parametrize(
    ("sizes", "fraction", "images"),
    [((5, 5, 5, 5), 0.25, {5}), ((90, 10), 0.2, {10}), ((50, 50), 0.9, {50}), ((40, 40), 0.1, {40}),
     ((1,) * 40, 0.3, {12}), ((8, 1, 1), 0.2, {1, 2})],
)  # fmt: skip
def test_the_share_of_images_is_as_close_as_whole_groups_allow(sizes, fraction, images):
    groups = [f"g{index}" for index, size in enumerate(sizes) for _ in range(size)]
    for seed in range(20):
        chosen = hold_out(groups, fraction, seed)
        assert sum(group in chosen for group in groups) in images
        assert 0 < len(chosen) < len(sizes)


@pytest.mark.parametrize(
    ("group_by", "message"),
    [("^(north.*)_", r"6 of 8 images have no group .*'\^\(north\.\*\)_': east_00001"),
     ("^()", "8 of 8 images have no group"),
     (".", None), ("_", "makes one group of all 8 images: '_'"),
     ("other.csv", r"other\.csv of data\.group_by does not exist"),
     ("bad.csv", r"bad\.csv, line 1 has no column of groups: image"),
     ("short.csv:site", r"short\.csv, line 1 has no column site"),
     ("short.csv", r"short\.csv has no group for 6 of 8 images: east_00007, north_00001"),
     ("empty.csv", r"empty\.csv, line 2 has no group"),
     ("twice.csv", r"twice\.csv, line 3 has another group for east_00001")],
)  # fmt: skip
def test_a_faulty_grouping_is_an_error(tmp_path, group_by, message):
    root = tree(tmp_path, *DRIVES)
    head = "image,patient\neast_00001,p1\n"
    for name, text in {"bad": "image\n", "short": f"{head}west_00001.jpg,p2\n",
                       "empty": "image,patient\nnorth_00001\n",
                       "twice": f"{head}east_00001.jpg,p2\n"}.items():  # fmt: skip
        (root / f"{name}.csv").write_text(text)
    data = folder(root, val_fraction=0.25, group_by=group_by)
    if message is None:
        assert len(data.files("val")) == 2
        return
    with pytest.raises(DataError, match=message) as error:
        data.files("val")
    assert "Expected: " in str(error.value) and len(str(error.value).splitlines()) <= 4


def test_groups_need_a_held_out_share_and_a_valid_pattern(tmp_path):
    with pytest.raises(ConfigError, match=r"no effect without data\.val_fraction"):
        folder(tmp_path, group_by="^(.+)_")
    with pytest.raises(ConfigError, match="is not a regular expression") as error:
        folder(tmp_path, group_by="^(.+_", val_fraction=0.2)
    assert "FILE.csv" in str(error.value)
