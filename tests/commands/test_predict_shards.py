"""Shards of `hrseg predict`: their union has the bytes of one run."""

import json
import os
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest
import rasterio
from PIL import Image

import hrseg.inference.predict_files
from hrseg.cli import main
from hrseg.errors import ConfigError
from hrseg.inference.manifest import Shard
from hrseg.inference.predictor import Predictor
from tests.conftest import picture, save_image
from tests.paths import ROOT
from tests.untrained import save_untrained

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder with a model of three classes."""
    folder = tmp_path_factory.mktemp("run")
    save_untrained(folder / "checkpoints" / "best.ckpt")
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Images of all kinds: rotated, grey, in a folder, damaged and georeferenced, and a video."""
    monkeypatch.chdir(tmp_path)
    photos = tmp_path / "photos"
    for index in range(5):
        save_image(photos / f"{index}.png", picture((40, 48 + index), index))
    for name, seed in (("deep/rotated", 5), ("turned", 6)):
        exif = Image.Exif()
        exif[0x0112] = 6
        save_image(photos / f"{name}.jpg", picture((33, 64), seed), exif=exif)
    for index in range(3):
        save_image(photos / f"grey {index}.png", picture((36, 40), index)[..., 0])
    (photos / "damaged.png").write_bytes((photos / "0.png").read_bytes()[:200])
    writer = cv2.VideoWriter(
        str(photos / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (64, 48)
    )
    for level in (0, 90, 180):
        writer.write(np.full((48, 64, 3), level, np.uint8))
    writer.release()
    profile = {"driver": "GTiff", "height": 70, "width": 90, "count": 3, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": rasterio.transform.from_origin(5e5, 5e6, 2, 2)}
    with rasterio.open(photos / "field.tif", "w", **profile, **place) as file:
        file.write(picture((70, 90), 7).transpose(2, 0, 1))
    return photos


def predict(run, out, *arguments):
    words = ["predict", "photos", "--checkpoint", run, "--device", "cpu", "--out", out, *arguments]
    return main([str(word) for word in words])


def files(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize(
    "options",
    [
        ["--polygons", "geojson", "--confidence", "--probabilities"],
        ["--polygons", "coco", "--frames", "--pseudo", "0.5"],
        ["--polygons", "labelme", "--no-overlays"],
    ],
    ids=lambda options: options[1],
)
def test_the_union_of_shards_has_the_bytes_of_one_run(run, photos, tmp_path, options, capsys):
    assert predict(run, "whole", *options) == 3  # the damaged image
    codes = [predict(run, "union", *options, "--shard", f"{i}/4") for i in (3, 1, 4, 2)]
    assert sorted(codes) == [0, 0, 0, 3]
    whole = files(tmp_path / "whole")
    assert files(tmp_path / "union") == whole
    manifest = json.loads(whole["predict.json"])
    assert manifest["inputs"] == 13 and list(manifest["faults"]) == ["photos/damaged.png"]
    assert len(manifest["notes"]["greyscale converted to RGB"]) == 3
    printed = capsys.readouterr().out
    assert (
        "of shard 3/4 with" in printed and "finished shards: 3 of 4; the last one writes" in printed
    )


def test_slurm_tasks_that_run_at_once_give_the_bytes_of_one_run(run, photos, tmp_path):
    script = ROOT / "scripts" / "maintenance" / "slurm_predict.sbatch"
    options = ["--polygons", "coco", "--checkpoint", str(run), "--device", "cpu"]
    (photos / "damaged.png").unlink()
    assert predict(run, "whole", *options) == 0
    folder = tmp_path / "environment" / "bin"
    folder.mkdir(parents=True)
    (folder / "activate").write_text(f'PATH="{os.path.dirname(sys.executable)}:$PATH"\n')
    tasks = []
    for task in (7, 9, 11):  # of sbatch --array=7-11:2
        variables = {
            "SLURM_ARRAY_TASK_ID": str(task),
            "SLURM_ARRAY_TASK_MIN": "7",
            "SLURM_ARRAY_TASK_STEP": "2",
            "SLURM_ARRAY_TASK_COUNT": "3",
            "HRSEG_VENV": str(folder.parent),
            "PYTHONPATH": str(ROOT),
        }
        tasks.append(
            subprocess.Popen(
                ["bash", str(script), "photos", "--out", "union", *options],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    printed = [task.communicate()[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0, 0, 0], printed
    assert [f"of shard {i}/3 with" in text for i, text in enumerate(printed, 1)] == [True] * 3
    assert files(tmp_path / "union") == files(tmp_path / "whole")


def test_two_shards_that_end_at_once_give_the_bytes_of_one_run(run, photos, tmp_path, monkeypatch):
    options = ["--polygons", "coco"]
    predict(run, "whole", *options)
    predict(run, "union", *options, "--shard", "1/2")
    write_coco = hrseg.inference.predict_files.write_coco

    def write_coco_while_the_other_shard_ends(*arguments):
        monkeypatch.setattr("hrseg.inference.predict_files.write_coco", write_coco)
        predict(run, "union", *options, "--shard", "1/2", "--resume")
        write_coco(*arguments)

    name = "hrseg.inference.predict_files.write_coco"
    monkeypatch.setattr(name, write_coco_while_the_other_shard_ends)
    predict(run, "union", *options, "--shard", "2/2")
    assert files(tmp_path / "union") == files(tmp_path / "whole")


def test_resume_without_a_shard_completes_missing_shards(run, photos, tmp_path):
    options = ["--polygons", "coco"]
    predict(run, "whole", *options)
    for index in (1, 3):
        predict(run, "union", *options, "--shard", f"{index}/3")
    assert "predict.json" not in files(tmp_path / "union")
    predict(run, "union", *options, "--resume")
    assert files(tmp_path / "union") == files(tmp_path / "whole")


def test_shards_of_separate_disks_are_completed_in_one_folder(run, photos, tmp_path):
    predict(run, "whole", "--polygons", "coco")
    for index in (1, 2):
        predict(run, f"disk{index}", "--polygons", "coco", "--shard", f"{index}/2")
        shutil.copytree(tmp_path / f"disk{index}", tmp_path / "union", dirs_exist_ok=True)
    predict(run, "union", "--polygons", "coco", "--resume")
    assert files(tmp_path / "union") == files(tmp_path / "whole")


def test_a_stopped_shard_continues_and_keeps_its_notes(run, photos, tmp_path, monkeypatch):
    predict(run, "whole")
    segment, images = Predictor.segment, []

    def stop_at_the_tenth(self, image, *arguments, **options):
        images.append(image)
        if len(images) == 10:
            raise KeyboardInterrupt
        return segment(self, image, *arguments, **options)

    monkeypatch.setattr(Predictor, "segment", stop_at_the_tenth)
    assert predict(run, "union", "--shard", "1/1") == 130
    stopped = json.loads((tmp_path / "union" / "predict.json").read_text())
    assert stopped["notes"] and "inputs" not in stopped
    predict(run, "union", "--resume")
    assert files(tmp_path / "union") == files(tmp_path / "whole")


def test_a_resumed_shard_leaves_the_unfinished_files_of_others(run, photos, tmp_path):
    predict(run, "out", "--shard", "1/2")
    partial = tmp_path / "out" / "masks" / ".partial-x.png"
    partial.write_bytes(b"half")
    predict(run, "out", "--shard", "1/2", "--resume")
    assert partial.exists()


def test_an_empty_shard_succeeds(run, photos, tmp_path, capsys):
    for path in photos.glob("*.*"):
        if path.name != "1.png":
            path.unlink()
    shutil.rmtree(photos / "deep")
    predict(run, "whole")
    assert [predict(run, "union", "--shard", f"{i}/3") for i in (1, 2, 3)] == [0, 0, 0]
    assert capsys.readouterr().out.count("predicting no input of shard") == 2
    assert files(tmp_path / "union") == files(tmp_path / "whole")


@pytest.mark.parametrize("text", ["0/16", "17/16", "a/b", "3", "1/0", "-1/4", "1/4/4", "1.5/4", ""])
def test_an_invalid_shard_is_a_usage_error(run, photos, tmp_path, capsys, text):
    assert predict(run, "out", f"--shard={text}") == 2
    message = capsys.readouterr().err
    assert f"--shard {text} is not a shard" in message and "Fix: --shard 1/" in message
    assert len(message.splitlines()) <= 4 and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (["--confidence"], "wanted"),
        (["inference.flip=true"], "protocol"),
        (["--precision", "bf16"], "precision"),
    ],
)
def test_shards_with_different_settings_are_not_mixed(run, photos, tmp_path, capsys, options, name):
    predict(run, "out", "--shard", "1/2")
    before = files(tmp_path / "out")
    capsys.readouterr()
    assert predict(run, "out", "--shard", "2/2", *options) == 2
    assert f"out was made with {name}" in capsys.readouterr().err
    assert files(tmp_path / "out") == before


def test_equal_output_names_in_different_shards_are_refused(run, photos, capsys):
    save_image(photos / "1.jpg", picture((40, 48), 0))
    assert Shard(1, 2).has("1.png") != Shard(1, 2).has("1.jpg")
    for index in (1, 2):
        assert predict(run, "out", "--shard", f"{index}/2") == 2
        assert "would both be written as 1" in capsys.readouterr().err


def test_inputs_that_change_between_shards_are_noted(run, photos, tmp_path, capsys):
    predict(run, "union", "--shard", "1/2")
    names = [f"new{i}.png" for i in range(9) if Shard(1, 2).has(f"new{i}.png")]
    save_image(photos / names[0], picture((40, 48), 0))
    predict(run, "union", "--shard", "2/2")
    printed = " ".join(capsys.readouterr().out.split())
    assert "the shards had 13 inputs, and now there are 14. To complete: --resume" in printed
    predict(run, "union", "--resume")
    predict(run, "whole")
    assert files(tmp_path / "union") == files(tmp_path / "whole")


# Last hexadecimal digit of `printf %s NAME | sha256sum`, by GNU coreutils.
DIGITS = {"a.png": "0", "deep/a.png": "8", "frame_000001.jpg": "b", "Straße/ä.png": "9"}


@pytest.mark.parametrize(("path", "digit"), DIGITS.items())
def test_a_shard_follows_from_the_sha256_of_the_relative_path(path, digit):
    shards = [index for index in range(1, 17) if Shard(index, 16).has(path)]
    assert shards == [int(digit, 16) + 1]


def test_a_file_name_of_invalid_utf8_has_a_shard():
    assert sum(Shard(index, 5).has(os.fsdecode(b"\xff.png")) for index in range(1, 6)) == 1


def test_a_shard_is_parsed():
    assert Shard.parse("3/16") == Shard(3, 16)
    with pytest.raises(ConfigError, match="Expected: I/N"):
        Shard.parse("3/2")
