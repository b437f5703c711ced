"""NaN and infinite values during training, and out of memory during evaluation."""

import copy
import random
import warnings
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from hrseg.checkpoints.integrity import state_of
from hrseg.config.protocols import Protocol
from hrseg.errors import VerificationError
from hrseg.inference.evaluator import Evaluator
from hrseg.models.normalize import Normalize
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.loss_guard import LossGuard
from tests.conftest import noise, silent_trainer, tiny_task
from tests.faults import inject

STEPS = 4
# Places: image, features, logits, loss, gradient, weights, and a batch without labelled pixels.
SITES = ["normalize", "model.backbone.bn1", "model.backbone.layer1", "model.head.last_layer",
         "loss_terms.0", "gradient", "weights", "only ignored pixels"]  # fmt: skip


class Harm(pl.Callback):
    """Inject NaN or infinity into the network at a step, after saving a checkpoint."""

    def __init__(self, step, value, site, last):
        self.step, self.value, self.site, self.last = step, value, site, last
        self.hook: Any = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx != self.step:
            return
        trainer.save_checkpoint(self.last)
        self.before = copy.deepcopy(pl_module.model.state_dict())
        stem = pl_module.model.backbone.conv2.weight
        if self.site == "weights":
            with torch.no_grad():
                stem[0, 0] = self.value
        elif self.site == "gradient":
            self.hook = stem.register_hook(lambda gradient: gradient * self.value)
        elif self.site in dict(pl_module.named_modules()):
            module = pl_module.get_submodule(self.site)
            self.hook = module.register_forward_hook(lambda _, __, out: out * self.value)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if self.hook is not None:
            self.hook.remove()


@inject(8, 96)
def test_nan_and_infinity_never_change_the_weights_and_their_batch_is_saved(count, tmp_path):
    """Inject values at random steps and sites, with both policies, in float32 and bf16."""
    draw = random.Random(0)
    for number in range(count):
        value = draw.choice([torch.nan, torch.inf, -torch.inf])
        last = tmp_path / str(number) / "last.ckpt"
        harm = Harm(draw.randrange(STEPS), value, SITES[number % len(SITES)], last)
        policy, precision = draw.choice(["stop", "skip"]), draw.choice(["32-true", "bf16-mixed"])
        fault = train(harm, policy, precision)
        case = f"{value} in {harm.site} at step {harm.step}, {policy}, {precision}"
        yield fault and f"{case}: {fault}"


def train(harm, policy, precision):
    task, items = tiny_task(on_bad_loss=policy), noise(STEPS, (40, 40))
    folder, void = harm.last.parent, harm.site == "only ignored pixels"
    if void:
        items[harm.step]["mask"].fill_(255)
    callbacks, plugins = [harm, LossGuard(policy, folder)], [DurableCheckpointIO()]
    trainer = silent_trainer(folder, precision=precision, callbacks=callbacks, plugins=plugins)
    output, error = StringIO(), None
    try:
        with redirect_stdout(output), warnings.catch_warnings(action="ignore"):
            trainer.fit(task, DataLoader(items, 1))
    except VerificationError as raised:
        error = raised
    before, message = harm.last.read_bytes(), str(error or output.getvalue())
    with suppress(VerificationError):
        trainer.save_checkpoint(harm.last)
    state = torch.load(harm.last, weights_only=True)["state_dict"]
    whole = state_of(harm.last) == "whole" and all(t.isfinite().all() for t in state.values())
    kept = [torch.load(path, weights_only=True)["image"][0]
            for path in (folder / "bad_batches").glob(f"step{harm.step}-*.pt")]  # fmt: skip
    image, stop = items[harm.step]["image"], policy == "stop"
    counted = "1 of this epoch's batches contain only ignored pixels" in message and not error
    named = f"(images: {harm.step}.png)" in message and kept and kept[0].equal(image)
    holds = {
        "the saved checkpoint has only finite values": whole,
        "the batch is counted, or named and kept": counted if void else named,
    }
    if harm.site == "weights":
        holds["weights of NaN are not saved"] = harm.last.read_bytes() == before
    elif not void:
        weights = task.model.named_parameters()
        same = all(value.equal(harm.before[name]) for name, value in weights)
        holds["the policy is followed"] = bool(error) == stop and (same or not stop)
    return next((f"failed: {claim}; {message}" for claim, true in holds.items() if not true), None)


class LimitedMemory:
    """Model with random out-of-memory errors, more frequent for larger batches."""

    def __init__(self, draw):
        self.draw, self.failed = draw, 0

    def __call__(self, image):
        if len(image) > 1 and self.draw.random() < 0.2 * len(image):
            self.failed += 1
            if self.draw.random() < 0.5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            torch.empty(2**44)  # raises the error of the CPU allocator
        return torch.cat([image, image.roll(1, -1), image.roll(1, -2)], 1)[..., ::2, ::2]


@inject(20, 1000)
def test_an_evaluation_that_runs_out_of_memory_gives_the_same_scores(count):
    """Raise errors at random points of evaluations with windows, scales and flips."""
    draw, injected = random.Random(0), 0
    while injected < count:
        protocol = Protocol(
            scales=(0.5, 1.0), window=(32, 32), stride=(draw.randrange(12, 33),) * 2,
            flip=draw.random() < 0.5, average=draw.choice(["softmax", "exp_logits"]),
        )  # fmt: skip
        size = (draw.randrange(40, 90), draw.randrange(40, 90))
        image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        reference = Evaluator(LimitedMemory(random.Random(1)), Normalize(), protocol, batch=1)
        limited = Evaluator(LimitedMemory(draw), Normalize(), protocol, batch=draw.randrange(2, 9))
        expected = reference(image, keep_scores=True)
        with warnings.catch_warnings(record=True, action="always") as messages:
            result = limited(image, keep_scores=True)
        failed = limited.model.failed
        same = result.pred.equal(expected.pred) and result.scores.equal(expected.scores)
        injected += failed
        yield None if same and len(messages) == failed else f"{size}, {protocol}: scores differ"
