"""Progress bar of training: loss, learning rate, data wait, time left."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import RichProgressBar
from rich import get_console
from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, Task
from rich.text import Text

from hrseg.utils.console import echo


class _Stage(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.description.startswith("Epoch") else task.description)


class Progress(RichProgressBar):
    """Lightning's progress bar with data wait and time left, or plain lines without a terminal.

    The bar is refreshed 5 times per second. The data wait is a share of the training time without
    validation; the time left includes validation.

    Args:
        every_seconds: minimum interval between plain lines.
    """

    def __init__(self, every_seconds: float = 15.0) -> None:
        console = get_console()
        # Lightning reconfigures the global console; keep its stream.
        super().__init__(5 if console.is_terminal else 0, console_kwargs={"file": console.file})
        self.every_seconds = 0.2 if self.refresh_rate else every_seconds
        self.train_seconds = self.wait_seconds = self.validate_seconds = 0.0
        self._mark = self._shown = self._validation_start = 0.0
        self._values: dict[str, Any] = {}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._first_step = trainer.global_step
        self._started = self._mark = time.monotonic()  # on_train_epoch_start misses a resume

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_train_epoch_start(trainer, pl_module)
        self._mark = time.monotonic()

    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self.wait_seconds += self._lap()

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        self._lap()
        if self._mark - self._shown > self.every_seconds:
            self._shown = self._mark
            self._values = self._current(trainer)
            if not self.refresh_rate and trainer.is_global_zero:
                echo("  ".join(f"{name} {value}" for name, value in self._values.items()))
        super().on_train_batch_end(trainer, *args, **kwargs)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_start(trainer, pl_module)
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        super().on_validation_end(trainer, pl_module)
        self._mark = time.monotonic()
        if not trainer.sanity_checking:
            self.validate_seconds += self._mark - self._validation_start

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.progress is not None:
            self.progress.live.transient = True
            self.progress.stop()
        if trainer.is_global_zero:
            echo(
                f"trained {trainer.global_step - self._first_step} steps in "
                f"{_clock(self.train_seconds)}, {self._wait_share:.1%} of it waiting for data; "
                f"validated for {_clock(self.validate_seconds)}"
            )

    def configure_columns(self, trainer: pl.Trainer) -> list[ProgressColumn]:
        return [_Stage(), BarColumn(bar_width=20), MofNCompleteColumn()]

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        return self._values

    @property
    def _wait_share(self) -> float:
        return self.wait_seconds / (self.train_seconds or 1.0)

    def _lap(self) -> float:
        now = time.monotonic()
        seconds, self._mark = now - self._mark, now
        self.train_seconds += seconds
        return seconds

    def _current(self, trainer: pl.Trainer) -> dict[str, str]:
        """Return the displayed values. Reading them waits for the device."""
        steps = trainer.estimated_stepping_batches
        done = max(1, trainer.global_step - self._first_step)
        left = (time.monotonic() - self._started) / done * (steps - trainer.global_step)
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        return {
            "epoch": f"{trainer.current_epoch + 1}{epochs}",
            "step": f"{trainer.global_step}/{steps}",
            "loss": f"{metrics.get('train/loss', float('nan')):.4f}",
            "lr": f"{metrics.get('train/lr', float('nan')):.3g}",
            "data wait": f"{self._wait_share:.1%}",
            "left": _clock(left),
        }


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
