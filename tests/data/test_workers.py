"""Dead, hanging and orphaned data workers: one error with the sample, and no process left."""

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
from hrseg.data.workers import WatchedLoader, report_sample
from hrseg.errors import DataError
from tests.paths import ROOT


class Numbers(Dataset):
    """The numbers from 0; `actions` maps some of them to functions that run first."""

    def __init__(self, actions=None, count=12):
        self.count, self.actions = count, actions or {}

    def __len__(self):
        return self.count

    def label(self, index):
        return f"/data/{index}.png, mask /data/mask{index}.png"

    def __getitem__(self, index):
        report_sample(index)
        self.actions.get(index, int)()
        return torch.full((4,), index)


def send(signum):
    return lambda: os.kill(os.getpid(), signum)


def exit_silently():
    os._exit(7)


def hang():
    time.sleep(1000)


def read_slowly():
    time.sleep(0.25)


kill, stop = send(signal.SIGKILL), send(signal.SIGSTOP)


def make_loader(actions=None, patience=None, **options):
    options = {"num_workers": 2, "batch_size": 2, "persistent_workers": True, **options}
    return WatchedLoader(Numbers(actions), patience, **options)


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
    ("action", "message"),
    [
        (kill, r"was killed \(SIGKILL\), at .*\nThe memory was.*data\.workers"),
        (send(signal.SIGSEGV), r"crashed \(SIGSEGV\), at .*\nA file or a library"),
        (send(signal.SIGBUS), r"crashed \(SIGBUS\), at .*\n/dev/shm is full"),
        (exit_silently, r"exited by itself \(exit code 7\), at "),
    ],
)
def test_a_dead_worker_is_an_error_with_its_exit_its_sample_and_the_fix(action, message):
    error = error_of(make_loader({5: action}, patience=0.5))  # shorter than torch's polling
    assert SAMPLE_5 in error
    assert re.match(rf"Data worker \(process \d+\) {message}", error), error


@pytest.mark.parametrize(("action", "state"), [(hang, ""), (stop, " (it was stopped)")])
def test_a_hanging_worker_is_an_error_with_its_sample_after_the_timeout(action, state):
    message = error_of(make_loader({5: action}, patience=0.5))
    assert re.match(rf"Data worker .* has been {SAMPLE_5} for 0.5 s{re.escape(state)}\.", message)
    assert "data.worker_timeout" in message


def test_slow_samples_do_not_count_as_hanging_for_any_batch_size():
    actions = dict.fromkeys(range(12), read_slowly)
    assert len(list(make_loader(actions, patience=1, batch_size=6))) == 2


def test_stopped_workers_with_ready_batches_do_not_block():
    before = children()
    batches = iter(make_loader(patience=0.5))
    time.sleep(0.5)  # the batches are in the queue, but their memory is not yet fetched
    for worker in children() - before:
        os.kill(worker, signal.SIGSTOP)
    with pytest.raises(DataError, match="was stopped"):
        list(batches)


def test_a_worker_that_dies_between_epochs_is_an_error_in_the_next():
    loader, before = make_loader(), children()
    assert len(list(loader)) == 6
    os.kill(max(children() - before), signal.SIGKILL)
    assert re.search("Data worker .* waiting, after sample 11: /data/11", error_of(loader))


def test_workers_that_cannot_be_started_are_an_error_with_the_fix(monkeypatch):
    def refuse():
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(os, "fork", refuse)
    with pytest.raises(
        DataError, match=r"2 data workers cannot be started: Resource [\s\S]*workers; 0"
    ):
        iter(make_loader())


def send_signals():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)


def test_workers_ignore_signals_that_the_main_process_handles():
    assert len(list(make_loader(dict.fromkeys((1, 4), send_signals)))) == 6


# A worker hangs; its parent is killed, exits, or is interrupted.
ENDINGS = ["os.kill(os.getpid(), 9)", "sys.exit()", "list(batches)"]
PARENTS = """
import os, signal, sys, time
from tests.data.test_workers import children, hang, make_loader
signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
started, note = os.pipe()
for ending in sys.argv[1:]:
    if pid := os.fork():
        os.read(started, 1)
        if ending == "list(batches)":
            time.sleep(1)
            os.kill(pid, 2)
        os.waitpid(pid, 0)
        continue
    batches = iter(make_loader({3: hang}))
    print(ending, *children(), sep=chr(9), flush=True)
    os.write(note, b".")  # Python loses an interrupt during a fork
    next(batches)
    exec(ending)
"""


def test_no_worker_outlives_a_parent_that_is_killed_exits_or_is_interrupted():
    process = subprocess.run(
        [sys.executable, "-c", PARENTS, *ENDINGS], capture_output=True, text=True, timeout=300,
        cwd=ROOT,
    )  # fmt: skip
    pids = {}
    for line in process.stdout.splitlines():
        ending, *numbers = line.split("\t")
        pids[ending] = list(map(int, numbers))
    assert list(pids) == ENDINGS and set(map(len, pids.values())) == {2}, process.stderr
    deadline = time.monotonic() + 60
    while (left := [pid for two in pids.values() for pid in two if is_running(pid)]) and (
        time.monotonic() < deadline
    ):
        time.sleep(0.05)
    assert not left, pids


def fail_to_allocate(batch):
    raise RuntimeError("unable to allocate shared memory(shm) for file </x>: No space left (28)")


def test_a_batch_without_shared_memory_is_an_error_with_the_fix(monkeypatch):
    monkeypatch.setattr(module, "default_collate", fail_to_allocate)
    assert re.search(
        r"batch: No space left \(28\)\.\n.*\n.*--shm-size.*ulimit", error_of(make_loader())
    )
