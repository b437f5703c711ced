import io
from types import SimpleNamespace

import pytest
import rich

from hrseg.training import progress_bar as module
from hrseg.training.progress_bar import Progress
from tests.conftest import silent_trainer
from tests.training.test_preemption import Plain, loaders


@pytest.fixture
def clock(monkeypatch):
    now = SimpleNamespace(time=100.0)
    # Only in this module: garbage collection may stop workers of another test in real time.
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now.time))
    return now


def trainer(step, first=True):
    return SimpleNamespace(
        global_step=step,
        estimated_stepping_batches=10,
        current_epoch=0,
        max_epochs=2,
        callback_metrics={"train/loss": 0.5, "train/lr": 0.01},
        sanity_checking=False,
        is_global_zero=first,
        state=SimpleNamespace(fn="fit"),
    )


@pytest.mark.parametrize("first", [True, False])
def test_data_wait_training_and_validation_are_timed_separately(first, clock, capsys):
    progress = Progress(every_seconds=0)
    progress.on_train_start(trainer(0), None)
    progress.on_train_epoch_start(trainer(0), None)
    for step in (1, 2):
        clock.time += 1
        progress.on_train_batch_start(trainer(step - 1), None, None, 0)
        clock.time += 3
        progress.on_train_batch_end(trainer(step, first), None, None, None, 0)
    progress.on_validation_start(trainer(2), None)
    clock.time += 50
    progress.on_validation_end(trainer(2), None)
    progress.on_train_end(trainer(2, first), None)
    printed = capsys.readouterr().out
    if not first:  # other processes print nothing
        assert printed == ""
        return
    # Two of ten steps took eight seconds.
    assert "step 2/10  loss 0.5000  lr 0.01  data wait 25.0%  left 0:00:32" in printed
    assert "trained 2 steps in 0:00:08, 25.0% of it waiting for data" in printed
    assert "validated for 0:00:50" in printed


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_terminal_shows_the_progress_bar_until_the_end(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    rich.reconfigure(file=Terminal())  # the fixture `console` restores it
    options = {"max_epochs": 2, "enable_progress_bar": True, "callbacks": [Progress()]}
    silent_trainer(tmp_path, **options).fit(Plain(), *loaders())
    printed = rich.get_console().file.getvalue()
    assert "epoch: 1/2 step: 1/12" in printed and "data wait: " in printed and "━" in printed
    assert "trained 12 steps in 0:00:0" in printed.splitlines()[-1]
