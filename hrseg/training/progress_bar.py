"""Progress bar of a training: loss, learning rate, data wait, time left."""

import time
from datetime import timedelta
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from rich import get_console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar


class Progress(ProgressBar):
    """One bar for the whole run; plain lines where the output is no terminal.

    Shows epoch, step, loss, learning rate, the share of the time spent waiting for data, and the
    time left, validation included.
    """

    def __init__(self, every_seconds: float = 15.0) -> None:
        """Print a plain line at most every `every_seconds`."""
        super().__init__()
        self.every_seconds = every_seconds
        self.train_seconds = self.wait_seconds = self.validate_seconds = 0.0
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._mark = self._shown = self._validation_start = 0.0
        self._enabled = True

    def disable(self) -> None:
        """Be silent: Lightning calls this on every process but the first."""
        self._enabled = False

    def enable(self) -> None:
        """Speak again."""
        self._enabled = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Open the bar."""
        self._first_step = trainer.global_step
        self._started = self._mark = time.monotonic()  # a resumed epoch does not start again
        if self._enabled and get_console().is_terminal:
            columns = TextColumn("{task.description}"), BarColumn(bar_width=None)
            self._bar = Bar(*columns, console=get_console(), transient=True)
            self._task = self._bar.add_task("", total=trainer.estimated_stepping_batches)
            self._bar.start()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the first batch."""
        self._mark = time.monotonic()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Count the time since the last step as waiting."""
        now = time.monotonic()
        self.wait_seconds += now - self._mark
        self.train_seconds += now - self._mark
        self._mark = now

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the time of the step, and show where the run stands."""
        now = time.monotonic()
        self.train_seconds += now - self._mark
        self._mark = now
        if now - self._shown > (0.2 if self._bar else self.every_seconds):
            self._shown = now
            self._show(trainer)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock of the validation."""
        self._validation_start = time.monotonic()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop the clock of the validation, which is not training."""
        self._mark = time.monotonic()
        if not trainer.sanity_checking:
            self.validate_seconds += self._mark - self._validation_start

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Close the bar and say where the time went."""
        self._close()
        if self._enabled:
            get_console().print(
                f"trained {trainer.global_step - self._first_step} steps in "
                f"{_clock(self.train_seconds)}, {self.wait_share:.1%} of it waiting for data; "
                f"validated for {_clock(self.validate_seconds)}",
                highlight=False,
                soft_wrap=True,
            )

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal as it was."""
        self._close()

    @property
    def wait_share(self) -> float:
        """Share of the training time spent waiting for data, 0..1."""
        return self.wait_seconds / (self.train_seconds or 1.0)

    def _close(self) -> None:
        if self._bar:
            self._bar.stop()
            self._bar = None

    def _show(self, trainer: pl.Trainer) -> None:
        if not self._enabled:
            return
        done = trainer.global_step - self._first_step
        steps = trainer.estimated_stepping_batches
        left = (time.monotonic() - self._started) / max(1, done) * (steps - trainer.global_step)
        metrics = trainer.callback_metrics
        epochs = f"/{trainer.max_epochs}" if (trainer.max_epochs or -1) > 0 else ""
        line = (
            f"epoch {trainer.current_epoch + 1}{epochs}  "
            f"step {trainer.global_step}/{steps}  "
            f"loss {float(metrics.get('train/loss', float('nan'))):.4f}  "
            f"lr {float(metrics.get('train/lr', float('nan'))):.3g}  "
            f"data wait {self.wait_share:.1%}  left {_clock(left)}"
        )
        if self._bar and self._task is not None:
            self._bar.update(self._task, description=line, completed=trainer.global_step)
        else:
            get_console().print(line, highlight=False, soft_wrap=True)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
