"""NaN and infinite losses."""

import copy

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from PIL import Image
from torch.utils.data import DataLoader

from hrseg.errors import VerificationError
from hrseg.training.loss_guard import MAX_SKIPS, LossGuard
from tests.conftest import noise, silent_trainer, tiny_task


def images_of(count=4):
    """Return noise images; all pixels of the first are ignored."""
    items = noise(count)
    items[0]["mask"].fill_(255)
    return items


class Harm(pl.Callback):
    """Makes the loss of some steps NaN, and records the weights before each step."""

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
    callbacks = [harm, LossGuard(module.on_bad_loss, folder)]
    trainer = silent_trainer(folder, **arguments, callbacks=callbacks)
    try:
        trainer.fit(module, loader or DataLoader(images_of(), 1))
    finally:
        for stem in [module.model.backbone.bn1]:
            stem._forward_pre_hooks.clear()
    return trainer


def same(a, b):
    return all(torch.equal(a[key], b[key]) for key in a)


def test_stop_does_not_change_the_weights_and_saves_the_batch(tmp_path):
    module, harm = tiny_task(), Harm(2)
    with pytest.raises(VerificationError, match=r"The loss is nan at step 2 \(images: 2.png\)"):
        fit(module, tmp_path, harm)
    parameters = dict(module.model.named_parameters())
    assert all(torch.equal(harm.before[2][name], p) for name, p in parameters.items())
    saved = torch.load(tmp_path / "bad_batches" / "step2-0-1.pt", weights_only=True)
    assert saved["name"] == ["2.png"] and (saved["epoch"], saved["step"]) == (0, 2)
    assert saved["image"].equal(images_of()[2]["image"][None])
    picture = np.asarray(Image.open(tmp_path / "bad_batches" / "step2-0-1-image0.png"))
    assert np.array_equal(picture, images_of()[2]["image"].permute(1, 2, 0))


def test_skip_continues_with_unchanged_weights(tmp_path, capsys):
    module, harm = tiny_task(on_bad_loss="skip", schedule={"name": "poly", "power": 0.0}), Harm(1)
    fit(module, tmp_path, harm)
    # Both weights and batch norm statistics are unchanged.
    assert same(harm.before[1], harm.before[2])
    assert not same(harm.before[2], harm.before[3])
    printed = capsys.readouterr().out
    message = "the loss is nan at step 1 (images: 1.png): step skipped; the batch is saved"
    assert message in printed
    assert "steps of this epoch skipped for NaN or infinite losses: 1\n" in printed


def test_with_accumulation_the_whole_step_of_a_bad_batch_is_skipped(tmp_path):
    module, harm = tiny_task(on_bad_loss="skip"), Harm(1)
    fit(module, tmp_path, harm, accumulate_grad_batches=2)
    assert same(harm.before[0], harm.before[2])


class BadGradient(Harm):
    """Makes a gradient infinite, with a finite loss."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.hook.remove() if self.hook else None
        bias = pl_module.model.head.last_layer[3].bias
        scale = torch.inf if batch_idx in self.steps else 1.0
        self.hook = bias.register_hook(lambda gradient: gradient * scale)


@pytest.mark.parametrize("clip", [None, 1.0])
def test_infinite_gradients_skip_the_step(tmp_path, clip, capsys):
    module, harm = tiny_task(on_bad_loss="skip"), BadGradient(2)
    fit(module, tmp_path, harm, gradient_clip_val=clip)
    assert same(harm.before[2], harm.before[3])
    message = "the loss is finite, but a gradient is not, at step 2 (images: 2.png): step skipped"
    assert message in capsys.readouterr().out
    with pytest.raises(VerificationError, match="a gradient is not"):
        fit(tiny_task(), tmp_path, BadGradient(2))


class InSecondProcess(Harm):
    """Makes the loss NaN only in the second process."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.hook = None
        if trainer.global_rank == 1:
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)


@pytest.mark.filterwarnings("ignore")
def test_all_processes_skip_a_nan_loss_of_one_process(tmp_path, capfd):
    module, loader = tiny_task(on_bad_loss="skip"), DataLoader(images_of(6), 1)
    arguments = {"devices": 2, "strategy": "ddp_fork", "use_distributed_sampler": False}
    fit(module, tmp_path, InSecondProcess(1), loader, **arguments)  # both see the same images
    assert "at step 1 (images: 1.png): step skipped" in capfd.readouterr().out
    assert [path.name for path in tmp_path.glob("bad_batches/*.pt")] == ["step1-1-1.pt"]


def test_too_many_consecutive_skips_stop_the_training(tmp_path):
    module, loader = tiny_task(on_bad_loss="skip"), DataLoader(images_of(MAX_SKIPS), 1)
    with pytest.raises(VerificationError, match=f"the {MAX_SKIPS}th consecutive"):
        fit(module, tmp_path, Harm(*range(MAX_SKIPS)), loader)


def test_infinite_weights_are_not_saved(tmp_path):
    module = tiny_task()
    trainer = fit(module, tmp_path, Harm())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with torch.no_grad():
        module.model.backbone.conv1.weight[0] = torch.inf
    with pytest.raises(VerificationError, match="infinite at step 4: they were not saved"):
        trainer.save_checkpoint(tmp_path / "last.ckpt")
    assert (tmp_path / "last.ckpt").read_bytes() == before
