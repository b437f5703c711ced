"""SIGTERM, SIGINT and SIGHUP to commands: one line, an exit code, in time, nothing half-written."""

import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hrseg.checkpoints.integrity import state_of
from hrseg.checkpoints.runs import newest_state
from tests.faults import inject
from tests.faults import training as train
from tests.faults.training import Blow

SOON = 10.0  # seconds
RESUME = "to go on: hrseg fit --resume"
HALF_WRITTEN = (".partial-*", ".masks", ".metrics.csv")


@dataclass(frozen=True)
class Case:
    """The folder and number of a case, its signal and draws, and a finished run."""

    folder: Path
    number: int
    signum: int
    draw: random.Random
    trained: Path

    @property
    def runs(self):
        return self.folder / f"runs{self.number}"

    @property
    def log(self):
        return self.folder / f"{self.number}.log"

    def fit(self, *pairs):
        endless = ("trainer.max_epochs=1000", "trainer.num_sanity_val_steps=0")
        return train.command(self.folder, self.runs, *endless, *pairs)


@inject(2, 32)
def test_a_signal_stops_a_command_within_ten_seconds_with_its_state_saved(count, tmp_path):
    """At drawn moments of `fit`, `validate` and `predict`."""
    draw = random.Random(0)
    train.prepare(tmp_path)
    first = train.command(tmp_path, tmp_path / "trained", "trainer.max_epochs=1")
    train.run(first, tmp_path / "trained.log")
    trained = train.only_run(tmp_path / "trained")
    for number in range(count):
        name = list(CASES)[number % len(CASES)]
        signum = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        case = Case(tmp_path, number, signum, draw, trained)
        fault = CASES[name](case) or half_written(case)
        yield fault and f"{number}: {signum.name} {name}: {fault}"


def training(case, everyone=False):
    """The batch is finished and saved."""
    words = case.fit(f"data.workers={case.draw.choice([0, 2])}")
    step = case.draw.randint(1, 9)
    blow = Blow(case.signum, step, case.draw.uniform(0, 0.2), all=everyone)
    return misbehaved(case, train.run(words, case.log, blow), RESUME) or unsaved(case, step)


def validating(case):
    """The state before the validation is saved already."""
    blow = Blow(case.signum, case.draw.randint(1, 3), 0, "validation_step")
    return misbehaved(case, train.run(case.fit(), case.log, blow), RESUME) or unsaved(case, 4)


def twice(case):
    """The second signal ends a long batch at once."""
    ended = train.run(case.fit(), case.log, Blow(case.signum, 6, again=1.5, linger=8.0))
    if ended.seconds and ended.seconds > 6:
        return f"it took {ended.seconds:.1f} s"
    return misbehaved(case, ended, f"at once; {RESUME}") or unsaved(case, 4)


def checking(case):
    """A stop before the training leaves no run folder."""
    words = train.command(case.folder, case.runs)
    blow = Blow(case.signum, 1, case.draw.uniform(0, 0.2), "check", linger=0.3)
    fault = misbehaved(case, train.run(words, case.log, blow), "stopped")
    left = list(case.runs.glob("*/*"))
    return fault or (f"a run is left: {left}" if left else None)


def scoring(case):
    """A stop of `validate` leaves no folder of scores."""
    checkpoint = str(case.trained / "checkpoints" / "best.ckpt")
    workers = f"data.workers={case.draw.choice([0, 2])}"
    blow = Blow(case.signum, case.draw.randint(1, 3), 0, "validation_step")
    ended = train.run(["validate", "--checkpoint", checkpoint, workers], case.log, blow)
    left = list(case.trained.glob("validate/*"))
    return misbehaved(case, ended, "stopped") or (f"left: {left}" if left else None)


def predicting(case):
    """The masks of a stopped `predict` are whole, and `--resume` writes the others."""
    out, images = case.folder / f"out{case.number}", case.folder / "camvid" / "train"
    words = ["predict", str(images), "--checkpoint", str(case.trained), "--out", str(out)]
    step, delay = case.draw.randint(1, 8), case.draw.uniform(0, 0.03)
    blow = Blow(case.signum, step, delay, "segment", linger=0.1)
    fault = misbehaved(case, train.run(words, case.log, blow), "stopped")
    again = train.run([*words, "--resume"], case.log)
    masks = len(list(out.glob("masks/*.png")))
    if again.code or masks != train.TRAIN:
        return f"resumed: exit {again.code}, {masks} masks"
    return fault


def two(case):
    """If one of two processes gets the signal, both save and end after the same batch."""
    words = case.fit("trainer.devices=2", "data.batch_size=4")
    at = case.draw.choice(["training_step", "training_step", "validation_step"])
    step = case.draw.randint(3, 9) if at == "training_step" else case.draw.randint(1, 2)
    blow = Blow(case.signum, step, case.draw.uniform(0, 0.1), at)
    struck, port = case.draw.randrange(2), free_port()
    logs = [case.log.with_suffix(f".{rank}.log") for rank in range(2)]
    processes = [
        train.start(words, log, blow if rank == struck else None, torchrun(rank, port))
        for rank, log in enumerate(logs)
    ]
    ends = [train.wait(process, log) for process, log in zip(processes, logs, strict=True)]
    ends[0].seconds = ends[struck].seconds
    if ends[1].code != 128 + case.signum or ends[1].left or "Traceback" in ends[1].output:
        last = ends[1].output.strip().splitlines()[-3:]
        return f"the second process: exit {ends[1].code}, left {ends[1].left}, {last}"
    saved = step if at == "training_step" else 2
    return misbehaved(case, ends[0], RESUME) or unsaved(case, saved)


CASES: dict[str, Callable[[Case], str | None]] = {
    "to fit": training,
    "to one of two processes": two,
    "to fit and its workers": lambda case: training(case, everyone=True),
    "to fit that validates": validating,
    "to fit that checks the data": checking,
    "to validate": scoring,
    "to predict": predicting,
    "to fit, twice": twice,
}


def misbehaved(case, ended, message):
    """Return what is wrong with the end of a command."""
    lines = ended.output.strip().splitlines() or [""]
    if ended.seconds is None or ended.code != 128 + case.signum:
        return f"exit {ended.code}, {ended.seconds} s after the signal; {lines[-3:]}"
    if ended.seconds > SOON or ended.left:
        return f"it took {ended.seconds:.1f} s; processes left: {ended.left}"
    last = lines[-1].startswith("hrseg: stopped") and message in lines[-1]
    return None if last and "Traceback" not in ended.output else f"it printed {lines[-3:]}"


def unsaved(case, step):
    """Return what is wrong with the state of a stopped training, at `step` or later."""
    path = newest_state(train.only_run(case.runs))
    saved = int(torch.load(path, weights_only=True)["global_step"])
    if state_of(path) != "whole" or path.name != "last.ckpt" or saved < step:
        return f"{path} is {state_of(path)}, at step {saved}, expected {step}"
    output = case.log.read_text() if case.log.is_file() else ""
    if " after step " in output and f" after step {saved};" not in output:
        return f"the state is of step {saved}, it printed {output.splitlines()[-1]}"
    return None


def half_written(case):
    folders = [case.runs, case.trained, case.folder / f"out{case.number}"]
    left = [
        path for folder in folders for pattern in HALF_WRITTEN for path in folder.rglob(pattern)
    ]
    return f"left: {left}" if left else None


def torchrun(rank, port):
    """Return the environment of one of two processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port():
    """Return a port without a listener."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
