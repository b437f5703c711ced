"""Folds, table and resume of scripts/benchmarks/camvid_drives.py, on a generated data set."""

import json
import runpy
import subprocess
import sys

import pytest

from hrseg.errors import HrsegError
from tests.camvid_tree import fit_overrides, make_camvid
from tests.paths import ROOT

BENCHMARKS = ROOT / "scripts" / "benchmarks"
SCRIPT = BENCHMARKS / "camvid_drives.py"
NAMES = ("0001TP_006690", "0006R0_f00930", "0006R0_f00960", "0016E5_00390")


@pytest.fixture
def drives(monkeypatch):
    """The script as a module."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import camvid_drives

    return camvid_drives


@pytest.fixture
def camvid(tmp_path):
    """Four training images of three drives."""
    root = make_camvid(tmp_path / "camvid")
    for folder in (root / "train", root / "trainannot"):
        for path, name in zip(sorted(folder.iterdir()), NAMES, strict=True):
            path.rename(folder / f"{name}.png")
    return root


def run(name, drive, miou, seed=304, pole=0.5):
    return {
        "name": name, "config": name, "overrides": [], "seed": seed, "drive": drive,
        "epochs": 32, "miou": miou,
        "classes": {"Sky": 0.9, "Pole": pole},
    }  # fmt: skip


def test_the_table_has_a_mean_only_over_all_three_drives(drives):
    table = drives.markdown([
        run("a", "0001TP", 0.30, pole=0.1),
        run("b", "0001TP", 0.50),
        run("a", "0006R0", 0.40, pole=None),
        run("a", "0016E5", 0.56, pole=0.3),
    ])  # fmt: skip
    assert "| `a` | 304 | 32 | 30.0 | 40.0 | 56.0 | 42.0 |" in table
    assert "| `b` | 304 | 32 | 50.0 | - | - | - |" in table
    # A class without a pixel in truth and prediction of a drive does not count.
    assert "| Pole | 20.0 | 50.0 |" in table


def test_the_validation_images_are_those_of_one_drive(drives, camvid, tmp_path):
    root = drives.split_drives(camvid, "0006R0", tmp_path / "fold")
    for side, names in (("train", (NAMES[0], NAMES[3])), ("val", NAMES[1:3])):
        for suffix in ("", "annot"):
            paths = sorted((root / f"{side}{suffix}").iterdir())
            assert [path.stem for path in paths] == list(names)
            assert all(
                path.read_bytes() == (camvid / f"train{suffix}" / path.name).read_bytes()
                for path in paths
            )
    assert drives.split_drives(camvid, "0006R0", tmp_path / "fold") == root


def test_the_script_trains_on_two_drives_and_scores_the_third(drives, camvid, tmp_path, capsys):
    words = [
        "--root", camvid, "--config", "camvid_w18_small", "--drives", "0016E5", "--runs",
        tmp_path / "runs", "--json", tmp_path / "r.json", *fit_overrides(camvid)[1:],
    ]  # fmt: skip
    drives.main([*map(str, words)])
    table = capsys.readouterr().out
    (result,) = json.loads((tmp_path / "r.json").read_text())
    assert (result["name"], result["drive"], result["epochs"]) == ("camvid_w18_small", "0016E5", 2)
    (scores,) = (tmp_path / "runs").glob("camvid_w18_small_*/0016E5_304/*/latest/scores.json")
    assert json.loads(scores.read_text())["miou"] == result["miou"]
    assert f"| - | - | {100 * result['miou']:.1f} | - |" in table
    drives.main([*map(str, words)])  # no training, the same table
    assert capsys.readouterr().out == table.partition("\n")[2]


def test_a_stopped_training_is_resumed(drives, tmp_path, monkeypatch):
    checkpoint = tmp_path / "camvid_w18_small/latest/checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.touch()
    calls = []
    monkeypatch.setattr(
        subprocess, "run",
        lambda words, **_: calls.append(words) or subprocess.CompletedProcess(words, 1, "stopped"),
    )  # fmt: skip
    with pytest.raises(HrsegError, match=r"exit code 1: .*--resume.*\nstopped"):
        drives.fit("camvid_w18_small", ["seed=1"], tmp_path)
    assert calls[0][-2:] == ["--resume", str(checkpoint.parents[1])]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--root", "missing"], "0 images of the drive 0001TP, 0 of others"),
        ([], "--root CAMVID is missing"),
        (["--root", "missing", "--config", "unknown"], "unknown"),
        (["--root", "missing", "seeed=1"], "seeed"),
        (["--root", "missing", "trainer.max_epochs=-1"], "trainer.max_epochs is -1"),
        (["--table", "--json", str(ROOT / "configs/schema.json")], "contains no runs"),
    ],
)
def test_wrong_input_is_an_error(words, message, drives, tmp_path, capsys):
    folders = ["--json", str(tmp_path / "r.json"), "--runs", str(tmp_path / "runs")]
    with pytest.raises((HrsegError, SystemExit)) as error:
        drives.main(["--config", "camvid_w18_small", *folders, *words])
    assert message in str(error.value) + capsys.readouterr().err


def test_finished_runs_of_the_same_name_have_the_same_settings(drives, tmp_path):
    path = tmp_path / "r.json"
    path.write_text(json.dumps([run("camvid_w18_small", "0001TP", 0.3)]))
    words = ["--config", "camvid_w18_small", "--root", "missing", "--json", str(path)]
    drives.main([*words, "--drives", "0001TP"])  # finished
    with pytest.raises(HrsegError, match=r"camvid_w18_small have other settings[\s\S]*name=OTHER"):
        drives.main([*words, "ema_decay=0.999"])


def test_links_into_another_folder_are_replaced(drives, camvid, tmp_path):
    moved = camvid.rename(tmp_path / "moved")
    (tmp_path / "old").mkdir()
    (tmp_path / "fold/val").mkdir(parents=True)
    (tmp_path / f"fold/val/{NAMES[1]}.png").symlink_to(tmp_path / "old/missing.png")
    root = drives.split_drives(moved, "0006R0", tmp_path / "fold")
    assert all(path.exists() for path in root.rglob("*.png"))


def test_an_error_ends_the_script_with_its_message(drives, monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--table", "--json", __file__])
    with pytest.raises(SystemExit, match="contains no runs"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
