"""Workers that die or hang: one error within the set time, which names the sample."""

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch.utils.data import Dataset

from hrseg.data import workers as module
from hrseg.data.workers import WatchedLoader, at
from hrseg.errors import DataError
from tests.conftest import silent_trainer


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


def test_time_in_which_the_whole_job_is_suspended_does_not_count():
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        os._exit(len(list(made(dict.fromkeys(range(12), slow), patience=0.6))))
    time.sleep(0.3)
    os.killpg(child, signal.SIGSTOP)
    time.sleep(1.5)
    os.killpg(child, signal.SIGCONT)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 6


@pytest.mark.slow  # on a busy machine the batch may have been fetched before the stop
def test_a_worker_that_is_stopped_amid_passing_on_its_batch_holds_up_nobody():
    batches = iter(made(patience=0.5))
    while batches._worker_result_queue.empty():  # its memory is still to be fetched from it
        time.sleep(0.01)
    time.sleep(0.1)
    for worker in batches._workers:
        os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(DataError, match="was stopped"):
        next(batches)


def test_a_worker_that_dies_between_epochs_is_found_in_the_next():
    loader = made()
    assert len(list(loader)) == 6
    os.kill(loader._iterator._workers[1].pid, signal.SIGKILL)
    message = error_of(loader)
    assert "data worker 1" in message and "waiting, done with sample 11: /data/11.png" in message


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


@pytest.mark.slow
def test_spawned_workers_are_watched_too():
    loader = made({5: killed}, num_workers=1, multiprocessing_context="spawn")
    assert "data worker 0" in error_of(loader)


def test_workers_that_cannot_be_started_are_an_error_that_says_what_they_need(monkeypatch):
    def refuse(loader):
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(module, "_Watch", refuse)
    with pytest.raises(DataError, match=r"cannot start 2 data workers: Resource [\s\S]*workers; 0"):
        iter(made())


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
    silent_trainer(None, max_epochs=2, **options).fit(learner, loader)
    return learner.seen


@pytest.mark.filterwarnings("ignore")
def test_lightning_takes_it_for_a_dataloader_and_can_make_another_of_it():
    assert trained(made()) == 2 * list(range(12))
    assert trained(made(), overfit_batches=2) == 2 * list(range(4))
    with pytest.raises(DataError, match="at sample 5"):
        trained(made({5: killed}))
