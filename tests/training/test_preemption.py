"""Preemption: stop at signals, save the state, requeue under SLURM."""

import os
import signal
import time
import warnings
from functools import partial

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from torch.utils.data import DataLoader

from hrseg.training import preemption
from hrseg.training.preemption import Interruption, KeptHandler
from hrseg.utils.signals import SIGPIPE, Stopped, raise_stopped, stop_signals
from tests.conftest import silent_trainer

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


@pytest.fixture(autouse=True)
def handlers():
    before = {number: signal.getsignal(number) for number in stop_signals()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Plain(pl.LightningModule):
    """Calls `on_step` in each step with the step's name and count."""

    def __init__(self, on_step=lambda name, count: None):
        super().__init__()
        self.layer, self.on_step = torch.nn.Linear(2, 1), on_step
        self.trained = self.validated = 0

    def training_step(self, batch, batch_idx):
        self.trained += 1
        self.on_step("train", self.trained)
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.validated += 1
        self.on_step("validate", self.validated)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def loaders():
    return [DataLoader(torch.randn(count, 2)) for count in (6, 3)]


def fit(run, module, every_minutes=None, save=True, **arguments):
    options = {"max_epochs": 2, "num_sanity_val_steps": 0, **arguments}
    trainer = silent_trainer(run, **options, callbacks=[Interruption(run, save, every_minutes)])
    trainer.fit(module, *loaders())
    return trainer


def signal_at(stage, step, signum=signal.SIGTERM):
    def on_step(name, count):
        if (name, count) == (stage, step):
            os.kill(os.getpid(), signum)

    return on_step


def saved(run):
    path = run / "checkpoints" / "last.ckpt"
    return torch.load(path, weights_only=True)["global_step"] if path.is_file() else None


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, SIGPIPE])
@pytest.mark.parametrize("step", [1, 6, 8])
def test_a_signal_stops_after_the_batch_and_saves(step, signum, tmp_path):
    """After the last batch of an epoch, the validation is omitted."""
    before = [signal.getsignal(number) for number in stop_signals()]
    send = raise_stopped if signum == SIGPIPE else partial(os.kill, os.getpid())
    module = Plain(lambda name, count: send(signum) if (name, count) == ("train", step) else None)
    with pytest.raises(Stopped) as stop:
        fit(tmp_path, module)
    assert module.trained == step == saved(tmp_path)
    assert module.validated == (3 if step > 6 else 0)
    assert stop.value.exit_code == 128 + signum
    name = signal.Signals(signum).name
    assert str(stop.value) == (
        f"stopped by {name} after step {step}; to continue: hrseg fit --resume {tmp_path}"
    )
    assert [signal.getsignal(number) for number in stop_signals()] == before


@pytest.mark.parametrize(("step", "batches"), [(1, 3), (3, 3), (4, 6)])
def test_a_signal_stops_after_all_accumulated_batches(step, batches, tmp_path):
    module = Plain(signal_at("train", step))
    with pytest.raises(Stopped):
        fit(tmp_path, module, accumulate_grad_batches=3, limit_val_batches=0)
    assert module.trained == batches
    assert saved(tmp_path) == batches // 3


def test_a_validation_stops_at_once_with_the_state_before_it(tmp_path):
    module = Plain(signal_at("validate", 2))
    with pytest.raises(Stopped, match="after step 6"):
        fit(tmp_path, module)
    assert (module.validated, saved(tmp_path)) == (2, 6)


@pytest.mark.parametrize(
    ("minutes", "steps"), [(1e-9, [0, 1, 2, 3]), (5, [None] * 4), (0, [None] * 4)]
)
def test_the_state_is_saved_at_intervals_within_an_epoch(minutes, steps, tmp_path):
    seen = []
    module = Plain(lambda name, count: seen.append(saved(tmp_path)))
    fit(tmp_path, module, minutes, limit_train_batches=4, max_epochs=1, limit_val_batches=0)
    assert seen == steps


def test_a_second_signal_stops_within_the_batch(tmp_path, monkeypatch):
    monkeypatch.setattr(preemption, "AGAIN", 0.2)

    def on_step(name, count):
        if count == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)  # as forwarded by a launcher
            time.sleep(0.3)
            os.kill(os.getpid(), signal.SIGINT)

    module = Plain(on_step)
    with pytest.raises(Stopped, match="stopped by SIGINT at once") as stop:
        fit(tmp_path, module)
    assert (module.trained, saved(tmp_path), stop.value.exit_code) == (3, None, 130)


def test_without_checkpoints_the_message_states_that_nothing_was_saved(tmp_path):
    with pytest.raises(Stopped, match="nothing was saved"):
        fit(tmp_path, Plain(signal_at("train", 2)), save=False)
    assert not list(tmp_path.iterdir())


def test_a_signal_in_the_last_batch_stops_before_the_report(tmp_path):
    trainer = fit(tmp_path, Plain(signal_at("train", 12)), limit_val_batches=0)
    [interruption] = [c for c in trainer.callbacks if isinstance(c, Interruption)]
    with pytest.raises(Stopped, match="training is complete, its report is missing"):
        interruption.finish()


def test_the_sigterm_handler_is_kept(tmp_path):
    def before(signum, frame):
        raise Stopped(signum)

    signal.signal(signal.SIGTERM, before)
    seen = []
    module = Plain(lambda name, count: seen.append(signal.getsignal(signal.SIGTERM)))
    trainer = silent_trainer(tmp_path, callbacks=[KeptHandler()])
    trainer.fit(module, *loaders())
    trainer.validate(module, loaders()[1], verbose=False)
    assert set(seen) == {before}


@pytest.mark.parametrize(
    ("stage", "code"), [("train", 0), ("validate", 0), ("train", 1), ("train", None)]
)
def test_slurm_requeues_the_job_after_the_state_is_saved(stage, code, tmp_path, monkeypatch):
    """A failing or missing scontrol causes a warning."""
    run, tool = tmp_path / "run", tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    if code is not None:
        log = f"{tmp_path}/log"
        tool.write_text(f'#!/bin/sh\necho "$@" $(ls {run}/checkpoints) > {log}\nexit {code}\n')
        tool.chmod(0o755)
    job = {"PATH": f"{tool.parent}:/usr/bin:/bin", "SLURM_NTASKS": "1", "SLURM_JOB_NAME": "a",
           "SLURM_JOB_ID": "77", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0",
           "SLURM_NTASKS_PER_NODE": "1"}  # fmt: skip
    for name, value in job.items():
        monkeypatch.setenv(name, value)
    module = Plain(signal_at(stage, 2, signal.SIGUSR1))
    with warnings.catch_warnings(record=True, action="always") as caught:
        fit(run, module, plugins=[SLURMEnvironment(auto_requeue=False)])
    assert any("the job was not requeued" in str(w.message) for w in caught) == (code != 0)
    assert code is None or (tmp_path / "log").read_text() == "requeue 77 last.ckpt\n"
    assert saved(run) == module.trained == 12  # training continued and saved again
