"""The output of `hrseg data check` and `hrseg data stats`."""

import json
import shutil

import numpy as np
import pytest
from rich import reconfigure

from hrseg.commands._data import check_data, data_stats
from hrseg.config.loader import load_config, to_dict
from hrseg.data.datasets.camvid import CamVid
from hrseg.errors import DataError
from tests.camvid_tree import make_camvid
from tests.conftest import picture, save_image
from tests.trees import make_cityscapes


@pytest.fixture(autouse=True)
def screen():
    """A screen of 120 columns."""
    reconfigure(width=120)


@pytest.fixture
def root(tmp_path):
    return make_camvid(tmp_path / "camvid")


def config(root, *overrides):
    return load_config("camvid_w18_small", [f"data.root={root}", *overrides])


def test_a_good_tree_has_no_faults(root, tmp_path, capsys):
    result = check_data(config(root), out=tmp_path / "out" / "check.json", workers=0)
    assert result["faults"] == 0
    assert json.loads((tmp_path / "out" / "check.json").read_text()) == result
    train = result["splits"]["train"]
    assert list(result["splits"]) == ["train", "val"]
    assert (train["images"], train["expected"], train["faults"]) == (4, None, [])
    assert train["sizes"] == [{"height": 48, "width": 64, "images": 4}]
    assert sum(row["pixels"] for row in train["classes"]) == 4 * 48 * 63
    assert train["ignored_pixels"] == 4 * 48
    assert train["notes"] == ["never seen: " + ", ".join(CamVid.class_names[3:])]
    printed = capsys.readouterr().out
    assert "no test split" not in printed
    assert "no faults in 6 images" in printed
    assert "64x48" in printed


def test_faults_are_listed_with_their_files_and_counted(root, tmp_path, capsys):
    mask = root / "trainannot" / "001.png"
    save_image(mask, np.full((48, 64), 254, np.uint8))
    (root / "train" / "001.png").write_bytes(b"no image")
    shutil.copyfile(root / "train" / "002.png", root / "val" / "000.png")
    result = check_data(config(root), workers=0)
    assert result["faults"] == 3
    faults = [f for split in result["splits"].values() for f in split["faults"]]
    assert [f["file"] for f in faults] == [
        str(root / "train" / "001.png"), str(mask), str(root / "val" / "000.png"),
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "3 faults in 3 files of 6 images" in printed
    for f in faults:
        assert printed.count(f["message"]) == 1
        assert f["file"] in printed
    assert printed.count(f"{mask}") == 1


def test_a_changed_copy_in_another_split_is_a_warning_not_a_fault(root, tmp_path, capsys):
    assert check_data(config(root), workers=0)["leakage"][0]["near_neighbours"] == 0
    assert "warning" not in capsys.readouterr().out
    photo = picture((48, 64), 9)
    save_image(root / "train" / "001.png", photo)
    save_image(root / "val" / "000.png", (photo * 0.9).astype(np.uint8))
    result = check_data(config(root), out=tmp_path / "check.json", workers=0)
    (leakage,) = json.loads((tmp_path / "check.json").read_text())["leakage"]
    assert result["faults"] == 0
    assert (leakage["split"], leakage["images"], leakage["near_neighbours"]) == ("val", 2, 1)
    example = {"image": "val/000.png", "train": "train/001.png", "kind": "picture"}
    assert leakage["examples"] == [example]
    printed = capsys.readouterr().out
    assert f"warning: {leakage['message']}" in printed
    assert "1 of 2 images of split val (50.0 %)" in printed and "data.group_by" in printed


def test_only_the_first_twenty_faults_are_printed(root, tmp_path, capsys):
    shutil.rmtree(root)
    make_camvid(root, train=25)
    for mask in (root / "trainannot").iterdir():
        mask.write_bytes(b"")
    result = check_data(config(root), ["train"], workers=0)
    assert len(result["splits"]["train"]["faults"]) == 25
    printed = capsys.readouterr().out
    assert printed.count("fault: ") == 20
    assert "and 5 more" in printed


def test_the_parts_of_a_union_and_the_test_split_are_checked(tmp_path, capsys):
    root = make_cityscapes(tmp_path / "cityscapes")
    overrides = [f"data.root={root}", "data.train_split=trainval"]
    result = check_data(load_config("cityscapes_w48", overrides), workers=0)
    assert list(result["splits"]) == ["train", "val", "test"]
    assert result["faults"] == 0
    assert result["splits"]["train"]["expected"] == 2975
    assert any("2975" in note for note in result["splits"]["train"]["notes"])
    assert "2,975" in capsys.readouterr().out


@pytest.mark.parametrize("width", [80, 120])
def test_the_tables_fit_the_screen(tmp_path, capsys, width):
    reconfigure(width=width)
    root = make_cityscapes(tmp_path / "cityscapes")
    cityscapes = load_config("cityscapes_w48", [f"data.root={root}"])
    check_data(cityscapes, workers=0)
    data_stats(cityscapes, workers=0)
    lines = capsys.readouterr().out.splitlines()
    table = [line for line in lines if line[:1] in "┏┃┡│└"]
    assert max(map(len, table)) <= width
    assert any("motorcycle" in line for line in table)  # of `stats`
    assert not any("…" in line for line in table)


def test_stats_print_lines_for_a_config(root, tmp_path, capsys):
    result = data_stats(config(root), out=tmp_path / "stats.json", workers=0)
    assert json.loads((tmp_path / "stats.json").read_text()) == result
    printed = capsys.readouterr().out
    lines = [line for line in printed.splitlines() if line.startswith("class_weights: ")]
    assert len(lines) == 3
    for line, kind in zip(lines, ("enet", "median_frequency", "sqrt_median"), strict=True):
        loss = f"losses=[{{name: cross_entropy, {line}}}]"
        weights = to_dict(config(root, loss).losses[0])["class_weights"]
        assert len(weights) == CamVid(str(root)).num_classes
        assert weights[:3] == pytest.approx([row[kind] for row in result["classes"][:3]], rel=1e-3)
        assert list(weights[3:]) == [1.0] * 8
    assert "classes without a pixel in train: Road," in printed


def test_stats_of_faulty_files_are_refused(root):
    (root / "valannot" / "001.png").write_bytes(b"")
    assert data_stats(config(root), workers=0)["images"] == 4  # of the training split
    with pytest.raises(DataError, match=r"Split val has 1 fault.*001\.png(.|\n)*hrseg data check"):
        data_stats(config(root), "val", workers=0)
    with pytest.raises(DataError, match=r"folder .*nosuch does not exist"):
        data_stats(config(root), "nosuch", workers=0)
