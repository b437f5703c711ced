"""Data workers that die, hang or outlive: one error that names the sample, and no process left."""

import errno
import os
import re
import signal
import subprocess
import sys
import time

import psutil
import pytest
import torch
from torch.utils.data import Dataset

from hrseg.data import workers as module
from hrseg.data.workers import WatchedLoader, at
from hrseg.errors import DataError
from tests.paths import ROOT


class Numbers(Dataset):
    """The numbers from 0; `deeds` maps some of them to something else that happens there."""

    def __init__(self, deeds=None, count=12):
        self.count, self.deeds = count, deeds or {}

    def __len__(self):
        return self.count

    def label(self, index):
        return f"/data/{index}.png, mask /data/mask{index}.png"

    def __getitem__(self, index):
        at(index)
        self.deeds.get(index, int)()
        return torch.full((4,), index)


def sent(signum):
    return lambda: os.kill(os.getpid(), signum)


def gone():
    os._exit(7)


def asleep():
    time.sleep(1000)


def slow():
    time.sleep(0.25)


killed, stopped = sent(signal.SIGKILL), sent(signal.SIGSTOP)


def made(deeds=None, patience=None, **options):
    given = {"num_workers": 2, "batch_size": 2, "persistent_workers": True, **options}
    return WatchedLoader(Numbers(deeds), patience, **given)


def children():
    return {process.pid for process in psutil.Process().children()}


def error_of(loader):
    before = children()
    with pytest.raises(DataError) as caught:
        list(loader)
    assert len(str(caught.value).splitlines()) <= 4
    assert children() <= before
    assert signal.getsignal(signal.SIGCHLD) == signal.SIG_DFL
    return str(caught.value)


def is_running(pid):
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


SAMPLE_5 = "at sample 5: /data/5.png, mask /data/mask5.png"


@pytest.mark.parametrize(
    ("deed", "message"),
    [
        (killed, r"was killed \(SIGKILL\), at .*\nMost often the memory.*data\.workers"),
        (sent(signal.SIGSEGV), r"crashed \(SIGSEGV\), at .*\nA file is damaged"),
        (sent(signal.SIGBUS), r"crashed \(SIGBUS\), at .*\nNo room in /dev/shm"),
        (gone, r"ended by itself \(exit code 7\), at "),
    ],
)
def test_a_dead_worker_is_named_with_its_end_its_sample_and_the_repair(deed, message):
    error = error_of(made({5: deed}, patience=0.5))  # less than torch polls
    assert SAMPLE_5 in error
    assert re.match(rf"data worker \(process \d+\) {message}", error), error


@pytest.mark.parametrize(("deed", "state"), [(asleep, ""), (stopped, " (it was stopped)")])
def test_a_hanging_worker_is_named_with_its_sample_when_its_time_is_over(deed, state):
    message = error_of(made({5: deed}, patience=0.5))
    assert re.match(rf"data worker .* has been {SAMPLE_5} for 0.5 s{re.escape(state)}\.", message)
    assert "data.worker_timeout" in message


def test_slow_samples_are_no_hanging_worker_however_many_make_a_batch():
    deeds = dict.fromkeys(range(12), slow)
    assert len(list(made(deeds, patience=1, batch_size=6))) == 2


def test_stopped_workers_with_ready_batches_do_not_block():
    before = children()
    batches = iter(made(patience=0.5))
    time.sleep(0.5)  # the batches are in the queue, their memory is still to be fetched
    for worker in children() - before:
        os.kill(worker, signal.SIGSTOP)
    with pytest.raises(DataError, match="was stopped"):
        list(batches)


def test_a_worker_that_dies_between_epochs_is_found_in_the_next():
    loader, before = made(), children()
    assert len(list(loader)) == 6
    os.kill(max(children() - before), signal.SIGKILL)
    assert re.search("data worker .* waiting, done with sample 11: /data/11", error_of(loader))


def test_workers_that_cannot_be_started_are_an_error_with_their_needs(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(DataError, match=r"Cannot start 2 data workers: Resource [\s\S]*workers; 0"):
        iter(made())


def stop_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)


def test_signals_that_everybody_gets_are_the_main_process_s_to_answer():
    assert len(list(made(dict.fromkeys((1, 4), stop_signals)))) == 6


# A worker hangs; the parent is killed, ends, or is interrupted.
ENDINGS = ["os.kill(os.getpid(), 9)", "sys.exit()", "list(batches)"]
NURSERY = """
import os, signal, sys, time
from tests.data.test_workers import asleep, children, made
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores it
started, note = os.pipe()
for ending in sys.argv[1:]:
    if pid := os.fork():
        os.read(started, 1)
        if ending == "list(batches)":
            time.sleep(1)
            os.kill(pid, 2)
        os.waitpid(pid, 0)
        continue
    batches = iter(made({3: asleep}))
    print(ending, *children(), sep=chr(9), flush=True)
    os.write(note, b".")  # an interrupt inside of a fork is lost by Python
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
    assert list(pids) == ENDINGS and set(map(len, pids.values())) == {2}, done.stderr
    deadline = time.monotonic() + 60
    while (left := [pid for two in pids.values() for pid in two if is_running(pid)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left, pids


def no_room(batch):
    raise RuntimeError("unable to allocate shared memory(shm) for file </x>: No space left (28)")


def test_a_batch_without_shared_memory_is_an_error_with_the_fix(monkeypatch):
    monkeypatch.setattr(module, "default_collate", no_room)
    assert re.search(r"batch: No space left \(28\)\.\n.*--shm-size.*ulimit", error_of(made()))
