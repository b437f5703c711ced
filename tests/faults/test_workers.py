"""Data workers of a training that are killed, crash, are stopped or hang in a read."""

import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress

from torch.utils.data import get_worker_info

from hrseg.data import dataset
from tests.faults import inject, training

TIMEOUT = 2  # data.worker_timeout
SLACK = 20.0  # further seconds, on a busy machine
ORPHANED = 10.0  # seconds that workers may outlive their parent


@inject(3, 60)
def test_a_worker_that_dies_or_hangs_is_named_with_its_file_and_leaves_no_process(count, tmp_path):
    draw = random.Random(0)
    training.prepare(tmp_path)
    for number in range(count):
        name, injury = list(INJURIES.items())[number % len(INJURIES)]
        run = Run(tmp_path, number)
        try:
            run.wait_for(draw.randint(4, 40))
            fault = injury(run, draw) or run.left()
        finally:
            run.end()
        yield fault and f"{number}, {name}: {fault}; output: {run.output()[-700:]}"


class Run:
    """A training with two workers, and slow storage that logs the reads."""

    def __init__(self, folder, number):
        self.folder, self.log = folder, folder / f"{number}.log"
        self.reads = folder / f"reads{number}"
        self.reads.mkdir()
        words = training.command(
            folder, folder / f"runs{number}", "data.workers=2", f"data.worker_timeout={TIMEOUT}",
            "trainer.max_epochs=1000",
        )  # fmt: skip
        self.process = training.forked(_logged, words, self.log, self.reads)
        assert self.process.pid is not None
        self.pid = self.process.pid

    def wait_for(self, reads):
        """Wait until workers have read some samples."""
        deadline = time.monotonic() + training.LIMIT
        while sum(path.read_text().count("\n") for path in self.reads.glob("[0-9]*")) < reads:
            if self.process.exitcode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no training: {self.output()}")
            time.sleep(0.002)
        self.since = time.monotonic()

    def worker(self, draw):
        """Return the process id of a worker that has read something."""
        return draw.choice(sorted(int(path.name) for path in self.reads.glob("[0-9]*")))

    def hang(self, draw):
        """Let reads of one training image wait for ever; return its path."""
        path = str(self.folder / f"camvid/train/{draw.randrange(training.TRAIN):03}.png")
        os.mkfifo(self.reads / "dead")
        (self.reads / "hang.tmp").write_text(path)
        (self.reads / "hang.tmp").replace(self.reads / "hang")
        return path

    def wrong(self, codes, *patterns):
        """Return what is wrong with the time, the exit code or the message of the end."""
        self.process.join(max(0.0, self.since + TIMEOUT + SLACK - time.monotonic()))
        code, output = self.process.exitcode, self.output()
        if code not in codes:
            return f"exit code {code}, expected {codes}"
        missing = [pattern for pattern in patterns if not re.search(pattern, output)]
        return f"expected {missing}" if missing or "Traceback" in output else None

    def sample_of(self, worker):
        """Return a pattern for the last samples of a worker, or its start."""
        paths = (self.reads / str(worker)).read_text().splitlines()[-2:]
        places = [rf".* sample \d: {re.escape(path)}, mask" for path in paths]
        if len(paths) < 2:
            places.append(".* starting")
        return rf"process {worker}\)({'|'.join(places)})"

    def left(self):
        """Return the processes that still live some seconds after the end."""
        living = training.survivors(self.pid, ORPHANED)
        return f"processes {living} are left" if living else None

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end(self):
        """Kill all its processes."""
        for pid in {self.pid, *training.living_processes(self.pid)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()


def _logged(words, log, reads):
    """Train with storage that is slow, logs the reads of workers, and can hang at one file."""
    read, read_image = dataset.SegmentationDataset.read, dataset.read_image

    def logged(self, index):
        if get_worker_info() is not None:
            with open(reads / str(os.getpid()), "a") as file:
                file.write(f"{self.files[index][0]}\n")
        return read(self, index)

    def slow(path):
        if get_worker_info() is not None:
            time.sleep(0.02)
            if (reads / "hang").exists() and (reads / "hang").read_text() == str(path):
                (reads / "dead").read_bytes()
        return read_image(path)

    dataset.SegmentationDataset.read = logged
    dataset.read_image = slow
    training.run_command(words, log)


def killed(run, draw, signum=signal.SIGKILL):
    worker = run.worker(draw)
    os.kill(worker, signum)
    return run.wrong([3], rf"\({signum.name}\), ", run.sample_of(worker))


def crashed(run, draw):
    return killed(run, draw, signal.SIGSEGV)


def stopped(run, draw):
    worker = run.worker(draw)
    os.kill(worker, signal.SIGSTOP)
    pattern = rf"has been .* for {TIMEOUT} s \(it was stopped\)"
    return run.wrong([3], pattern, run.sample_of(worker))


def read_hangs(run, draw):
    path = run.hang(draw)
    return run.wrong([3], f"has been at sample .*{re.escape(path)}, mask .* for {TIMEOUT} s")


def parent_killed(run, draw):
    """Half the time while a worker hangs."""
    if draw.random() < 0.5:
        run.hang(draw)
        time.sleep(draw.uniform(0, 1))
    os.kill(run.pid, signal.SIGKILL)
    return run.wrong([-signal.SIGKILL])


def interrupted(run, draw):
    """Ctrl-C twice, to all processes as from a terminal, while a worker hangs."""
    run.hang(draw)
    time.sleep(draw.uniform(0, 1))
    for _ in range(2):
        with suppress(ProcessLookupError):  # the second may come too late
            os.killpg(run.pid, signal.SIGINT)
        time.sleep(1.2)
    return run.wrong([130, 3])


INJURIES: dict[str, Callable[[Run, random.Random], str | None]] = {
    "killed": killed,
    "parent killed": parent_killed,
    "read hangs": read_hangs,
    "crashed": crashed,
    "stopped": stopped,
    "interrupted": interrupted,
}
