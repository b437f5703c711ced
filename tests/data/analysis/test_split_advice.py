"""Suggested groups of `hrseg init`, from names and pictures."""

import numpy as np
import pytest
import yaml

from hrseg.data.analysis.suggest_config import inspect_folder, write_config
from hrseg.data.grouping import find_groups, propose_groups
from tests.conftest import picture, save_image
from tests.data.analysis.test_leakage import film, photos

MASK = np.arange(120 * 160).reshape(120, 160) // 9600


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["0001TP_006690", "0001TP_006720", "0006R0_f0930", "0006R0_f0960"], {"0001TP", "0006R0"}),
        (["p1-s01", "p1-s02", "p2-s01", "p2-s02"], {"p1", "p2"}),
        (["bern_01_07_left8bit", "bern_01_08_left8bit", "ulm_02_03_left8bit", "ulm_02_04_left8bit"],
         {"bern_01", "ulm_02"}),
        (["a/1", "a/2", "b/1", "b/2"], {"a", "b"}),
        (["walk001", "walk002", "run1", "run2"], {"walk", "run"}),
        (["img_1", "img_2", "img_3"], None),
        (["a_1", "b_2", "c_3"], None),
        (["1", "2", "3", "4"], None),
        (["red_car", "red_bus", "old_car", "old_bus"], None),
    ],
)  # fmt: skip
def test_proposed_groups_are_repeated_beginnings_before_a_number(tmp_path, names, groups):
    proposal = propose_groups(names)
    assert (proposal and set(find_groups(tmp_path, proposal, names))) == groups


def write(root, images, folders=("images", "masks")):
    for name, image in images.items():
        save_image(root / folders[0] / f"{name}.png", image)
        save_image(root / folders[1] / f"{name}.png", MASK.astype(np.uint8))
    return inspect_folder(root)


def test_recordings_are_grouped_in_the_config(tmp_path):
    frames = film(40, 1)
    names = [f"{'north' if index < 20 else 'south'}_{index:03}" for index in range(40)]
    text = write_config(write(tmp_path, dict(zip(names, frames, strict=True))))
    assert yaml.safe_load(text)["data"]["group_by"] == "^(.+)_"


def test_without_the_evidence_of_pictures_the_line_is_a_comment(tmp_path):
    images = {
        f"{name}_{index}": x for name in "ab" for index, x in enumerate(photos(12, ord(name)))
    }
    text = write_config(write(tmp_path, images))
    assert "group_by" not in yaml.safe_load(text)["data"]
    assert '# group_by: "^(.+)_"' in text


def test_frames_without_groups_and_leaking_splits_give_a_warning(tmp_path):
    frames = {f"{index:03}": frame for index, frame in enumerate(film(40, 2))}
    warnings = write(tmp_path / "one", frames).warnings
    assert any("of the images have a near neighbour among the others" in line for line in warnings)
    for split in ("train", "val"):
        photo = {f"{split}{index}": picture((120, 160), index) for index in range(3)}
        write_split = (f"images/{split}", f"masks/{split}")
        for name, image in photo.items():
            save_image(tmp_path / "two" / write_split[0] / f"{name}.png", image)
            save_image(tmp_path / "two" / write_split[1] / f"{name}.png", MASK.astype(np.uint8))
    (line,) = [x for x in inspect_folder(tmp_path / "two").warnings if "near neighbour" in x]
    assert line.startswith("3 of 3 images of split val (100.0 %)")
    assert line in write_config(inspect_folder(tmp_path / "two"))
