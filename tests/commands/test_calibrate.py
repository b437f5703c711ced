"""The command `hrseg calibrate`, and validation, prediction and export after it."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import hrseg
from hrseg.cli import main
from hrseg.data.datasets.folder import Folder
from hrseg.errors import ConfigError
from hrseg.export.exporter import export
from hrseg.export.writers import Form
from tests.conftest import save_image


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two classes with overconfident weights and random errors in the truth."""
    home = tmp_path_factory.mktemp("calibrate")
    rng = np.random.default_rng(0)
    for split, count in (("train", 2), ("val", 3)):
        for index in range(count):
            image = np.kron(rng.integers(0, 256, (8, 8)), np.ones((8, 8)))
            image = image.astype(np.uint8)[..., None].repeat(3, 2)
            save_image(home / f"data/images/{split}/{index}.png", image)
            mask = (rng.random((64, 64)) < 0.3 + 0.4 * (image[..., 0] > 127)).astype(np.uint8)
            save_image(home / f"data/masks/{split}/{index}.png", mask)
    config = home / "crack.yaml"
    config.write_text(
        "name: crack\n"
        f"data: {{name: folder, root: {home}/data, class_names: [background, crack], "
        "batch_size: 2, crop_size: [64, 64], workers: 0}\n"
        "model: {backbone: hrnet_w18_small_v1, head: fcn}\n"
        f"runs: {home}/runs\nloggers: []\n"
        "trainer: {max_epochs: 1, precision: 32, accelerator: cpu}\n"
    )
    assert main(["fit", "--config", str(config)]) == 0
    folder = (home / "runs/crack/latest").resolve()
    make_overconfident(folder / "checkpoints/best.ckpt")
    return folder


def make_overconfident(path):
    content = torch.load(path, weights_only=True)
    for name in ("weight", "bias"):
        content["state_dict"][f"model.head.last_layer.3.{name}"] *= 200
    torch.save(content, path)


def masks_of(data):
    """Yield the name and the train ids of each image of a data set."""
    for split in ("train", "val"):
        dataset = data.dataset(split)
        for index, name in enumerate(dataset.names):
            yield name, dataset.read(index)[1]


def scores(run):
    folder = max((run / "validate").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    return json.loads((folder / "scores.json").read_text()), folder


def test_a_calibrated_run_has_a_smaller_error_and_the_same_masks(run, capsys, tmp_path):
    best = run / "checkpoints/best.ckpt"
    assert main(["validate", "--checkpoint", str(run), "trainer.precision=32"]) == 0
    before, _ = scores(run)
    weights = torch.load(best, weights_only=True)
    capsys.readouterr()
    assert main(["calibrate", str(run), "--device", "cpu"]) == 0
    assert "negative log-likelihood" in capsys.readouterr().out
    content = torch.load(best, weights_only=True)
    temperature = content["hrseg"].pop("temperature")
    assert content["hrseg"] == weights["hrseg"]
    assert all(torch.equal(content["state_dict"][k], v) for k, v in weights["state_dict"].items())
    assert hrseg.load(run).temperature == temperature != 1
    assert main(["validate", "--checkpoint", str(run), "trainer.precision=32"]) == 0
    after, folder = scores(run)
    assert after["confusion_matrix"] == before["confusion_matrix"]
    assert after["binary"] == before["binary"]
    assert after["calibration"]["ece"] < before["calibration"]["ece"]
    assert after["calibration"]["temperature"] == temperature
    assert "Reliability" in (folder / "report.html").read_text()


def test_the_best_threshold_gives_its_scores_in_a_validation(run):
    arguments = ["validate", "--checkpoint", str(run), "trainer.precision=32"]
    assert main(arguments) == 0
    row = scores(run)[0]["binary"]["curve"][5]
    assert main([*arguments, f"inference.threshold={row['threshold']}"]) == 0
    stored, _ = scores(run)
    assert stored["protocol"]["threshold"] == row["threshold"]
    assert {key: stored["binary"][key] for key in row} == row


def test_confidence_and_pseudo_labels_are_files(run, tmp_path, capsys):
    images, out = run.parents[2] / "data/images/val", tmp_path / "out"
    arguments = ["predict", str(images), "--checkpoint", str(run), "--device", "cpu"]
    assert main([*arguments, "--out", str(out), "--confidence", "--pseudo", "0.9"]) == 0
    with Image.open(out / "confidence/0.png") as picture:
        assert picture.mode == "L"
        unsure = np.array(picture) < 0.9 * 255
    prediction = hrseg.load(run).predict(images / "0.png", confidence=True)
    with Image.open(out / "masks/0.png") as mask:
        assert mask.mode == "P"
        pseudo = np.array(mask)
        assert np.array_equal(pseudo, np.where(unsure, 255, prediction.mask))
    data = Folder(tmp_path, image_folder="images", mask_folder="out/masks", val_fraction=0.5,
                  class_names=("background", "crack"))  # fmt: skip
    shutil.copytree(images, tmp_path / "images")
    read = {name: mask for name, mask in masks_of(data)}
    assert np.array_equal(read["0"], pseudo)
    for wrong in ("0", "1.01", "nan"):
        assert main([*arguments, "--out", str(out), "--pseudo", wrong]) == 2
        assert "Fix: --pseudo 0.9" in capsys.readouterr().err


def test_a_file_outside_of_a_run_is_refused(run, tmp_path, capsys):
    copy = tmp_path / "model.ckpt"
    copy.write_bytes((run / "checkpoints/best.ckpt").read_bytes())
    assert main(["calibrate", str(copy)]) == 2
    assert "not a checkpoint of a run folder" in capsys.readouterr().err


def test_exported_files_have_the_temperature_and_refuse_a_threshold_of_ids(run, tmp_path):
    target, predictor = tmp_path / "model.safetensors", hrseg.load(run)
    export(predictor, target, Form("safetensors"))
    assert hrseg.load(target).temperature == predictor.temperature
    with pytest.raises(ConfigError, match="--argmax ignores"):
        chosen = predictor.with_protocol(threshold=0.3)
        export(chosen, tmp_path / "ids.pt2", Form("torch-export", output="ids"))
