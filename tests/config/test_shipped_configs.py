"""Shipped configs: valid, described, and with the published settings."""

import json
import re
from typing import NamedTuple

import pytest
import torch

from hrseg.checkpoints.published import WORDS, start_of
from hrseg.cli import main
from hrseg.config.loader import load_config, shipped_configs
from tests.trees import (
    make_ade20k,
    make_cityscapes,
    make_cocostuff10k,
    make_lip,
    make_pascal_context,
)
from tests.weight_files import imagenet_file


class Published(NamedTuple):
    """A row of the authors' YAML files (recipes in lib/config and experiments/)."""

    crop: tuple[int, int]
    base_size: int
    last_scale: float
    lr: float
    weight_decay: float
    batch: int
    epochs: int
    align_corners: bool
    bn_momentum: float
    loss: str
    head_lr: float = 1.0
    train_split: str = "train"
    weights: str = "imagenet"


CITYSCAPES = Published((512, 1024), 2048, 2.1, 0.01, 5e-4, 12, 484, False, 0.01, "cross_entropy")
PASCAL = Published((520, 520), 520, 2.1, 0.001, 1e-4, 16, 200, False, 0.1, "cross_entropy", 10)
PASCAL_480 = Published((480, 480), 520, 2.1, 0.004, 1e-4, 16, 200, False, 0.01, "cross_entropy")
LIP = Published((473, 473), 473, 1.6, 0.007, 5e-4, 40, 150, False, 0.01, "cross_entropy")
ADE = Published((520, 520), 520, 1.6, 0.02, 1e-4, 16, 120, True, 0.1, "ohem")
COCO = Published((520, 520), 520, 2.1, 0.001, 1e-4, 16, 110, True, 0.1, "ohem", 10)
OCR = {"align_corners": True, "bn_momentum": 0.1}  # seg_hrnet_ocr.py


def second_stage(first):
    """Return the settings of 484 more epochs on train and val (EXTRA_LR, EXTRA_TRAIN_SET)."""
    weights = f"runs/{first}/latest/checkpoints/last.ckpt"
    return {"lr": 0.001, "train_split": "trainval", "weights": weights}


RECIPES = {
    "cityscapes_w48": CITYSCAPES,
    "cityscapes_w48_1gpu": CITYSCAPES._replace(bn_momentum=0.0025),
    "cityscapes_w48_ohem": CITYSCAPES._replace(loss="ohem"),
    "cityscapes_w48_ssld": CITYSCAPES._replace(bn_momentum=0.1, weights="ssld"),
    "cityscapes_w48_trainval": CITYSCAPES._replace(**second_stage("cityscapes_w48")),
    "cityscapes_w48_ohem_trainval": CITYSCAPES._replace(
        loss="ohem", **second_stage("cityscapes_w48_ohem")
    ),
    "cityscapes_w40": CITYSCAPES,
    "cityscapes_w18": CITYSCAPES,
    "cityscapes_w18_small_v1": CITYSCAPES,
    "cityscapes_w18_small_v2": CITYSCAPES,
    "pascal_context_59_w48": PASCAL,
    "pascal_context_59_w48_1gpu": PASCAL._replace(bn_momentum=0.026),
    "pascal_context_60_w48": PASCAL,
    "pascal_context_59_w48_480": PASCAL_480,
    "pascal_context_60_w48_480": PASCAL_480,
    "lip_w48": LIP,
    "lip_w48_1gpu": LIP._replace(bn_momentum=0.0025),
    "ade20k_w48": ADE,
    "ade20k_w48_1gpu": ADE._replace(bn_momentum=0.026),
    "cocostuff10k_w48": COCO,
    "cocostuff10k_w48_1gpu": COCO._replace(bn_momentum=0.026),
    "cityscapes_w48_ocr": CITYSCAPES._replace(**OCR),
    "cityscapes_w48_ocr_trainval": CITYSCAPES._replace(**OCR, train_split="trainval"),
    "pascal_context_59_w48_ocr": PASCAL._replace(**OCR),
    "pascal_context_60_w48_ocr": PASCAL._replace(**OCR),
    "lip_w48_ocr": LIP._replace(**OCR),
    "ade20k_w48_ocr": ADE._replace(last_scale=2.1),
    "cocostuff10k_w48_ocr": COCO,
}
OWN = {
    "camvid_w18", "camvid_w18_small", "camvid_w18_small_long", "cityscapes_w48_2nodes", "folder",
    "synthetic_tiny",
}  # fmt: skip


def test_every_shipped_config_is_tested():
    assert set(shipped_configs()) == set(RECIPES) | OWN


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_published_settings(name):
    config, published = load_config(name), RECIPES[name]
    settings = Published(
        tuple(config.data.crop_size),
        config.data.base_size,
        config.data.scales[1],
        config.optimizer.lr,
        config.optimizer.weight_decay,
        config.data.batch_size,
        config.trainer["max_epochs"],
        config.model.align_corners,
        config.model.bn_momentum,
        config.losses[0].name,
        config.optimizer.head_lr_multiplier,
        config.data.train_split,
        config.model.weights,
    )
    assert settings == published
    assert config.name == name
    assert list(config.data.scales)[::2] == [0.5, 0.1]
    assert config.optimizer.momentum == 0.9 and config.schedule.power == 0.9
    assert config.schedule.warmup_steps == 0
    assert "precision" not in config.trainer  # the device decides
    outputs = [(loss.on, loss.weight) for loss in config.losses]
    head = "ocr" if "_ocr" in name else "fcn"
    assert config.model.head.name == head
    assert outputs == [("out", 1.0), ("aux", 0.4)][: 2 if head == "ocr" else 1]
    assert all(loss.name == "cross_entropy" for loss in config.losses[1:])
    assert len({str(loss.class_weights) for loss in config.losses}) == 1
    if published.loss == "ohem":
        assert (config.losses[0].threshold, config.losses[0].min_kept) == (0.9, 131072)
    if name.startswith("pascal_context"):
        assert config.data.num_classes == int(name.split("_")[2])
    weighted = config.losses[0].class_weights == "dataset"
    assert weighted == name.startswith("cityscapes")


PROTOCOL_OF = {
    "cityscapes": "official_cityscapes",
    "pascal": "official_pascal_context",
    "lip": "official_lip",
    "ade20k": "official_ade20k",
    "cocostuff10k": "official_pascal_context",  # cocostuff.py crops the padding, ade20k.py does not
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_scored_by_the_authors_protocol_of_its_data_set(name):
    assert load_config(name).inference.protocol == PROTOCOL_OF[name.partition("_")[0]]


def test_the_recipe_for_two_machines_has_twice_the_batch_and_learning_rate():
    one, two = load_config("cityscapes_w48"), load_config("cityscapes_w48_2nodes")
    assert two.data.batch_size == 2 * one.data.batch_size
    assert two.optimizer.lr == 2 * one.optimizer.lr
    assert (two.trainer.pop("num_nodes"), two.schedule.warmup_steps) == (2, 500)
    two.name, two.data.batch_size, two.optimizer.lr = one.name, 12, 0.01
    two.schedule.warmup_steps = 0
    assert two.model_dump() == one.model_dump()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_states_its_branch_and_the_expected_score(name):
    text = shipped_configs()[name].read_text()
    first = text.splitlines()[1]
    assert re.match(r"# Authors' branch (pytorch-v1.1|HRNet-OCR|master)\b", first)
    assert len(first) <= 90
    assert "Expected:" in re.sub(r"\n# ", " ", text)
    config = load_config(name)
    devices, accumulated = config.trainer["devices"], config.trainer.get("accumulate_grad_batches")
    if name.endswith("1gpu"):
        assert devices == 1 and config.data.batch_size % accumulated == 0
        assert "Batch norm sees" in text
    else:
        assert config.data.batch_size % devices == 0


SMALL = [
    "data.crop_size=[64,64]",
    "data.base_size=96",
    "inference.window=[]",
    "inference.stride=[]",
    "prediction_images=0",
]
SMALL_BACKBONE = "model.backbone=hrnet_w18_small_v1"
TREES = {
    "cityscapes_w48": make_cityscapes,
    "pascal_context_60_w48_480": make_pascal_context,
    "lip_w48_1gpu": make_lip,
    "lip_w48_ocr": make_lip,
    "ade20k_w48": make_ade20k,
    "cocostuff10k_w48_1gpu": make_cocostuff10k,
}


def fast_dev_run(name, folder, *pairs):
    """Run a fast_dev_run of a recipe on a generated data set."""
    start = next(tree for tree in TREES if tree.split("_w")[0][:14] == name.split("_w")[0][:14])
    TREES[start](folder / "data")
    command = ["fit", "--config", name, f"data.root={folder / 'data'}", "data.batch_size=1",
               "trainer.devices=1", "trainer.accelerator=cpu", "trainer.precision=32",
               "trainer.fast_dev_run=true", "data.workers=0", f"runs={folder}"]  # fmt: skip
    return main([*command, *SMALL, *pairs])


@pytest.mark.parametrize("name", TREES)
def test_a_recipe_of_each_data_set_trains_and_validates(name, hub, tmp_path, capsys):
    hub.repos["timm/hrnet_w18_small.ms_in1k"]["model.safetensors"] = imagenet_file("w18_small_v1")
    assert fast_dev_run(name, tmp_path, SMALL_BACKBONE) == 0
    out = capsys.readouterr().out
    assert "weights timm/hrnet_w18_small.ms_in1k (53 MB, licence MIT; cache" in out
    assert "tensors loaded from a timm classification" in out and "mIoU" in out


FROM_IMAGENET = [name for name, published in RECIPES.items() if published.weights in WORDS]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FROM_IMAGENET, "cityscapes_w48_2nodes"])
def test_every_recipe_starts_from_its_imagenet_file(name, hub, tmp_path, capsys):
    model = load_config(name).model
    start = start_of(model.weights, model.backbone.name)
    variant = start.backbone.removeprefix("hrnet_")
    hub.repos[start.repository]["model.safetensors"] = imagenet_file(variant)
    assert main(["fit", "--config", name, "--print-config"]) == 0
    assert hub.requests == []
    assert fast_dev_run(name, tmp_path, "trainer.num_nodes=1") == 0
    assert f"weights {start.repository}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(RECIPES) - set(FROM_IMAGENET)))
def test_a_second_stage_starts_from_the_last_weights_of_the_first(
    name, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)  # the recipe names a path below runs/
    folder, first = tmp_path / "runs", name.removesuffix("_trainval")
    short = ["trainer.fast_dev_run=false", "trainer.max_epochs=1"]
    assert fast_dev_run(name, folder, SMALL_BACKBONE, *short) == 2
    error = capsys.readouterr().err
    assert f"no file {tmp_path}/runs/{first}/latest/checkpoints/last.ckpt" in error
    assert f"Fix: `hrseg fit --config {first}` first, or" in error
    assert fast_dev_run(first, folder, SMALL_BACKBONE, "model.weights=null", *short) == 0
    capsys.readouterr()
    assert fast_dev_run(name, folder, SMALL_BACKBONE) == 0
    out = capsys.readouterr().out
    assert "last.ckpt" in out and "tensors loaded" in out and "mIoU" in out


def test_without_a_connection_a_fast_dev_run_uses_random_weights(hub, tmp_path, capsys):
    hub.close()
    assert fast_dev_run("cityscapes_w48", tmp_path, SMALL_BACKBONE) == 0
    assert "model.weights=imagenet is not available; random" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="the GPUs of the recipe may exist")
def test_missing_devices_are_reported_with_a_fix(tmp_path, capsys):
    make_cityscapes(tmp_path, {"train": 12, "val": 1})
    command = ["fit", "--config", "cityscapes_w48", f"data.root={tmp_path}", "data.workers=0",
               "model.weights=null", "model.backbone=hrnet_w18_small_v1",
               f"runs={tmp_path}/runs"]  # fmt: skip
    assert main(command) == 2
    error = capsys.readouterr().err
    assert "trainer.devices=4" in error and "trainer.accelerator=cpu trainer.devices=1" in error
    assert not list(tmp_path.glob("runs/*/*"))


def test_missing_weights_stop_a_training(hub, tmp_path, capsys):
    hub.close()
    make_cityscapes(tmp_path)
    root, runs = f"data.root={tmp_path}", f"runs={tmp_path}/runs"
    command = ["fit", "--config", "cityscapes_w48", root, runs]
    assert main(command) == 2
    out, error = capsys.readouterr()
    assert out == "" and len(error.splitlines()) == 4 and "model.weights=null" in error
    assert main([*command, "trainer.fast_dev_run=true", "model.weights=x.pth"]) == 2
    assert "model.weights: no file" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_fit_and_validate_give_the_same_scores_by_the_same_protocol(tmp_path):
    make_lip(tmp_path / "data")
    pairs = [f"data.root={tmp_path / 'data'}", "data.workers=0", f"runs={tmp_path}", *SMALL,
             "inference.resize=[64,48]", SMALL_BACKBONE, "trainer.precision=bf16-mixed",
             "trainer.devices=1", "trainer.accelerator=cpu"]  # fmt: skip
    short = ["data.batch_size=1", "model.weights=null", "loggers=[]", "trainer.max_epochs=1"]
    assert main(["fit", "--config", "lip_w48", *short, *pairs]) == 0
    assert main(["validate", "--config", "lip_w48", *pairs]) == 0
    [fitted] = tmp_path.glob("lip_w48/*-*/scores.json")
    [validated] = tmp_path.glob("lip_w48/*-*/validate/*/scores.json")
    first, again = (json.loads(path.read_text()) for path in (fitted, validated))
    assert first["protocol"] == again["protocol"]
    assert first["protocol"]["name"] == "official_lip" and first["protocol"]["flip"]
    assert first["confusion_matrix"] == again["confusion_matrix"]
