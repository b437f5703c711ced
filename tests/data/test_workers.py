"""What a worker notes, what it does not hear, and that it leaves with its parent."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from hrseg.data import workers as worker
from hrseg.data.workers import at, collate_noted
from hrseg.errors import DataError
from tests.data.test_supervised_loader import is_running, made
from tests.paths import ROOT


def told_to_stop():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)


def test_signals_that_everybody_gets_are_the_main_process_s_to_answer():
    assert len(list(made({1: told_to_stop, 4: told_to_stop}))) == 6


ENDINGS = ["os.kill(os.getpid(), 9)", "sys.exit()", "unkillable(); sys.exit()", "next(batches)"]
NURSERY = """
import os, sys, time
from tests.data.test_supervised_loader import asleep, made
def unkillable():
    for worker in batches._workers:
        worker.kill = int
for number, ending in enumerate(sys.argv[1:]):
    if pid := os.fork():
        if ending == "next(batches)":
            time.sleep(1)
            os.kill(pid, 2)
        os.waitpid(pid, 0)
        continue
    batches = iter(made({3: asleep}))
    print(ending, *[worker.pid for worker in batches._workers], sep=chr(9), flush=True)
    next(batches)
    exec(ending)
"""


def test_no_worker_outlives_a_parent_that_is_killed_ends_or_is_interrupted():
    done = subprocess.run(
        [sys.executable, "-c", NURSERY, *ENDINGS], capture_output=True, text=True, timeout=300,
        cwd=ROOT,
    )  # fmt: skip
    pids = {}
    for line in done.stdout.splitlines():
        ending, *numbers = line.split("\t")
        pids[ending] = list(map(int, numbers))
    assert list(pids) == ENDINGS and set(map(len, pids.values())) == {2}
    deadline = time.monotonic() + 60
    while (left := [pid for two in pids.values() for pid in two if is_running(pid)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left, pids


def no_room(batch):
    raise RuntimeError("unable to allocate shared memory(shm) for file </x>: No space left (28)")


def test_a_batch_that_finds_no_shared_memory_is_told_with_its_repair():
    with pytest.raises(DataError, match=r"batch: No space left \(28\)\.\n.*--shm-size.*ulimit"):
        collate_noted(no_room, [])
    with pytest.raises(RuntimeError, match="equal size"):
        collate_noted(torch.stack, [torch.ones(2), torch.ones(3)])


SMALL = """
from hrseg.errors import DataError
import torch
from tests.data.test_supervised_loader import Numbers, WatchedLoader
class Large(Numbers):
    def __getitem__(self, index):
        return torch.zeros(600, 1000, dtype=torch.uint8)
try:
    list(WatchedLoader(Large(), num_workers=1, batch_size=2))
except DataError as error:
    print(error)
"""


def test_a_small_dev_shm_is_told_of():
    mount = f"mount -t tmpfs -o size=1m tmpfs /dev/shm && exec '{sys.executable}' -c '{SMALL}'"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        pytest.skip("no right to mount")
    told = subprocess.run(
        ["unshare", "-m", "sh", "-c", mount], capture_output=True, text=True, timeout=120,
        cwd=ROOT,
    )  # fmt: skip
    assert "No space left on device" in told.stdout and "--shm-size" in told.stdout, told


def test_outside_of_a_worker_nothing_is_noted():
    at(3)
    assert worker._desk is None
    assert len(list(made(num_workers=0, persistent_workers=False))) == 6
