"""Data workers that are killed, crash, are stopped or read what never answers, amid a real fit."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from torch.utils.data import get_worker_info

from hrseg.data import dataset
from tests.camvid_tree import make_camvid
from tests.faults import Tally, training

TIMEOUT = 2  # data.worker_timeout
SLACK = 20.0  # seconds more, on a machine with other things to do
ORPHANED = 10.0  # seconds that workers may stay when their parent is gone
TRAIN = 8


def inject(count: int, folder: Path, seed: int) -> Tally:
    """Do to workers of a training what the world does, at a random moment."""
    draw, tally = random.Random(seed), Tally()
    make_camvid(folder / "camvid", train=TRAIN, val=2)
    for number in range(count):
        name, deed = list(DEEDS.items())[number % len(DEEDS)]
        run = Run(folder, number)
        try:
            run.wait_for(draw.randint(4, 40))
            fault = deed(run, draw) or run.left()
        finally:
            run.end()
        tally.record(fault and f"{number}, {name}: {fault}; said: {run.said()[-700:]}")
    return tally


def killed(run: "Run", draw: random.Random, signum: int = signal.SIGKILL) -> str | None:
    """A signal that ends one worker."""
    worker = draw.choice(run.workers())
    os.kill(worker, signum)
    return run.wrong([3], rf"\({signal.Signals(signum).name}\), ", worker)


def crashed(run: "Run", draw: random.Random) -> str | None:
    """The signal that a library's fault ends in."""
    return killed(run, draw, signal.SIGSEGV)


def stopped(run: "Run", draw: random.Random) -> str | None:
    """A worker that goes on no more."""
    worker = draw.choice(run.workers())
    os.kill(worker, signal.SIGSTOP)
    return run.wrong([3], rf"has been .* for {TIMEOUT} s \(it was stopped\)", worker)


def read_hangs(run: "Run", draw: random.Random) -> str | None:
    """An image whose disk never answers: what is read in its place is a pipe."""
    path = run.hang(draw)
    return run.wrong([3], f"has been at sample .*{re.escape(path)}, mask .* for {TIMEOUT} s")


def parent_killed(run: "Run", draw: random.Random) -> str | None:
    """SIGKILL to the process that trains, now and then while a worker hangs."""
    if draw.random() < 0.5:
        run.hang(draw)
        time.sleep(draw.uniform(0, 1))
    os.kill(run.pid, signal.SIGKILL)
    return run.wrong([-signal.SIGKILL], "")


def told_to_stop(run: "Run", draw: random.Random) -> str | None:
    """Ctrl-C twice, to all processes as a terminal sends it, while a worker hangs."""
    run.hang(draw)
    time.sleep(draw.uniform(0, 1))
    for _ in range(2):
        with suppress(ProcessLookupError):  # the second comes too late
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(1.2)
    return run.wrong([130, 3], "")


DEEDS: dict[str, Callable[["Run", random.Random], str | None]] = {
    "killed": killed,
    "parent killed": parent_killed,
    "read hangs": read_hangs,
    "crashed": crashed,
    "stopped": stopped,
    "told to stop": told_to_stop,
}


class Run:
    """A training with two workers, whose storage is slow and notes what is read."""

    def __init__(self, folder: Path, number: int) -> None:
        """Start it."""
        self.folder, self.log = folder, folder / f"{number}.log"
        self.notes = folder / f"notes{number}"
        self.notes.mkdir()
        words = training.command(
            folder, folder / f"runs{number}", "data.workers=2", f"data.worker_timeout={TIMEOUT}",
            "trainer.max_epochs=1000",
        )  # fmt: skip
        self.process = training.forked(_noted, words, str(self.log), str(self.notes))
        assert self.process.pid is not None
        self.pid = self.process.pid

    def wait_for(self, reads: int) -> None:
        """Wait until workers have read so many samples."""
        deadline = time.monotonic() + training.LIMIT
        while sum(notes.read_text().count("\n") for notes in self._all()) < reads:
            if self.process.exitcode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no training: {self.said()}")
            time.sleep(0.002)
        self.since = time.monotonic()

    def workers(self) -> list[int]:
        """Return the process ids of those that have read something."""
        return [int(notes.name) for notes in self._all()]

    def hang(self, draw: random.Random) -> str:
        """Let the disk of one training image answer no more; return the image's path."""
        path = str(self.folder / f"camvid/train/{draw.randrange(TRAIN):03}.png")
        os.mkfifo(self.notes / "dead")
        (self.notes / "hang.tmp").write_text(path)
        (self.notes / "hang.tmp").replace(self.notes / "hang")
        return path

    def wrong(self, codes: list[int], pattern: str, worker: int | None = None) -> str | None:
        """Return what is not as promised: the end, in its time, what is said, which sample."""
        self.process.join(max(0.0, self.since + TIMEOUT + SLACK - time.monotonic()))
        code, said = self.process.exitcode, self.said()
        if code not in codes:
            return f"exit code {code}, expected {codes}"
        if "Traceback" in said or not re.search(pattern, said):
            return f"expected {pattern!r}"
        if worker is not None and not any(re.search(place, said) for place in self.places(worker)):
            return f"expected one of {self.places(worker)}"
        return None

    def places(self, worker: int) -> list[str]:
        """Return where the worker may be said to be: at what it noted last, or not yet there."""
        read = (self.notes / str(worker)).read_text().splitlines()[-2:]
        places = [rf"process {worker}\) .* sample \d: {re.escape(path)}, mask" for path in read]
        return places if len(read) == 2 else [*places, rf"process {worker}\) .* starting"]

    def _all(self) -> list[Path]:
        return sorted(self.notes.glob("[0-9]*"))

    def left(self) -> str | None:
        """Return which processes are still there some seconds after the end."""
        deadline = time.monotonic() + ORPHANED
        while (found := training._session(self.pid)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return f"processes {found} are left" if found else None

    def said(self) -> str:
        """Return what the training has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end(self) -> None:
        """Leave nothing behind, whatever came of it."""
        for pid in {self.pid, *training._session(self.pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()


def _noted(words: list[str], log: str, notes: str) -> None:
    """Train, with storage that is slow, notes what workers read, and at one file never answers."""
    read, read_image = dataset.SegmentationDataset.read, dataset.read_image
    hang = Path(notes) / "hang"

    def noting(self: dataset.SegmentationDataset, index: int) -> Any:
        if get_worker_info() is not None:  # before the worker says so itself
            with open(f"{notes}/{os.getpid()}", "a") as file:
                file.write(f"{self.files[index][0]}\n")
        return read(self, index)

    def slow(path: Path) -> Any:
        if get_worker_info() is not None:
            time.sleep(0.02)
            if hang.exists() and hang.read_text() == str(path):
                hang.with_name("dead").read_bytes()
        return read_image(path)

    dataset.SegmentationDataset.read = noting  # type: ignore[method-assign]
    dataset.read_image = slow  # type: ignore[attr-defined]
    training._command(words, log, None, {})
