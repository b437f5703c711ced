"""Unreadable images with `data.on_error: skip`: skip, count and list."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from hrseg.cli import main
from hrseg.config.loader import load_config
from hrseg.training.factory import build_data
from hrseg.training.skipped_images import SkippedFiles
from tests.conftest import save_image


@pytest.fixture
def data(tmp_path):
    """Create 12 training and 11 validation images of two classes; return config overrides."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 11)):
        for index in range(count):
            image = generator.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            mask = (image[..., 0] > 127).astype(np.uint8)
            for kind, array in (("images", image), ("masks", mask)):
                save_image(tmp_path / "data" / kind / split / f"{index:02}.png", array)
    (tmp_path / "data" / "classes.txt").write_text("dark\nbright\n")
    words = (
        "data.batch_size=4 data.workers=0 model.backbone=hrnet_w18_small_v1 model.weights=null "
        "data.crop_size=[64,64] trainer.max_epochs=2 trainer.precision=32-true loggers=[] "
        "trainer.num_sanity_val_steps=0 trainer.enable_progress_bar=false"
    )
    return [f"data.root={tmp_path / 'data'}", f"runs={tmp_path / 'runs'}", *words.split()]


def damage(tmp_path, *names):
    for name in names:
        path = tmp_path / "data" / name
        path.write_bytes(path.read_bytes()[:60])


def fit(data, *more):
    return main(["fit", "--config", "folder", "model.weights=null", *data, *more])


def test_skip_trains_and_scores_the_rest_and_lists_the_skipped_images(tmp_path, data, capsys):
    damage(tmp_path, "images/train/03.png", "masks/val/05.png")
    assert fit(data, "data.on_error=skip") == 0
    run = next(tmp_path.glob("runs/folder/2*"))
    scores = json.loads((run / "scores.json").read_text())
    assert (scores["images"], scores["skipped"]) == (10, 1)
    # Exactly the pixels of the other images are counted.
    assert sum(map(sum, scores["confusion_matrix"])) == 10 * 48 * 64
    with (run / "skipped.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["split"], row["image"]) for row in rows] == [("train", "03"), ("val", "05")]
    assert "03.png" in rows[0]["fault"] and "masks" in rows[1]["fault"]
    assert len(json.loads((run / "images.json").read_text())) == 10
    assert "unreadable images skipped: 2, see" in capsys.readouterr().out


def test_more_than_a_tenth_is_an_error_before_training(tmp_path, data, capsys):
    damage(tmp_path, *(f"images/val/{index:02}.png" for index in range(2)))
    assert fit(data, "data.on_error=skip") == 3
    assert "data.on_error=skip" in capsys.readouterr().err


def test_the_manifest_detects_changed_image_content(tmp_path, data, capsys):
    assert main(["data", "check", "--config", "folder", *data[:1], "--hash"]) == 0
    manifest = tmp_path / "data" / "hrseg.sha256"
    assert len(manifest.read_text().splitlines()) == 46
    path = tmp_path / "data" / "images" / "train" / "07.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(
        path
    )  # a valid file with other content
    assert main(["data", "check", "--config", "folder", *data[:1], "--hash"]) == 3
    assert "07.png has changed" in capsys.readouterr().out
    assert fit(data, f"data.manifest={manifest}", "trainer.max_epochs=1") == 3
    assert "07.png has changed" in capsys.readouterr().err
    assert fit(data, f"data.manifest={manifest}", "data.on_error=skip") == 0
    assert "unreadable images skipped: 1, see" in capsys.readouterr().out


def test_missing_files_and_a_manifest_of_damaged_data(tmp_path, data, capsys):
    damage(tmp_path, "images/train/00.png")
    check = ["data", "check", "--config", "folder", *data[:1], "--hash"]
    assert main(check) == 3
    assert "was not written. Fix: repair" in capsys.readouterr().out
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "train" / "00.png").unlink()
    assert main(check) == 0
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind / "train" / "01.png").unlink()
    assert main(check) == 3
    printed = capsys.readouterr().out
    for kind in ("images", "masks"):  # each by its name
        assert f"{kind}/train/01.png: is missing, but the manifest" in printed


def test_a_validation_without_readable_images_is_an_error_without_scores(tmp_path, data, capsys):
    """The one damaged image is less than a tenth of 11, but the only one in the validation."""
    damage(tmp_path, "images/val/00.png")
    few = ["data.on_error=skip", "trainer.limit_val_batches=1"]
    assert fit(data, *few) == 3
    assert "None of the 1 validation images could be read" in capsys.readouterr().err
    assert not list(tmp_path.glob("runs/*/*/scores.json"))


def test_images_of_the_test_split_are_not_skipped(tmp_path, data):
    module = build_data(load_config("folder", [*data, "data.on_error=skip", "data.test_split=val"]))
    module.setup("test")
    module.setup("validate")
    assert module.val_dataset.skips and not module.test_dataset.skips


def test_a_resumed_run_continues_the_list():
    before, after = SkippedFiles(), SkippedFiles()
    before.faults["val"]["05"] = "cannot read 05.png"
    after.load_state_dict(before.state_dict())
    after.faults["train"]["03"] = "no file 03.png"
    assert after.faults == {"train": {"03": "no file 03.png"}, "val": {"05": "cannot read 05.png"}}
    assert before.faults["train"] == {}


def test_a_cache_of_files_outside_the_manifest_is_refused(tmp_path, data, capsys):
    check = ["data", "check", "--config", "folder", data[0], "--hash"]
    assert main(check) == 0
    path = tmp_path / "data" / "images" / "train" / "07.png"
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    cache = f"data.cache={tmp_path / 'cache'}"
    assert main(["data", "cache", "--config", "folder", data[0], cache]) == 0
    manifest = f"data.manifest={tmp_path / 'data' / 'hrseg.sha256'}"
    assert fit(data, cache, manifest) == 3
    assert "07.png has changed" in capsys.readouterr().err
