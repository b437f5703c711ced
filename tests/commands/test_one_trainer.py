"""A command builds one Trainer; devices, precision and processes are decided before it."""

import pytest
import pytorch_lightning as pl
import torch

from hrseg.cli import main
from tests.camvid_tree import fit_overrides, make_camvid
from tests.golden_weights import official_weights
from tests.trees import make_cityscapes


@pytest.fixture
def trainers(monkeypatch):
    """The Trainers that are built."""
    built = []
    init = pl.Trainer.__init__

    def counted(self, *arguments, **options):
        built.append(self)
        init(self, *arguments, **options)

    monkeypatch.setattr(pl.Trainer, "__init__", counted)
    return built


def test_fit_and_validate_build_one_trainer_each(trainers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make_camvid(tmp_path / "camvid")
    overrides = [*fit_overrides(root), "trainer.max_epochs=1", "prediction_images=0"]
    assert main(["fit", "--config", "camvid_w18_small", *overrides]) == 0
    assert len(trainers) == 1
    assert main(["validate"]) == 0
    assert len(trainers) == 2


def test_test_builds_one_trainer(trainers, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = make_cityscapes(tmp_path / "data", {"val": 1}, size=(64, 128))
    torch.save(official_weights("w18_small_v2", 19), tmp_path / "cs.pth")
    pairs = [f"data.root={root}", "data.workers=0", "data.test_split=val", "trainer.precision=32"]
    pairs += ["inference.base_size=128", "inference.scales=[1.0]", "inference.window=null"]
    command = ["--config", "cityscapes_w18_small_v2", "--checkpoint", "cs.pth"]
    assert main(["test", *command, *pairs]) == 0
    assert len(trainers) == 1
