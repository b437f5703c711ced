"""Training on images other than 8-bit RGB: any number of bands, 8 and 16 bits, resume, export."""

import json
from pathlib import Path

import pytest
import yaml

import hrseg
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.cli import main
from tests.conftest import silent_trainer
from tests.multiband import make_bands


@pytest.mark.parametrize(
    ("count", "dtype", "value_range"),
    [(1, "uint8", None), (3, "uint16", None), (12, "uint8", None), (2, "float32", (0, 1))],
)
def test_images_of_any_bands_train_and_validate(tmp_path, count, dtype, value_range):
    root = make_bands(tmp_path / "data", count, dtype)
    bands = None if count == 3 else range(1, count + 1)  # three bands of 16 bits need no option
    data = hrseg.data.Folder(
        str(root), channels=bands, value_range=value_range, batch_size=2, crop_size=(64, 64),
        workers=0,
    )  # fmt: skip
    data.check("fit")
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2, in_channels=data.in_channels)
    task = hrseg.SegmentationTask(model, data.class_names, channels=data.channels)
    before = model.backbone.conv1.weight.detach().clone()
    trainer = silent_trainer(tmp_path)
    trainer.fit(task, data)
    assert model.backbone.conv1.weight.shape[1] == count
    assert not model.backbone.conv1.weight.equal(before)
    assert task.scores["images"] == 2 and data.channels.kind == dtype


def config(root, folder, **changes):
    content = {
        "name": "bands",
        "runs": str(folder / "runs"),
        "data": {"name": "folder", "root": str(root), "channels": [4, 3, 2, 1], "workers": 0,
                 "batch_size": 2, "crop_size": [64, 64], "scales": [1.0, 1.0], **changes},
        "model": {"backbone": "hrnet_w18_small_v1"},
        "optimizer": {"name": "adamw", "lr": 0.001},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False},
        "loggers": [],
    }  # fmt: skip
    path = folder / "bands.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_a_run_is_resumed_validated_and_exported_with_its_measured_range(tmp_path, capsys):
    root = make_bands(tmp_path / "data", 4, "uint16")
    assert main(["fit", "--config", str(config(root, tmp_path))]) == 0
    [run] = (tmp_path / "runs" / "bands").glob("2*")
    channels = read_checkpoint(run / "checkpoints" / "last.ckpt")["hrseg"]["channels"]
    assert channels["bands"] == [4, 3, 2, 1] and channels["kind"] == "uint16"
    assert "images: bands 4, 3, 2, 1 of uint16 with the values" in capsys.readouterr().out
    # Other training images would have another range; the run keeps its own.
    make_bands(root, 4, "uint16", train=5)
    assert main(["fit", "--resume", str(run), "trainer.max_epochs=2"]) == 0
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["hrseg"]["channels"] == channels
    best = run / "checkpoints" / "best.ckpt"
    assert main(["validate", "--checkpoint", str(best), "prediction_images=1"]) == 0
    [folder] = (run / "validate").iterdir()
    assert json.loads((folder / "scores.json").read_text())["images"] == 2
    assert list((folder / "predictions").glob("*.png")) and (folder / "report.html").is_file()
    target = tmp_path / "bands.safetensors"
    assert main(["export", str(best), "--format", "safetensors", "--out", str(target)]) == 0
    assert hrseg.load(target).channels == hrseg.load(best).channels


def test_weights_are_inflated_and_jitter_is_refused_before_training(tmp_path, capsys):
    root = make_bands(tmp_path / "data", 4, "uint8")
    path = str(config(root, tmp_path))
    assert main(["fit", "--config", path, "data.photometric=0.5"]) == 2
    assert "data.photometric changes the colours of 8-bit RGB" in capsys.readouterr().err
    rgb = hrseg.create_model("hrnet_w18_small_v1", num_classes=2)
    import torch

    weights = Path(tmp_path / "rgb.pth")
    torch.save({"state_dict": rgb.state_dict()}, weights)
    assert main(["fit", "--config", path, f"model.weights={weights}"]) == 0
    assert "stem inflated from 3 to 4 channels" in capsys.readouterr().out
