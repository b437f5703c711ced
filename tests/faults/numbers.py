"""Numbers that are none, and memory that does not suffice."""

import copy
import random
import warnings
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

import hrseg
from hrseg.checkpointing import DurableCheckpointIO
from hrseg.errors import ProofError
from hrseg.inference import Evaluator
from hrseg.protocols import Protocol
from hrseg.seal import state_of
from tests.faults import Tally

STEPS = 4


class Noise:
    """Random images and masks of two classes."""

    def __init__(self, seed: int) -> None:
        self.draw = torch.Generator().manual_seed(seed)
        shape = (STEPS, 3, 40, 40)
        self.images = torch.randint(0, 256, shape, dtype=torch.uint8, generator=self.draw)

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> dict:
        mask = (self.images[index, 0] > 127).byte()
        return {"image": self.images[index], "mask": mask, "name": f"{index}.png"}


class Harm(pl.Callback):
    """Puts NaN or infinity into the network at a step: into what passes through, or the weights."""

    def __init__(self, step: int, value: float, where: str) -> None:
        self.step, self.value, self.where = step, value, where
        self.before: dict = {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if batch_idx != self.step:
            return
        self.before = copy.deepcopy(pl_module.model.state_dict())
        if self.where == "weights":
            with torch.no_grad():
                pl_module.model.backbone.conv2.weight[0, 0] = self.value
        else:
            module = pl_module.model.get_submodule(self.where)
            self.hook = module.register_forward_hook(lambda _, __, out: out * self.value)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if batch_idx == self.step and self.where != "weights":
            self.hook.remove()


def no_numbers(count: int, folder: Path, seed: int) -> Tally:
    """NaN and infinity at a random step and place, under both policies, in float32 and bf16."""
    draw, tally = random.Random(seed), Tally()
    for number in range(count):
        places = ["weights", "backbone.bn1", "backbone.layer1", "backbone.conv2"]
        harm = Harm(draw.randrange(STEPS), draw.choice([torch.nan, torch.inf]), draw.choice(places))
        policy, precision = draw.choice(["stop", "skip"]), draw.choice(["32-true", "bf16-mixed"])
        what = f"{harm.value} in {harm.where} at step {harm.step}, {policy}, {precision}"
        fault = train(folder / str(number), harm, policy, precision)
        tally.record(fault and f"{what}: {fault}")
    return tally


def train(folder: Path, harm: Harm, policy: str, precision: str) -> str | None:
    """Train a few steps with one that is harmed; say what of the promise did not hold."""
    torch.manual_seed(0)
    model = hrseg.create_model("hrnet_w18_small_v1", num_classes=2)
    task = hrseg.SegmentationTask(model, ["dark", "bright"], on_bad_loss=policy)
    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=1, precision=precision, logger=False, callbacks=[harm],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        default_root_dir=folder, plugins=[DurableCheckpointIO()],
    )  # fmt: skip
    said, last = StringIO(), folder / "last.ckpt"
    error: ProofError | None = None
    try:
        with redirect_stdout(said), warnings.catch_warnings(action="ignore"):
            trainer.fit(task, DataLoader(Noise(0), 1))
    except ProofError as raised:
        error = raised
    named = f"{harm.step}.png" in (str(error) if error else said.getvalue())
    if not named:
        return f"the batch is not named: {error or said.getvalue()!r}"
    if not list((folder / "bad_batches").glob("*.pt")):
        return "the batch is not kept"
    if harm.where == "weights":
        with suppress(ProofError):
            trainer.save_checkpoint(last)
        return "weights that are no numbers were saved" if last.exists() else None
    if policy == "stop":
        return compare(model.named_parameters(), harm.before) if error else "it went on"
    trainer.save_checkpoint(last)
    state = torch.load(last, weights_only=True)["state_dict"]
    finite = all(t.isfinite().all() for t in state.values() if t.is_floating_point())
    return None if finite and state_of(last) == "whole" else "what was saved is not finite"


def compare(parameters, before: dict) -> str | None:
    """Say which parameter is not as it was."""
    other = [name for name, value in parameters if not torch.equal(value, before[name])]
    return f"changed: {other[:3]}" if other else None


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


def no_memory(count: int, folder: Path, seed: int) -> Tally:
    """Allocations that fail at random points of an evaluation by windows, scales and flips."""
    draw, tally = random.Random(seed), Tally()
    while tally.injected < count:
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
        for _ in range(failed):
            tally.record(fault)
    return tally


def scaled(image: torch.Tensor) -> torch.Tensor:
    """Return an image in 0..1."""
    return image / 255
