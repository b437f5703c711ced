"""Exact resume, part by part; tests/faults/test_resume.py tests the whole."""

import signal
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hrseg.data import CamVid
from hrseg.errors import ConfigError
from hrseg.training.exact_resume import (
    ExactState,
    progress_of,
    purge_events,
    restoring,
)
from tests.camvid_tree import make_camvid
from tests.conftest import silent_trainer
from tests.faults import training as train
from tests.faults.test_resume import KINDS
from tests.faults.test_signals import free_port, torchrun
from tests.faults.training import Blow

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


class Drawing(pl.LightningModule):
    """Draws a random number in each training step, and logs it."""

    def __init__(self):
        super().__init__()
        self.weight, self.drawn = torch.nn.Parameter(torch.zeros(1)), []
        self.save_at = None

    def training_step(self, batch, batch_idx):
        self.drawn.append(torch.rand(1).item())
        self.log("drawn", self.drawn[-1])
        return self.weight.sum()

    def on_train_batch_start(self, batch, batch_idx):
        if self.global_step == self.save_at:
            self.trainer.save_checkpoint(self.trainer.default_root_dir + "/state.ckpt")

    def validation_step(self, batch, batch_idx):
        self.log("val/miou", 0.5)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return make_camvid(tmp_path_factory.mktemp("camvid"), train=8, val=2)


def drawn(root, folder, save_at=None, state=None, workers=0, callbacks=(), **arguments):
    """Train two epochs of four steps; return the random numbers."""
    pl.seed_everything(5, verbose=False)
    module = Drawing()
    module.save_at = save_at
    data = CamVid(str(root), batch_size=2, crop_size=(32, 32), workers=workers)
    options = {"max_epochs": 2, "log_every_n_steps": 1, **arguments}
    trainer = silent_trainer(folder, **options, callbacks=[ExactState(Path(folder)), *callbacks])
    if state is not None:
        purge_events(trainer, torch.load(state, weights_only=True)["resume"]["step"])
    with restoring(state, trainer):
        trainer.fit(module, data, ckpt_path=state, weights_only=True)
    return module.drawn


@pytest.mark.parametrize("workers", [0, 2])
def test_validation_and_workers_do_not_change_the_random_numbers_of_training(
    workers, root, tmp_path
):
    without = drawn(root, tmp_path, limit_val_batches=0)
    assert len(set(without)) == 8
    for sanity in (0, 2):
        options = {"num_sanity_val_steps": sanity, "workers": workers, "val_check_interval": 0.5}
        assert drawn(root, tmp_path, **options) == without


@pytest.mark.parametrize("save_at", [0, 1, 4, 6])
def test_a_resumed_training_continues_the_random_numbers(save_at, root, tmp_path):
    whole = drawn(root, tmp_path, save_at)
    torch.rand(7)
    assert drawn(root, tmp_path, state=tmp_path / "state.ckpt") == whole[save_at:]


def test_a_resume_keeps_the_counters_of_the_last_validation(root, tmp_path):
    """They are in the next checkpoint if no validation precedes it."""
    keep = {"enable_checkpointing": True, "max_epochs": 3, "check_val_every_n_epoch": 2}

    def counters(name, **state):
        end = pl.callbacks.ModelCheckpoint(tmp_path, name, save_on_train_epoch_end=True)
        drawn(root, tmp_path, callbacks=[end], num_sanity_val_steps=2, **keep, **state)
        loops = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)["loops"]
        return loops["fit_loop"]["epoch_loop.val_loop.batch_progress"]

    whole = counters("whole", save_at=8)
    assert whole["current"]["completed"] == 2 and whole["is_last_batch"]
    assert counters("resumed", state=tmp_path / "state.ckpt") == whole


def test_metrics_of_repeated_steps_are_removed(root, tmp_path):
    rows = [f"{step},{step}.5" for step in range(9)]
    metrics = tmp_path / "metrics.csv"
    metrics.write_text("\n".join(["step,drawn", *rows[:3]]) + "\n")
    drawn(root, tmp_path, save_at=3)
    metrics.write_text("\n".join(["step,drawn", *rows[:6]]) + "\n7,half a r")
    drawn(root, tmp_path, state=tmp_path / "state.ckpt")
    assert metrics.read_text().splitlines() == ["step,drawn", *rows[:3]]


def test_tensorboard_shows_repeated_steps_once(root, tmp_path):
    def board():
        return TensorBoardLogger(tmp_path, name="", version="")

    drawn(root, tmp_path, save_at=3, logger=board())
    whole = drawn(root, tmp_path, state=tmp_path / "state.ckpt", logger=board())
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    shown = events.Scalars("drawn")
    # The first repeated step occurs twice with the same value, because a picture of the validation
    # before it has the same step.
    assert [event.step for event in shown] == [0, 1, 2, 3, 3, 4, 5, 6, 7]
    assert [event.value for event in shown][-5:] == [pytest.approx(value) for value in whole]


def test_a_run_ended_by_early_stopping_resumes_only_with_more_patience(root, tmp_path):
    def stopping(patience):
        return [EarlyStopping("val/miou", mode="max", patience=patience)]

    keep = pl.callbacks.ModelCheckpoint(tmp_path, "end", save_on_train_epoch_end=True)
    ended = drawn(
        root, tmp_path, callbacks=[*stopping(1), keep], max_epochs=9, enable_checkpointing=True
    )
    assert len(ended) == 2 * 4
    state = {"state": tmp_path / "end.ckpt", "max_epochs": 9}
    assert drawn(root, tmp_path, callbacks=stopping(1), **state) == []
    assert len(drawn(root, tmp_path, callbacks=stopping(3), **state)) == 2 * 4


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("optimizer_states", [{"state": {}, "param_groups": []}], "ValueError"),
        ("pytorch-lightning_version", "\x1b[2J", "InvalidVersion"),
        ("resume", {"random": [{}], "rows": 0, "step": 3, "validated": 0}, "KeyError"),
    ],
)
def test_an_invalid_state_gives_a_config_error(key, value, error, root, tmp_path):
    drawn(root, tmp_path, save_at=3)
    content = torch.load(tmp_path / "state.ckpt", weights_only=True)
    torch.save({**content, key: value}, tmp_path / "state.ckpt")
    with pytest.raises(ConfigError, match=rf"state.ckpt has no training state .*{error}"):
        drawn(root, tmp_path, state=tmp_path / "state.ckpt")


def test_a_checkpoint_with_only_weights_cannot_be_resumed(tmp_path):
    with pytest.raises(ConfigError, match=r"last\.ckpt has no training state .*optimizer_states"):
        progress_of({"state_dict": {}}, tmp_path / "last.ckpt")


def test_another_number_of_processes_gives_a_note(root, tmp_path, capsys):
    drawn(root, tmp_path, save_at=3)
    content = torch.load(tmp_path / "state.ckpt", weights_only=True)
    content["resume"]["random"] *= 2
    torch.save(content, tmp_path / "state.ckpt")
    assert len(drawn(root, tmp_path, state=tmp_path / "state.ckpt")) == 5
    assert "2 processes saved the state, but 1 resume it" in capsys.readouterr().out


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path):
    train.prepare(tmp_path)
    words = ["trainer.devices=2", "data.batch_size=4", *KINDS["dropout"]]

    def fit(name, command, blow=None):
        port, logs = free_port(), [tmp_path / f"{name}{rank}.log" for rank in range(2)]
        blows = [None, blow]
        processes = [
            train.start(command, log, blows[rank], torchrun(rank, port))
            for rank, log in enumerate(logs)
        ]
        return [train.wait(process, log).code for process, log in zip(processes, logs, strict=True)]

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert fit("whole", train.command(tmp_path, whole, *words)) == [0, 0]
    blow = Blow(signal.SIGTERM, 3)
    assert fit("parts", train.command(tmp_path, parts, *words), blow) == [143, 143]
    run = train.only_run(parts)
    assert fit("parts", ["fit", "--resume", str(run)]) == [0, 0]
    record = train.record_of(train.only_run(whole))
    assert train.difference(record, train.record_of(run)) is None
