"""Workers that die or hang: one error within the set time, which names the sample."""

import errno
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from hrseg.data import loader as module
from hrseg.data.loader import WatchedLoader, at
from hrseg.errors import DataError


class Numbers(Dataset):
    """The numbers from 0; `deeds` says what else happens at one of them."""

    def __init__(self, deeds=None, count=12):
        self.files = [(Path(f"/data/{i}.png"), Path(f"/data/mask{i}.png")) for i in range(count)]
        self.deeds = deeds or {}

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        at(index)
        self.deeds.get(index, int)()
        return torch.full((4,), index)


def killed():
    os.kill(os.getpid(), signal.SIGKILL)


def crashed():
    os.kill(os.getpid(), signal.SIGSEGV)


def bus_error():
    os.kill(os.getpid(), signal.SIGBUS)


def gone():
    os._exit(7)


def stopped():
    os.kill(os.getpid(), signal.SIGSTOP)


def asleep():
    time.sleep(1000)


def slow():
    time.sleep(0.25)


def told_to_stop():
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(os.getpid(), number)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.1)
    monkeypatch.setattr(module, "GRACE", 0.1)


def made(deeds=None, patience=None, **options):
    given = {"num_workers": 2, "batch_size": 2, "persistent_workers": True, **options}
    return WatchedLoader(Numbers(deeds), patience, **given)


def error_of(loader):
    with pytest.raises(DataError) as caught:
        list(loader)
    assert len(str(caught.value).splitlines()) <= 4
    assert all(not is_running(worker.pid) for worker in loader._iterator._workers)
    return str(caught.value)


def is_running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


SAMPLE_5 = "at sample 5: /data/5.png, mask /data/mask5.png"


@pytest.mark.parametrize(
    ("deed", "said"),
    [
        (killed, r"was killed \(SIGKILL\), at .*\nMost often the memory.*data\.workers"),
        (crashed, r"crashed \(SIGSEGV\), at .*\nThe file is damaged"),
        (bus_error, r"crashed \(SIGBUS\), at .*\nNo room in /dev/shm \([\d,]+ of [\d,]+ MiB free"),
        (gone, r"ended by itself \(exit code 7\), at "),
    ],
)
def test_a_dead_worker_is_named_with_its_end_its_sample_and_the_repair(deed, said):
    message = error_of(made({5: deed}))
    assert SAMPLE_5 in message
    assert re.match(rf"data worker 0 \(process \d+\) {said}", message), message


@pytest.mark.parametrize(("deed", "state"), [(asleep, ""), (stopped, " (it was stopped)")])
def test_a_hanging_worker_is_named_with_its_sample_when_its_time_is_over(deed, state):
    message = error_of(made({5: deed}, patience=1))
    assert re.match(rf"data worker 0 .* has been {SAMPLE_5} for 1 s{re.escape(state)}\.", message)
    assert "data.worker_timeout" in message


def test_the_one_that_hangs_is_named_not_those_that_wait_for_it():
    assert "data worker 1 " in error_of(made({3: asleep}, patience=0.5, num_workers=3))


def test_slow_samples_are_no_hanging_worker_however_many_make_a_batch():
    deeds = dict.fromkeys(range(12), slow)
    assert len(list(made(deeds, patience=1, batch_size=6))) == 2


@pytest.mark.parametrize("forever", [None, 0])
def test_without_a_timeout_nothing_hangs_and_the_dead_are_still_found(forever):
    assert made(patience=forever)._get_iterator()._patience == 0
    assert SAMPLE_5 in error_of(made({5: killed}, forever))


def test_time_in_which_the_whole_job_was_suspended_does_not_count():
    watch = iter(made(patience=1))
    for _ in range(4):
        watch._count(3600.0)
    with pytest.raises(DataError, match="has been"):
        for _ in range(4):
            watch._count(3600.0)


def test_a_worker_that_dies_between_epochs_is_found_in_the_next():
    loader = made()
    assert len(list(loader)) == 6
    os.kill(loader._iterator._workers[1].pid, signal.SIGKILL)
    assert "data worker 1" in error_of(loader)


def test_what_dies_while_the_main_process_computes_is_told_where_data_is_asked_for():
    batches = iter(made({6: killed}))
    seen = [next(batches)]
    while is_running(batches._workers[1].pid):
        time.sleep(0.01)
    torch.ones(3).sum()  # torch's signal handler would raise anywhere here
    with pytest.raises(DataError, match="at sample 6"):
        seen.extend(batches)
    # What a dead worker has passed on can be lost with it, what is there is in order.
    assert torch.cat(seen)[:, 0].tolist() in (list(range(2 * n)) for n in (1, 2, 3))


def test_a_loader_that_is_given_up_leaves_no_hanging_worker():
    batches = iter(made({3: asleep, 1: stopped}))
    pids = [worker.pid for worker in batches._workers]
    assert all(map(is_running, pids))
    del batches
    assert not any(map(is_running, pids))


def test_signals_that_everybody_gets_are_the_main_process_s_to_answer():
    assert len(list(made({1: told_to_stop, 4: told_to_stop}))) == 6


@pytest.mark.slow
def test_spawned_workers_are_watched_too():
    loader = made({5: killed}, num_workers=1, multiprocessing_context="spawn")
    assert "data worker 0" in error_of(loader)


ENDINGS = ["os.kill(os.getpid(), 9)", "sys.exit()", "unkillable(); sys.exit()", "next(batches)"]
NURSERY = """
import os, sys, time
from tests.test_loader import asleep, made
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
        cwd=Path(__file__).parents[1],
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
        module._collate(no_room, [])
    with pytest.raises(RuntimeError, match="equal size"):
        module._collate(torch.stack, [torch.ones(2), torch.ones(3)])


SMALL = """
from hrseg.errors import DataError
import torch
from tests.test_loader import Numbers, WatchedLoader
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
        cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert "No space left on device" in told.stdout and "--shm-size" in told.stdout, told


def test_workers_that_cannot_be_started_are_an_error_that_says_what_they_need(monkeypatch):
    def refuse(loader):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(module, "_Watch", refuse)
    with pytest.raises(DataError, match=r"cannot start 2 data workers: Resource [\s\S]*workers; 0"):
        iter(made())


def test_outside_of_a_worker_nothing_is_noted():
    at(3)
    assert module._desk is None
    assert len(list(made(num_workers=0, persistent_workers=False))) == 6


class Learner(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, index):
        self.seen += batch[:, 0].tolist()
        return self.weight * 0

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def trained(loader, **options):
    learner = Learner()
    trainer = pl.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False, max_epochs=2, **options,
    )  # fmt: skip
    trainer.fit(learner, loader)
    return learner.seen


@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_it_for_a_dataloader_and_can_make_another_of_it():
    assert trained(made()) == 2 * list(range(12))
    assert trained(made(), overfit_batches=2) == 2 * list(range(4))
    with pytest.raises(DataError, match="at sample 5"):
        trained(made({5: killed}))
