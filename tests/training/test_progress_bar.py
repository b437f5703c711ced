from types import SimpleNamespace

import pytest

from hrseg.training import progress_bar as module
from hrseg.training.progress_bar import Progress


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=100.0)
    # In this module alone: the collector may end another test's workers, which needs real time.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def trainer(step):
    return SimpleNamespace(
        global_step=step,
        estimated_stepping_batches=10,
        current_epoch=0,
        max_epochs=2,
        callback_metrics={"train/loss": 0.5, "train/lr": 0.01},
        sanity_checking=False,
    )


def test_waiting_training_and_validation_are_told_apart(clock, capsys):
    progress = Progress(every_seconds=0)
    progress.on_train_start(trainer(0), None)
    progress.on_train_epoch_start(trainer(0), None)
    for step in (1, 2):
        clock.time += 1
        progress.on_train_batch_start(trainer(step - 1), None, None, 0)
        clock.time += 3
        progress.on_train_batch_end(trainer(step), None, None, None, 0)
    progress.on_validation_start(trainer(2), None)
    clock.time += 50
    progress.on_validation_end(trainer(2), None)
    assert progress.wait_share == pytest.approx(2 / 8)
    assert progress.train_seconds == 8
    assert progress.validate_seconds == 50
    progress.on_train_end(trainer(2), None)
    printed = capsys.readouterr().out
    # Two of ten steps took eight seconds.
    assert "step 2/10  loss 0.5000  lr 0.01  data wait 25.0%  left 0:00:32" in printed
    assert "trained 2 steps in 0:00:08, 25.0% of it waiting for data" in printed
    assert "validated for 0:00:50" in printed


def test_a_run_resumed_amid_an_epoch_counts_from_its_own_start(clock):
    """Lightning begins no epoch then."""
    progress = Progress(every_seconds=1e9)
    progress.on_train_start(trainer(5), None)
    clock.time += 2
    progress.on_train_batch_start(trainer(5), None, None, 1)
    assert progress.train_seconds == progress.wait_seconds == 2


def test_other_processes_stay_silent(clock, capsys):
    progress = Progress(every_seconds=0)
    progress.disable()
    progress.on_train_start(trainer(0), None)
    progress.on_train_epoch_start(trainer(0), None)
    progress.on_train_batch_start(trainer(0), None, None, 0)
    clock.time += 1
    progress.on_train_batch_end(trainer(1), None, None, None, 0)
    progress.on_train_end(trainer(1), None)
    assert capsys.readouterr().out == ""
