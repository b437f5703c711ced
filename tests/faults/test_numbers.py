"""Numbers that are none, and memory that does not suffice."""

import copy
import ctypes
import os
import random
import resource
import warnings
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from hrseg.checkpoints.integrity import state_of
from hrseg.config.protocols import Protocol
from hrseg.errors import VerificationError
from hrseg.inference.evaluator import Evaluator
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.loss_guard import LossGuard
from tests.conftest import noise, silent_trainer, tiny_task
from tests.faults import counts

STEPS = 4


# Where a number is spoilt: the image, features, logits, the loss, its gradient, the weights.
PLACES = ["normalize", "model.backbone.bn1", "model.backbone.layer1", "model.head.last_layer",
          "loss_terms.0", "gradient", "weights", "nothing but ignored pixels"]  # fmt: skip


class Harm(pl.Callback):
    """Puts NaN or infinity into the network at a step, and keeps a checkpoint of before it."""

    def __init__(self, step: int, value: float, where: str, last: Path) -> None:
        self.step, self.value, self.where, self.last = step, value, where, last
        self.before: dict = {}
        self.hook: Any = None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx != self.step:
            return
        trainer.save_checkpoint(self.last)
        self.before = copy.deepcopy(pl_module.model.state_dict())
        stem = pl_module.model.backbone.conv2.weight
        if self.where == "weights":
            with torch.no_grad():
                stem[0, 0] = self.value
        elif self.where == "gradient":
            self.hook = stem.register_hook(lambda gradient: gradient * self.value)
        elif self.where in dict(pl_module.named_modules()):
            module = pl_module.get_submodule(self.where)
            self.hook = module.register_forward_hook(lambda _, __, out: out * self.value)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if self.hook is not None:
            self.hook.remove()


@counts(8, 96)
def test_nan_and_infinity_never_reach_weights_and_their_batch_is_kept(count, tmp_path):
    """At a random step and place, under both policies, in float32 and bf16."""
    folder = tmp_path
    draw, lost = random.Random(0), []
    for number in range(count):
        value = draw.choice([torch.nan, torch.inf, -torch.inf])
        last = folder / str(number) / "last.ckpt"
        harm = Harm(draw.randrange(STEPS), value, PLACES[number % len(PLACES)], last)
        policy, precision = draw.choice(["stop", "skip"]), draw.choice(["32-true", "bf16-mixed"])
        what = f"{value} in {harm.where} at step {harm.step}, {policy}, {precision}"
        fault = train(harm, policy, precision)
        if fault:
            lost.append(f"{what}: {fault}")
    assert not lost, "\n".join(lost)


def train(harm: Harm, policy: str, precision: str) -> str | None:
    """Train a few steps with one that is harmed; say what of the promise did not hold."""
    task, items = tiny_task(on_bad_loss=policy), noise(STEPS, (40, 40))
    folder, void = harm.last.parent, harm.where == "nothing but ignored pixels"
    if void:
        items[harm.step]["mask"].fill_(255)
    callbacks, plugins = [harm, LossGuard(policy, folder)], [DurableCheckpointIO()]
    trainer = silent_trainer(folder, precision=precision, callbacks=callbacks, plugins=plugins)
    said, error = StringIO(), None
    try:
        with redirect_stdout(said), warnings.catch_warnings(action="ignore"):
            trainer.fit(task, DataLoader(items, 1))
    except VerificationError as raised:
        error = raised
    before = harm.last.read_bytes()
    with suppress(VerificationError):
        trainer.save_checkpoint(harm.last)
    if harm.where == "weights" and harm.last.read_bytes() != before:
        return "weights that are no numbers were saved"
    if not_finite(harm.last):
        return "what was saved is not whole, or not finite"
    if void:
        counted = "1 of this epoch's batches held only ignored pixels" in said.getvalue()
        return None if counted and not error else f"not counted: {error or said.getvalue()!r}"
    return unsaid(harm, policy, error, said.getvalue(), task.model)


def unsaid(
    harm: Harm, policy: str, error: VerificationError | None, said: str, model: torch.nn.Module
) -> str | None:
    """Say whether the batch was not named or kept, or the policy not followed."""
    if f"(images: {harm.step}.png)" not in (str(error) if error else said):
        return f"the batch is not named: {error or said!r}"
    kept = list((harm.last.parent / "bad_batches").glob(f"step{harm.step}-*.pt"))
    if not kept:
        return "the batch is not kept"
    batch = torch.load(kept[0], weights_only=True)
    if not batch["image"][0].equal(noise(STEPS, (40, 40))[harm.step]["image"]):
        return "another batch is kept"
    if policy == "skip" and harm.where != "weights":
        return f"it was not skipped: {error}" if error else None
    changed = [name for name, value in model.named_parameters()
               if not torch.equal(value, harm.before[name])]  # fmt: skip
    if harm.where != "weights" and changed:
        return f"changed: {changed[:3]}"
    return None if error or policy == "skip" else "it went on"


def not_finite(checkpoint: Path) -> bool:
    """Tell whether a checkpoint is damaged, or holds weights that are no numbers."""
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    finite = all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    return not finite or state_of(checkpoint) != "whole"


class Narrow:
    """A model that finds no memory at random: the more images at once, the more often."""

    def __init__(self, draw: random.Random) -> None:
        self.draw, self.failed = draw, 0

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        if len(image) > 1 and self.draw.random() < 0.2 * len(image):
            self.failed += 1
            if self.draw.random() < 0.5:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            torch.empty(2**44)  # the processor's own way of saying so
        return torch.cat([image, image.roll(1, -1), image.roll(1, -2)], 1)[..., ::2, ::2]


@counts(20, 1000)
def test_an_evaluation_that_runs_out_of_memory_gives_the_same_scores(count):
    """Allocations that fail at random points of an evaluation by windows, scales and flips."""
    draw, lost = random.Random(0), []
    # Not among the tests: what others of them have freed would be enough.
    for number in range(count // 50):
        fault = in_little_memory(draw.randrange(100, 200))
        if fault:
            lost.append(f"limit {number}: {fault}")
    injected = count // 50
    while injected < count:
        protocol = Protocol(
            scales=(0.5, 1.0), window=(32, 32), stride=(draw.randrange(12, 33),) * 2,
            flip=draw.random() < 0.5, average=draw.choice(["softmax", "exp_logits"]),
        )  # fmt: skip
        size = (draw.randrange(40, 90), draw.randrange(40, 90))
        image = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8)
        plenty = Evaluator(Narrow(random.Random(1)), scaled, protocol, batch=1)
        narrow = Evaluator(Narrow(draw), scaled, protocol, batch=draw.randrange(2, 9))
        expected = plenty(image, keep_scores=True)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            got = narrow(image, keep_scores=True)
        failed = narrow.model.failed
        same = got.pred.equal(expected.pred) and got.scores.equal(expected.scores)
        fault = None if same and len(said) == failed else f"{size}, {protocol}: other scores"
        injected += failed
        lost += [fault] * (fault is not None)
    assert not lost, "\n".join(lost)


def in_little_memory(mib: int) -> str | None:
    """Evaluate windows in a process that is given so much more address space than it has.

    Four of the windows take 256 MiB at once, one takes 64.
    """
    image = torch.randint(0, 256, (1, 3, 1024, 1024), dtype=torch.uint8)
    protocol = Protocol(window=(512, 512), stride=(512, 512))
    expected = Evaluator(wide, scaled, protocol)(image).pred
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            fresh_memory_alone()
            resource.setrlimit(resource.RLIMIT_AS, (held + mib * 2**20,) * 2)
            work = Evaluator(wide, scaled, protocol)
            with warnings.catch_warnings(action="ignore"):
                same = work(image).pred.equal(expected)
            os.write(writer, f"{work.batch} {same}".encode())
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    batch, _, same = answer.partition(" ")
    if status != 0 or same != "True":
        return f"in {mib} MiB: status {status}, {answer!r}"
    return None if int(batch) < 4 else f"{mib} MiB were enough: no fault"


def fresh_memory_alone() -> None:
    """Let large blocks come from the system, not from what this process has freed and holds."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-4, 65536)  # M_MMAP_MAX
    libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD


def wide(image: torch.Tensor) -> torch.Tensor:
    """64 channels at full size, and two logits of them."""
    layers = image[:, :1].repeat(1, 64, 1, 1)
    return torch.cat([layers[:, :1], 1 - layers[:, 1:2]], 1)[..., ::4, ::4]


def scaled(image: torch.Tensor) -> torch.Tensor:
    """Return an image in 0..1."""
    return image / 255
