"""Trainings of seconds in processes of their own, forked from one that has imported everything."""

import atexit
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from hrseg.cli import main
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.inference.predictor import Predictor
from hrseg.training.task import SegmentationTask
from tests.camvid_tree import make_camvid

TRAIN, VAL = 8, 3
LIMIT = 120.0  # seconds that a command may take


@dataclass(frozen=True)
class Blow:
    """A signal that a process is struck by.

    Attributes:
        signum: the signal.
        step: call of what `at` says, in this process, from 1 on.
        delay: seconds after the beginning of that call.
        at: a name in PLACES.
        again: seconds after which the signal comes a second time; None: once.
        all: whether its workers are struck too, as by a terminal.
        linger: seconds that the call takes longer.
    """

    signum: int
    step: int
    delay: float = 0.0
    at: str = "training_step"
    again: float | None = None
    all: bool = False
    linger: float = 0.0


PLACES = {
    "training_step": SegmentationTask,
    "validation_step": SegmentationTask,
    "check": SegmentationDataModule,
    "segment": Predictor,
}


@dataclass
class Ended:
    """How a command ended: exit code (negative: by that signal), what it said, seconds.

    `lingered` counts the seconds from the blow to the end; None if none fell.
    """

    code: int
    said: str
    lingered: float | None
    left: list[int] = field(default_factory=list)


def prepare(folder: Path) -> Path:
    """Write the data set that all trainings share."""
    return make_camvid(folder / "camvid", TRAIN, VAL)


def command(folder: Path, runs: Path, *more: str) -> list[str]:
    """Return the words of a fit of some seconds: 4 steps an epoch."""
    return [
        "fit", "--config", "camvid_w18_small", f"data.root={folder / 'camvid'}", f"runs={runs}",
        "data.batch_size=2", "data.crop_size=[32,32]", "data.workers=0", "model.bn_momentum=0.5",
        "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "trainer.precision=32",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "schedule.warmup_steps=2",
        "loggers=[]", "prediction_images=1", *more,
    ]  # fmt: skip


def run(
    words: Sequence[str],
    log: Path,
    blow: Blow | None = None,
    environment: Mapping[str, str] | None = None,
) -> Ended:
    """Run one command of hrseg in a process of its own; return how it ended."""
    return wait(start(words, log, blow, environment), log)


def wait(process: BaseProcess, log: Path) -> Ended:
    """Return how a process of `start` ended; one that hangs is killed."""
    process.join(LIMIT)
    hangs = process.is_alive()
    process.kill()
    process.join()
    ended = time.time()
    struck = log.with_suffix(".struck")
    since = ended - float(struck.read_text()) if struck.is_file() else None
    struck.unlink(missing_ok=True)
    said = log.read_text(errors="replace")
    code = process.exitcode
    assert code is not None and process.pid is not None
    return Ended(code, said + "\nIT HANGS" * hangs, since, left_of(process.pid))


def start(
    words: Sequence[str],
    log: Path,
    blow: Blow | None = None,
    environment: Mapping[str, str] | None = None,
) -> BaseProcess:
    """Start one command of hrseg in a process of its own, the head of its session."""
    return forked(_command, list(words), str(log), blow, dict(environment or {}))


def forked(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a process, forked from one that has imported what commands need, and begun nothing."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def left_of(session: int) -> list[int]:
    """Return the processes of a session that are still there some seconds after its head's end."""
    deadline = time.monotonic() + 8
    while (left := _session(session)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def _session(session: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text(errors="replace").rpartition(") ")[2].split()
        except OSError:
            continue
        if int(words[3]) == session and words[0] not in "ZX":
            found.append(int(stat.parent.name))
    return found


def _command(words: list[str], log: str, blow: Blow | None, environment: dict[str, str]) -> None:
    os.setsid()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout, sys.stderr = (os.fdopen(place, "w", 1, closefd=False) for place in (1, 2))
    os.environ.update(environment)
    multiprocessing.set_start_method("fork", force=True)  # as in a program
    torch.set_num_threads(1)
    if blow is not None:
        _expect(blow, Path(log).with_suffix(".struck"))
    code = main(words)
    atexit._run_exitfuncs()  # as at the end of a program; that of a Process leaves them out
    sys.stdout.flush()
    os._exit(code)


def _expect(blow: Blow, struck: Path) -> None:
    """Let a thread of this process send the signal at its time."""
    owner, calls = PLACES[blow.at], [0]
    call = getattr(owner, blow.at)
    strike_once = partial(os.killpg if blow.all else os.kill, os.getpid(), blow.signum)

    def strike() -> None:
        time.sleep(blow.delay)
        struck.write_text(repr(time.time()))
        strike_once()
        if blow.again is not None:
            time.sleep(blow.again)
            strike_once()

    def counted(self: Any, *arguments: Any, **options: Any) -> Any:
        trainer = getattr(self, "trainer", None)
        sanity = trainer is not None and trainer.sanity_checking
        calls[0] += not sanity
        if calls[0] == blow.step and not sanity:
            threading.Thread(target=strike, daemon=True).start()
            time.sleep(blow.linger)
        return call(self, *arguments, **options)

    setattr(owner, blow.at, counted)


def only_run(runs: Path) -> Path:
    """Return the one run folder."""
    [run] = [path for path in runs.glob("camvid_w18_small/2*") if not path.is_symlink()]
    return run


def record_of(run: Path) -> dict[str, Any]:
    """Return all that a finished run has left, as plain data and tensors, without its place."""
    record: dict[str, Any] = {}
    for name in ("last", "best"):
        path = run / "checkpoints" / f"{name}.ckpt"
        content = torch.load(path, weights_only=True) if path.is_file() else None
        record[name] = _without(str(run), content)
    for name in ("scores.json", "images.json"):
        path = run / name
        content = json.loads(path.read_text()) if path.is_file() else None
        record[name] = _without(str(run), content)
    record["metrics.csv"] = (run / "metrics.csv").read_text().splitlines()
    return record


def _without(place: str, content: Any) -> Any:
    if isinstance(content, dict):
        return {_without(place, key): _without(place, value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_without(place, value) for value in content]
    return content.replace(place, "RUN") if isinstance(content, str) else content


def difference(first: Any, second: Any, where: str = "") -> str | None:
    """Return the first place in which two records differ by a bit; None: they are equal."""
    if type(first) is not type(second):
        return f"{where}: {_short(first)} and {_short(second)}"
    if isinstance(first, dict):
        if first.keys() != second.keys():
            return f"{where}: keys {sorted(map(str, first.keys() ^ second.keys()))[:5]}"
        pairs = [(f"{where}/{key}", first[key], second[key]) for key in first]
    elif isinstance(first, list):
        if len(first) != len(second):
            return f"{where}: {len(first)} and {len(second)} entries"
        pairs = [(f"{where}/{i}", *pair) for i, pair in enumerate(zip(first, second, strict=True))]
    else:
        same = torch.equal(first, second) if isinstance(first, torch.Tensor) else first == second
        return None if same else f"{where}: {_short(first)} and {_short(second)}"
    found = (difference(a, b, place) for place, a, b in pairs)
    return next((fault for fault in found if fault), None)


def _short(value: Any) -> str:
    return repr(value).replace("\n", " ")[:60]
