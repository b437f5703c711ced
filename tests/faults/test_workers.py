"""Killed, crashed, stopped and hanging data workers of a training."""

import os
import random
import re
import signal
import time
from contextlib import suppress

from torch.utils.data import get_worker_info

from hrseg.data import dataset
from tests.faults import inject, training

TIMEOUT = 2  # data.worker_timeout
SLACK = 20.0  # additional seconds, for a busy machine
ORPHANED = 10.0  # maximum seconds of a worker after the end of its parent


@inject(3, 60)
def test_a_dead_or_hanging_worker_is_reported_with_its_file_and_all_processes_end(count, tmp_path):
    draw = random.Random(0)
    training.prepare(tmp_path)
    for number in range(count):
        injury = INJURIES[number % len(INJURIES)]
        run = Run(tmp_path, number, draw)
        try:
            run.wait_for(draw.randint(4, 40))
            fault = injury(run)
            left = training.survivors(run.process.pid, ORPHANED)
        finally:
            run.end()
        if fault or left:
            yield f"{number}, {injury.__name__}: {fault}; left {left}; {run.output()[-700:]}"


class Run:
    """Training with two workers and slow storage, which logs reads."""

    def __init__(self, folder, number, draw):
        self.folder, self.log, self.draw = folder, folder / f"{number}.log", draw
        self.reads = folder / f"reads{number}"
        self.reads.mkdir()
        words = training.command(
            folder, folder / f"runs{number}", "data.workers=2", f"data.worker_timeout={TIMEOUT}",
            "trainer.max_epochs=1000",
        )  # fmt: skip
        self.process = training.forked(_logged, words, self.log, self.reads)

    def wait_for(self, reads):
        deadline = time.monotonic() + training.LIMIT
        while sum(path.read_text().count("\n") for path in self.reads.glob("[0-9]*")) < reads:
            if self.process.exitcode is not None or time.monotonic() > deadline:
                raise RuntimeError(f"no training: {self.output()}")
            time.sleep(0.002)
        self.since = time.monotonic()

    def strike(self, signum):
        """Send a signal to a worker, and return a pattern for its last samples or its start."""
        path = self.draw.choice(sorted(self.reads.glob("[0-9]*")))
        os.kill(int(path.name), signum)
        samples = path.read_text().splitlines()[-2:]
        patterns = [rf".* sample \d: {re.escape(sample)}, mask" for sample in samples]
        return rf"process {path.name}\)({'|'.join([*patterns, '.* starting'][:2])})"

    def hang(self):
        """Block reads of one training image, and return its path."""
        path = str(self.folder / f"camvid/train/{self.draw.randrange(training.TRAIN):03}.png")
        os.mkfifo(self.reads / "dead")
        (self.reads / "hang.tmp").write_text(path)
        (self.reads / "hang.tmp").replace(self.reads / "hang")
        return path

    def wrong(self, codes, *patterns):
        """Return the deviation of the exit code or the output, or None."""
        self.process.join(max(0.0, self.since + TIMEOUT + SLACK - time.monotonic()))
        output = self.output()
        missing = [pattern for pattern in patterns if not re.search(pattern, output)]
        if self.process.exitcode not in codes or "Traceback" in output or missing:
            return f"exit code {self.process.exitcode}, expected {codes} and {missing}"
        return None

    def output(self):
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end(self):
        for pid in {self.process.pid, *training.survivors(self.process.pid, 0)}:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.join()


def _logged(words, log, reads):
    """Train with slow storage, which logs the workers' reads and can block at one file."""
    read, read_bands = dataset.SegmentationDataset.read, dataset.read_bands

    def logged(self, index):
        if get_worker_info() is not None:
            with open(reads / str(os.getpid()), "a") as file:
                file.write(f"{self.files[index][0]}\n")
        return read(self, index)

    def slow(path, *options):
        if get_worker_info() is not None:
            time.sleep(0.02)
            if (reads / "hang").exists() and (reads / "hang").read_text() == str(path):
                (reads / "dead").read_bytes()
        return read_bands(path, *options)

    dataset.SegmentationDataset.read = logged
    dataset.read_bands = slow
    training.run_command(words, log)


def killed(run):
    signum = run.draw.choice([signal.SIGKILL, signal.SIGSEGV])
    return run.wrong([3], rf"\({signum.name}\), ", run.strike(signum))


def parent_killed(run):
    """Kill the main process, in half of the cases during a blocked read."""
    if run.draw.random() < 0.5:
        run.hang()
        time.sleep(run.draw.uniform(0, 1))
    os.kill(run.process.pid, signal.SIGKILL)
    return run.wrong([-signal.SIGKILL])


def read_hangs(run):
    path = re.escape(run.hang())
    return run.wrong([3], f"has been at sample .*{path}, mask .* for {TIMEOUT} s")


def stopped(run):
    pattern = rf"has been .* for {TIMEOUT} s \(it was stopped\)"
    return run.wrong([3], pattern, run.strike(signal.SIGSTOP))


def interrupted(run):
    """Send Ctrl-C twice to all processes, as from a terminal, during a blocked read."""
    run.hang()
    time.sleep(run.draw.uniform(0, 1))
    for _ in range(2):
        with suppress(ProcessLookupError):  # the process may end before the second signal
            os.killpg(run.process.pid, signal.SIGINT)
        time.sleep(1.2)
    return run.wrong([130, 3])


INJURIES = (killed, parent_killed, read_hangs, stopped, interrupted)
