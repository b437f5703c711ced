"""Exact resume: training state beyond Lightning's checkpoints, and errors for invalid states."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from hrseg.errors import ConfigError, HrsegError
from hrseg.training.distributed import gather
from hrseg.training.lightning_internals import begin_next_epoch, settled_loops
from hrseg.utils.console import echo, note
from hrseg.utils.files import write_bytes
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.text import one_line


class ExactState(Callback):
    """Save additional state in checkpoints, so that a resumed run equals an uninterrupted run.

    The callback corrects Lightning's progress counters. It adds the key `resume` to a checkpoint:

    - `random`: random states, one per process;
    - `rows`: number of rows of metrics.csv in the folder `run`;
    - `step`: the first step that a resumed run logs;
    - `validated`: number of batches up to the last validation.

    The DataModule saves the position in the data. The config and the number of processes must
    stay the same.
    """

    def __init__(self, run: Path) -> None:
        self.metrics = run / "metrics.csv"
        self.random: dict[str, Any] | None = None
        self.loading = self.resumed = False
        self.patience = self.validated = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self.loading = True  # until training starts
        for callback in trainer.early_stopping_callbacks:
            self.patience = callback.patience  # a higher value continues a stopped run

    def on_save_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        batches = loops["epoch_loop.batch_progress"]
        data = checkpoint.get(type(getattr(trainer, "datamodule", None)).__qualname__, {})
        if batches["current"]["ready"] > batches["current"]["started"] and "done" in data:
            data["done"] -= 1  # a batch fetched, but not begun
        validated = batches["total"]["completed"] == self.validated
        checkpoint["loops"]["fit_loop"] = settled_loops(loops, trainer.validating, validated)
        checkpoint["resume"] = {
            "random": gather(trainer, random_state(pl_module.device)),
            "rows": _rows(self.metrics) if trainer.is_global_zero else 0,
            "step": trainer.global_step + (not trainer.validating),
            "validated": self.validated,
        }

    def on_load_checkpoint(self, trainer: pl.Trainer, pl_module: Any, checkpoint: Any) -> None:
        trainer.num_sanity_val_steps = 0  # would reset the counters of the last validation
        self.resumed = True
        state = checkpoint.get("resume")
        if state is None:  # the checkpoint of a plain Trainer
            return
        self.validated, states = state["validated"], state["random"]
        if len(states) == trainer.world_size:
            self.random = states[trainer.global_rank]
        else:
            rank_zero_only(note)(
                f"{len(states)} processes saved the state, but {trainer.world_size} resume it; "
                "dropout differs from an uninterrupted run"
            )
        if trainer.is_global_zero and state["rows"] < _rows(self.metrics):
            # The later rows belong to repeated steps.
            lines = self.metrics.read_bytes().splitlines(keepends=True)
            write_bytes(self.metrics, b"".join(lines[: state["rows"] + 1]))

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.resumed:
            self._resume(trainer, pl_module)
        self.loading = self.resumed = False

    def _resume(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        begin_next_epoch(trainer)
        for callback in trainer.early_stopping_callbacks:
            callback.patience = self.patience  # replaced by the state
            if callback.wait_count >= callback.patience:
                trainer.should_stop = True
                rank_zero_only(echo)("nothing is left to train: early stopping has ended this run.")
        if self.random is not None:
            set_random_state(self.random, pl_module.device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:  # an interrupted validation restarts
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.fit_loop.total_batch_idx + 1


def progress_of(content: Mapping[str, Any], path: Path) -> tuple[int, int | None]:
    """Return the number of finished epochs, and the first step that a resumed run logs.

    Raises:
        ConfigError: `content`, the checkpoint at `path`, has no training state.
    """
    try:
        for key in ("optimizer_states", "callbacks"):
            content[key]
        for schedule in content["lr_schedulers"]:
            int(schedule["_step_count"])
        epochs = content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"]
        state = content.get("resume")
        return int(epochs), None if state is None else int(state["step"])
    except (KeyError, TypeError, ValueError) as error:
        raise _no_state(path, error) from error


@contextmanager
def restoring(path: Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Convert errors while a training state is loaded to a ConfigError."""
    try:
        yield
    except HrsegError:
        raise
    except Exception as error:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        loading = any(isinstance(c, ExactState) and c.loading for c in callbacks)
        if path is None or not loading or is_out_of_memory(error):
            raise
        raise _no_state(path, error) from error


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of torch's generators, the only global generators used in training."""
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def set_random_state(state: Mapping[str, Any], device: torch.device) -> None:
    """Restore the generators of this process from the result of `random_state`."""
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@rank_zero_only
def purge_events(trainer: pl.Trainer, step: int) -> None:
    """Make TensorBoard ignore events from `step` on; call this before `fit` opens a new file."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            from torch.utils.tensorboard import SummaryWriter

            SummaryWriter(logger.log_dir, purge_step=step).close()


def _rows(metrics: Path) -> int:
    """Return the number of rows of a CSV file without the header."""
    return max(metrics.read_bytes().count(b"\n") - 1, 0) if metrics.is_file() else 0


def _no_state(path: Path, error: Exception) -> ConfigError:
    return ConfigError(
        f"{path} has no training state to resume "
        f"({one_line(f'{type(error).__name__}: {error}')[:200]}).\n"
        f"Fix: start a new run from its weights with model.weights={path}"
    )
