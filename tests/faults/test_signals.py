"""SIGTERM, SIGINT, SIGHUP to commands: one line, an exit code, in time; nothing half done."""

import random
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from hrseg.checkpoints.integrity import state_of
from hrseg.checkpoints.runs import newest_state
from tests.faults import counts
from tests.faults import training as train
from tests.faults.training import Blow, Ended

SOON = 10.0  # seconds
ENDLESS = ("trainer.max_epochs=1000", "trainer.num_sanity_val_steps=0")
LEFT = (".partial-*", ".masks", ".metrics.csv")


@dataclass(frozen=True)
class Place:
    """Where the tests of a kind happen: the folder, the number of the case, and a finished run."""

    folder: Path
    number: int
    trained: Path

    @property
    def runs(self) -> Path:
        return self.folder / f"runs{self.number}"

    @property
    def log(self) -> Path:
        return self.folder / f"{self.number}.log"


@counts(2, 32)
def test_a_signal_stops_a_command_within_ten_seconds_with_its_state_saved(count, tmp_path):
    """SIGTERM, SIGINT and SIGHUP to `fit`, `validate` and `predict`, at drawn moments."""
    folder = tmp_path
    draw, lost = random.Random(0), []
    train.prepare(folder)
    first = train.command(folder, folder / "trained", "trainer.max_epochs=1")
    train.run(first, folder / "trained.log")
    trained = train.only_run(folder / "trained")
    for number in range(count):
        case = list(CASES)[number % len(CASES)]
        signum = draw.choice([signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
        place = Place(folder, number, trained)
        fault = CASES[case](place, signum, draw) or rest(place)
        if fault:
            lost.append(f"{number}: {signum.name} {case}: {fault}")
    assert not lost, "\n".join(lost)


def training(place: Place, signum: int, draw: random.Random, **how: object) -> str | None:
    """Strike amid a training: the batch is finished, and saved."""
    workers = draw.choice([0, 2])
    words = train.command(place.folder, place.runs, *ENDLESS, f"data.workers={workers}")
    blow = Blow(signum, draw.randint(1, 9), draw.uniform(0, 0.2), **how)  # type: ignore[arg-type]
    ended = train.run(words, place.log, blow)
    return misbehaved(ended, signum, "to go on: hrseg fit --resume") or unsaved(place, blow.step)


def validating(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike amid a validation of a training: what was before it is saved already."""
    words = train.command(place.folder, place.runs, *ENDLESS)
    ended = train.run(words, place.log, Blow(signum, draw.randint(1, 3), 0, "validation_step"))
    return misbehaved(ended, signum, "to go on: hrseg fit --resume") or unsaved(place, 4)


def twice(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike again, amid a batch that does not end: it ends at once."""
    words = train.command(place.folder, place.runs, *ENDLESS)
    blow = Blow(signum, 6, again=1.5, linger=8.0)
    ended = train.run(words, place.log, blow)
    fault = misbehaved(ended, signum, "at once; to go on: hrseg fit --resume")
    if ended.lingered and ended.lingered > 6:
        return f"it took {ended.lingered:.1f} s"
    return fault or unsaved(place, 4)


def checking(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike before the training begins: it leaves no run behind."""
    words = train.command(place.folder, place.runs)
    ended = train.run(words, place.log, Blow(signum, 1, draw.uniform(0, 0.2), "check", linger=0.3))
    left = [path for path in place.runs.glob("*/*")]
    return misbehaved(ended, signum, "stopped") or (f"a run is left: {left}" if left else None)


def scoring(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike `validate`: it leaves no folder of scores."""
    checkpoint = place.trained / "checkpoints" / "best.ckpt"
    words = ["validate", "--checkpoint", str(checkpoint), f"data.workers={draw.choice([0, 2])}"]
    ended = train.run(words, place.log, Blow(signum, draw.randint(1, 3), 0, "validation_step"))
    left = list(place.trained.glob("validate/*"))
    return misbehaved(ended, signum, "stopped") or (f"left: {left}" if left else None)


def predicting(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike `predict`: every mask that is there is whole, and a resumed call makes the rest."""
    out, images = place.folder / f"out{place.number}", place.folder / "camvid" / "train"
    words = ["predict", str(images), "--checkpoint", str(place.trained), "--out", str(out)]
    blow = Blow(signum, draw.randint(1, 8), draw.uniform(0, 0.03), "segment", linger=0.1)
    fault = misbehaved(train.run(words, place.log, blow), signum, "stopped")
    again = train.run([*words, "--resume"], place.log)
    masks = len(list(out.glob("masks/*.png")))
    if again.code or masks != train.TRAIN:
        return f"resumed: exit {again.code}, {masks} masks"
    return fault


def two(place: Place, signum: int, draw: random.Random) -> str | None:
    """Strike one of two processes amid a training: both save and end after the same batch."""
    words = train.command(
        place.folder, place.runs, *ENDLESS, "trainer.devices=2", "data.batch_size=4"
    )
    at = draw.choice(["training_step", "training_step", "validation_step"])
    step = draw.randint(3, 9) if at == "training_step" else draw.randint(1, 2)
    blow = Blow(signum, step, draw.uniform(0, 0.1), at)
    struck, logs = draw.randrange(2), [place.log.with_suffix(f".{rank}.log") for rank in range(2)]
    port = free_port()
    processes = [
        train.start(words, log, blow if rank == struck else None, torchrun(rank, port))
        for rank, log in enumerate(logs)
    ]
    ends = [train.wait(process, log) for process, log in zip(processes, logs, strict=True)]
    ends[0].lingered = ends[struck].lingered
    silent = ends[1].said.strip().splitlines()
    fault = misbehaved(ends[0], signum, "to go on: hrseg fit --resume")
    if ends[1].code != 128 + signum or ends[1].left or "Traceback" in ends[1].said:
        return f"the second one: exit {ends[1].code}, left {ends[1].left}, {silent[-3:]}"
    return fault or unsaved(place, step if at == "training_step" else 2)


CASES: dict[str, Callable[[Place, int, random.Random], str | None]] = {
    "to fit": training,
    "to one of two processes": two,
    "to fit and its workers": lambda *case: training(*case, all=True),
    "to fit that validates": validating,
    "to fit that checks the data": checking,
    "to validate": scoring,
    "to predict": predicting,
    "to fit, twice": twice,
}


def misbehaved(ended: Ended, signum: int, word: str) -> str | None:
    """Return what is wrong with how a command ended, if anything."""
    lines = ended.said.strip().splitlines() or [""]
    if ended.lingered is None:
        return f"it was not struck; exit {ended.code}; {lines[-3:]}"
    if ended.code != 128 + signum:
        return f"exit {ended.code}; {lines[-3:]}"
    if ended.lingered > SOON:
        return f"it took {ended.lingered:.1f} s"
    if ended.left:
        return f"processes are left: {ended.left}"
    if "Traceback" in ended.said or not lines[-1].startswith("hrseg: stopped"):
        return f"it said {lines[-3:]}"
    return None if word in lines[-1] else f"it said {lines[-1]}"


def unsaved(place: Place, step: int) -> str | None:
    """Return what is wrong with the state of a stopped training: it stands at `step` or later."""
    path = newest_state(train.only_run(place.runs))
    content = torch.load(path, weights_only=True)
    said = place.log.read_text() if place.log.is_file() else ""
    if state_of(path) != "whole" or path.name != "last.ckpt":
        return f"{path} is {state_of(path)}"
    found = int(content["global_step"])
    if f" after step {found};" not in said and " after step " in said:
        return f"the state stands at step {found}, it said {said.splitlines()[-1]}"
    return None if found >= step else f"the state stands at step {found}, not {step}"


def rest(place: Place) -> str | None:
    """Return what is left half-written, if anything."""
    folders = [place.runs, place.trained, place.folder / f"out{place.number}"]
    left = [path for folder in folders for pattern in LEFT for path in folder.rglob(pattern)]
    return f"left: {left}" if left else None


def torchrun(rank: int, port: int) -> dict[str, str]:
    """Return the environment of one of two processes."""
    return {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "test", "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }  # fmt: skip


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
