"""Short trainings in processes forked from a server process with all imports."""

import atexit
import json
import multiprocessing
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass

import psutil
import torch

from hrseg.cli import main
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.inference.predictor import Predictor
from hrseg.training.task import SegmentationTask
from tests.camvid_tree import make_camvid

TRAIN, VAL = 8, 3
LIMIT = 120.0  # maximum seconds of a command
OWNERS = {
    "training_step": SegmentationTask,
    "validation_step": SegmentationTask,
    "check": SegmentationDataModule,
    "segment": Predictor,
}


@dataclass(frozen=True)
class Blow:
    """A signal to a command at a certain call.

    Attributes:
        signum: number of the signal.
        step: number of the interrupted call of `at`, from 1 on.
        delay: seconds after the start of that call.
        at: a key of OWNERS.
        again: seconds until a second signal; None: no second signal.
        all: whether data workers also receive the signal, as from a terminal.
        linger: additional seconds of the call.
    """

    signum: int
    step: int
    delay: float = 0.0
    at: str = "training_step"
    again: float | None = None
    all: bool = False
    linger: float = 0.0


@dataclass
class Ended:
    """Result of a command.

    Attributes:
        code: exit code; negative: number of the signal that ended it.
        output: stdout and stderr.
        seconds: time from the signal to the end; None: no signal was sent.
        left: ids of processes still running after it.
    """

    code: int
    output: str
    seconds: float | None
    left: list[int]


def prepare(folder):
    make_camvid(folder / "camvid", TRAIN, VAL)


def command(folder, runs, *more):
    """Return the command line of a training of some seconds, with 4 steps per epoch."""
    return [
        "fit", "--config", "camvid_w18_small", f"data.root={folder / 'camvid'}", f"runs={runs}",
        "data.batch_size=2", "data.crop_size=[32,32]", "data.workers=0", "model.bn_momentum=0.5",
        "trainer.max_epochs=3", "trainer.check_val_every_n_epoch=1", "trainer.precision=32",
        "trainer.accelerator=cpu", "trainer.log_every_n_steps=1", "schedule.warmup_steps=2",
        "loggers=[]", "prediction_images=1", *more,
    ]  # fmt: skip


def run(words, log, blow=None, environment=None):
    return wait(start(words, log, blow, environment), log)


def start(words, log, blow=None, environment=None):
    return forked(run_command, words, log, blow, environment)


def wait(process, log):
    """Return the result of a process, and kill it after LIMIT seconds."""
    process.join(LIMIT)
    timeout = "\nTIMEOUT" * process.is_alive()
    process.kill()
    process.join()
    end, signal_file = time.time(), log.with_suffix(".signal")
    seconds = end - float(signal_file.read_text()) if signal_file.is_file() else None
    signal_file.unlink(missing_ok=True)
    output = log.read_text(errors="replace") + timeout
    return Ended(process.exitcode, output, seconds, survivors(process.pid))


def forked(target, *arguments):
    """Start a process, forked from a server process with all imports of the commands."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    process = context.Process(target=target, args=arguments)
    process.start()
    return process


def survivors(session, patience=8.0):
    """Return the processes of a session still running `patience` seconds after their leader."""
    deadline = time.monotonic() + patience
    while True:
        alive = []
        for process in psutil.process_iter(["status"]):
            with suppress(OSError):
                if os.getsid(process.pid) == session and process.info["status"] != "zombie":
                    alive.append(process.pid)
        if not alive or time.monotonic() > deadline:
            return alive
        time.sleep(0.05)


def run_command(words, log, blow=None, environment=None):
    """Run a command in this process like a program, and exit."""
    os.setsid()
    target = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(target, 1)
    os.dup2(target, 2)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", 1, closefd=False) for number in (1, 2))
    os.environ.update(environment or {})
    multiprocessing.set_start_method("fork", force=True)
    torch.set_num_threads(1)
    if blow is not None:
        _schedule(blow, log.with_suffix(".signal"))
    code = main(list(words))
    atexit._run_exitfuncs()  # multiprocessing.Process skips them
    sys.stdout.flush()
    os._exit(code)


def _schedule(blow, signal_file):
    """Send the signal of `blow` at its call, and write the time to `signal_file`."""
    owner, calls = OWNERS[blow.at], 0
    original = getattr(owner, blow.at)

    def send():
        time.sleep(blow.delay)
        signal_file.write_text(repr(time.time()))
        for pause in (0, blow.again):
            if pause is not None:
                time.sleep(pause)
                (os.killpg if blow.all else os.kill)(os.getpid(), blow.signum)

    def counted(self, *arguments, **options):
        nonlocal calls
        trainer = getattr(self, "trainer", None)
        if trainer is None or not trainer.sanity_checking:
            calls += 1
            if calls == blow.step:
                threading.Thread(target=send, daemon=True).start()
                time.sleep(blow.linger)
        return original(self, *arguments, **options)

    setattr(owner, blow.at, counted)


def only_run(runs):
    [run] = [path for path in runs.glob("camvid_w18_small/2*") if not path.is_symlink()]
    return run


def record_of(run):
    """Return the values in a finished run's files by file and key, without the run's path."""
    files = {"metrics.csv": (run / "metrics.csv").read_text().splitlines()}
    for name in ("last", "best"):
        files[name] = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)
    for name in ("scores.json", "images.json"):
        files[name] = json.loads((run / name).read_text())
    return dict(_leaves(files, str(run)))


def _leaves(value, run, key=""):
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        yield key, f"{len(value)} entries"
        for name, item in items:
            yield from _leaves(item, run, f"{key}/{str(name).replace(run, 'RUN')}")
    else:
        yield key, value.replace(run, "RUN") if isinstance(value, str) else value


def difference(first, second):
    """Return the first different value of two records, or None if they are equal bit by bit."""
    for key in first | second:
        a, b = first.get(key, "missing"), second.get(key, "missing")
        tensors = isinstance(a, torch.Tensor)
        if type(a) is not type(b) or not (torch.equal(a, b) if tensors else a == b):
            return f"{key}: {a!r:.60} and {b!r:.60}"
    return None
