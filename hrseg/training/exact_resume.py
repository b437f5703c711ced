"""Exact resume: the state that Lightning's checkpoints lack, and validation of a saved state."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytorch_lightning as pl
import torch
from pydantic import AliasPath, BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from hrseg.errors import ConfigError, HrsegError
from hrseg.training.lightning_internals import begin_next_epoch, settled_loops
from hrseg.utils.console import note, say
from hrseg.utils.files import write_bytes
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.text import one_line

_KEY = "resume"


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, arbitrary_types_allowed=True)


class RandomState(_Stored):
    """State of the random number generators of one process, as plain data and tensors."""

    python: Annotated[list[Any], Field(min_length=3, max_length=3)]
    numpy: Annotated[list[Any], Field(min_length=5, max_length=5)]
    torch: Tensor
    cuda: Tensor | None


class ResumeState(_Stored):
    """What `ExactState` adds to a checkpoint.

    Attributes:
        random: of each process.
        rows: rows of metrics.csv that belong to the state.
        step: first step that is logged again after a resume.
        validated: number of batches up to the last validation, over all epochs.
    """

    random: list[RandomState]
    rows: NonNegativeInt
    step: NonNegativeInt
    validated: NonNegativeInt


class _Schedule(_Stored):
    step_count: int = Field(alias="_step_count")
    last_epoch: int


class TrainingState(_Stored):
    """The parts of a Lightning checkpoint that a resumed training needs.

    `finished_epochs` counts epochs with their validation.
    """

    version: str = Field(alias="pytorch-lightning_version", pattern=r"^\d+\.\d+[\w.+]{0,40}$")
    epoch: int
    global_step: int
    finished_epochs: NonNegativeInt = Field(
        validation_alias=AliasPath("loops", "fit_loop", "epoch_progress", "current", "processed")
    )
    callbacks: dict[str, Any]
    optimizer_states: list[dict[str, Any]]
    lr_schedulers: list[_Schedule]
    resume: ResumeState | None = None  # a checkpoint of a plain Trainer has none


def training_state(content: Mapping[str, Any], path: Path | str) -> TrainingState:
    """Return the validated training state of a checkpoint.

    Raises:
        ConfigError: the checkpoint has no training state, or an invalid one.
    """
    try:
        return TrainingState.model_validate(dict(content))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise _no_state(path, f"its {key} is invalid ({first['msg']})") from None


class ExactState(Callback):
    """Add the state to each checkpoint that makes a resumed run equal to an uninterrupted one.

    This covers the random numbers of every process, Lightning's progress counters, and the rows of
    metrics.csv. The DataModule keeps the position in the data. The promise holds for a resume
    with the same config and number of processes.
    """

    def __init__(self, run: Path) -> None:
        """Use `metrics.csv` in the run folder."""
        self.metrics = run / "metrics.csv"
        self.random: RandomState | None = None
        self.loading = False  # from the load of a state until training starts
        self.patience = self.validated = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        for callback in trainer.early_stopping_callbacks:
            self.patience = callback.patience  # a higher one than before continues the run

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        loops = checkpoint["loops"]["fit_loop"]
        batches = loops["epoch_loop.batch_progress"]["current"]
        place = checkpoint.get(type(getattr(trainer, "datamodule", None)).__qualname__, {})
        if batches["ready"] > batches["started"] and "done" in place:
            place["done"] -= 1  # the batch that is fetched and not begun
        done = loops["epoch_loop.batch_progress"]["total"]["completed"]
        checkpoint["loops"]["fit_loop"] = settled_loops(
            loops, trainer.validating, validated=done == self.validated
        )
        checkpoint[_KEY] = {
            "random": _of_all_processes(trainer, random_state(pl_module.device)),
            "rows": _rows(self.metrics) if trainer.is_global_zero else 0,
            "step": trainer.global_step + (not trainer.validating),
            "validated": self.validated,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        trainer.num_sanity_val_steps = 0  # it would reset the counters of the last validation
        state = training_state(checkpoint, "the checkpoint").resume
        self.loading = True
        if state is None:
            return
        self.validated = state.validated
        if len(state.random) == trainer.world_size:
            self.random = state.random[trainer.global_rank]
        else:
            rank_zero_only(note)(
                f"{len(state.random)} processes wrote the state, {trainer.world_size} resume it: "
                "dropout draws other numbers than without the interruption"
            )
        if trainer.is_global_zero:
            _cut(self.metrics, state.rows)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not self.loading:
            return
        self.loading = False
        begin_next_epoch(trainer)
        for callback in trainer.early_stopping_callbacks:
            assert isinstance(callback, EarlyStopping)
            callback.patience = self.patience  # the state has replaced it
            if callback.wait_count >= callback.patience:
                trainer.should_stop = True
                rank_zero_only(say)("nothing is left to train: early stopping has ended this run.")
        if self.random is not None:
            set_random_state(self.random, pl_module.device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:  # an interrupted validation starts again
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking:
            self.validated = trainer.fit_loop.total_batch_idx + 1


@contextmanager
def restoring(path: Path | None, trainer: pl.Trainer) -> Iterator[None]:
    """Turn an error of Lightning while it loads a state into a ConfigError."""
    try:
        yield
    except HrsegError:
        raise
    except Exception as error:
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        loading = any(isinstance(c, ExactState) and c.loading for c in callbacks)
        if path is None or not loading or is_out_of_memory(error):
            raise
        raise _no_state(path, one_line(f"{type(error).__name__}: {error}")[:200]) from error


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of the generators of Python, numpy, torch and the device."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Restore the generators of this process from a state of `random_state`."""
    version, words, gauss = state.python
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state.numpy
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state.torch.cpu())
    if state.cuda is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state.cuda.cpu(), device)


@rank_zero_only
def purge_events(trainer: pl.Trainer, step: int) -> None:
    """Let TensorBoard drop the events from `step` on, which a resumed run logs again.

    This writes an event file that must be older than the run's next one: call it before `fit`.
    """
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            from torch.utils.tensorboard import SummaryWriter

            SummaryWriter(logger.log_dir, purge_step=step).close()


def _of_all_processes(trainer: pl.Trainer, state: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the states of all processes in the order of their ranks; a collective call."""
    states: list[Any] = [state] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(states, state)
    return states


def _rows(metrics: Path) -> int:
    """Return the number of rows without the header."""
    return max(metrics.read_bytes().count(b"\n") - 1, 0) if metrics.is_file() else 0


def _cut(metrics: Path, rows: int) -> None:
    """Keep the first `rows` rows: the others belong to steps that are repeated."""
    if rows < _rows(metrics):
        lines = metrics.read_bytes().splitlines(keepends=True)
        write_bytes(metrics, b"".join(lines[: rows + 1]))


def _no_state(path: Path | str, why: str) -> ConfigError:
    return ConfigError(
        f"{path} holds no training state to resume: {why}.\n"
        f"Start a new run from its weights: model.weights={path}"
    )
