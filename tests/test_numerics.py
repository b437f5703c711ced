"""Losses that are no number."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

import hrseg
from hrseg.errors import ConfigError, ProofError
from hrseg.numerics import IN_A_ROW, LossGuard


class Noise:
    """Random images; the mask of the first is ignored everywhere."""

    def __init__(self, count=4, side=64):
        draw = torch.Generator().manual_seed(0)
        shape = (count, 3, side, side)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        mask = (self.images[index, 0] > 127).byte() if index else torch.full((64, 64), 255).byte()
        return {"image": self.images[index], "mask": mask, "name": f"{index}.png"}


def task(**arguments):
    torch.manual_seed(0)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2)
    return hrseg.SegmentationTask(model, ["dark", "bright"], **arguments)


class Harm(pl.Callback):
    """Makes the loss of some steps NaN by way of the head's bias, and notes the weights."""

    def __init__(self, *steps):
        self.steps, self.before = steps, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before[batch_idx] = copy.deepcopy(pl_module.model.state_dict())
        self.hook = None
        if batch_idx in self.steps:
            stem = pl_module.model.backbone.bn1
            self.hook = stem.register_forward_pre_hook(lambda _, x: (x[0] * torch.nan,))

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.hook:
            self.hook.remove()


def fit(module, folder, harm, loader=None, **arguments):
    trainer = pl.Trainer(
        accelerator="cpu",
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **{"max_epochs": 1, **arguments},
        callbacks=[harm],
    )
    try:
        trainer.fit(module, loader or DataLoader(Noise(), 1))
    finally:
        for stem in [module.model.backbone.bn1]:
            stem._forward_pre_hooks.clear()
    return trainer


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_stop_leaves_the_weights_of_the_step_before_and_keeps_the_batch(tmp_path):
    module, harm = task(), Harm(2)
    with pytest.raises(ProofError, match=r"the loss is nan at step 2 \(images: 2.png\)"):
        fit(module, tmp_path, harm)
    parameters = dict(module.model.named_parameters())
    assert all(torch.equal(harm.before[2][name], p) for name, p in parameters.items())
    kept = torch.load(tmp_path / "bad_batches" / "step2-0-1.pt", weights_only=True)
    assert kept["name"] == ["2.png"] and (kept["epoch"], kept["step"]) == (0, 2)
    assert kept["image"].equal(Noise()[2]["image"][None])
    picture = np.asarray(Image.open(tmp_path / "bad_batches" / "step2-0-1-image0.png"))
    assert np.array_equal(picture, Noise()[2]["image"].permute(1, 2, 0))


def test_skip_goes_on_as_if_the_batch_had_not_been_there(tmp_path, capsys):
    module, harm = task(on_bad_loss="skip", schedule={"name": "poly", "power": 0.0}), Harm(1)
    fit(module, tmp_path, harm)
    # Weights and batch norm statistics alike.
    assert same(harm.before[1], harm.before[2])
    assert not same(harm.before[2], harm.before[3])
    said = capsys.readouterr().out
    assert "the loss is nan at step 1: skipped (1.png" in said
    assert "1 steps without a finite loss were skipped" in said


def test_with_accumulation_the_step_of_a_bad_batch_is_left_out(tmp_path):
    module, harm = task(on_bad_loss="skip"), Harm(1)
    fit(module, tmp_path, harm, accumulate_grad_batches=2)
    assert same(harm.before[0], harm.before[2])


def test_skipping_for_ever_is_an_end(tmp_path):
    harm = Harm(*range(1, 1 + IN_A_ROW))
    loader = DataLoader(Noise(1 + IN_A_ROW), 1)
    with pytest.raises(ProofError, match=f"the {IN_A_ROW}th in a row"):
        fit(task(on_bad_loss="skip"), tmp_path, harm, loader)


def test_batches_of_ignored_pixels_alone_are_counted(tmp_path, capsys):
    fit(task(), tmp_path, Harm())
    assert "1 batches of this epoch held only ignored pixels" in capsys.readouterr().out


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    module = task()
    trainer = fit(module, tmp_path, Harm())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        module.model.backbone.conv1.weight[0] = torch.inf
    with pytest.raises(ProofError, match="not finite at step 4: they were not saved"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before


def test_a_single_value_for_batch_norm_is_a_message(tmp_path):
    crops = [{**item, "image": item["image"][:, :32, :32], "mask": item["mask"][:32, :32]}
             for item in Noise()]  # fmt: skip
    with pytest.raises(ConfigError, match=r"one pixel(.|\n)*data.crop_size beyond 32"):
        fit(task(), tmp_path, Harm(), DataLoader(crops, 1))


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match=r"on_bad_loss 'skp'.*skip"):
        task(on_bad_loss="skp")
    assert LossGuard().policy == "stop"
