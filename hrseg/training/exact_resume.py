"""Exact resume: the state that Lightning's checkpoints lack, and validation of a saved state."""

import random
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from traceback import walk_tb
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback, EarlyStopping
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.loops.loop import _Loop
from pytorch_lightning.loops.progress import _ProcessedTracker
from pytorch_lightning.utilities import rank_zero_only

from hrseg.errors import ConfigError, HrsegError
from hrseg.utils.console import note, say
from hrseg.utils.files import write_bytes
from hrseg.utils.memory import is_out_of_memory
from hrseg.utils.text import one_line

_KEY = "resume"
_DAMAGE = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)
Random = dict[str, Any]


class ExactState(Callback):
    """Add to each checkpoint what makes a resumed run equal to one that was never interrupted.

    The random numbers of every process, progress in a form that Lightning goes on from without a
    lost or repeated step or validation, and how much of metrics.csv belongs to the state. The
    place in the data is kept by the DataModule, which counts the batches that are fetched.
    """

    def __init__(self, run: Path) -> None:
        """Take the run folder, whose `metrics.csv` is the record."""
        self.metrics = run / "metrics.csv"
        self.random: Random | None = None
        self.resumed = self.between = False  # loaded, and stands between two batches
        self.patience = 0

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remember how long to wait for a better score: more than before lets a run go on."""
        for callback in trainer.early_stopping_callbacks:
            self.patience = callback.patience

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write down what Lightning does not."""
        loops = checkpoint["loops"]["fit_loop"]
        checkpoint["loops"]["fit_loop"] = settled(loops, validating=trainer.validating)
        batches = loops["epoch_loop.batch_progress"]["current"]
        between = batches["ready"] > batches["started"]
        place = checkpoint.get(type(getattr(trainer, "datamodule", None)).__qualname__, {})
        if between and "done" in place:
            place["done"] -= 1  # the batch that is fetched and not begun
        checkpoint[_KEY] = {
            "between": between,
            "random": _of_all_processes(trainer, random_state(pl_module.device)),
            "rows": _rows(self.metrics) if trainer.is_global_zero else 0,
        }

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take the state of this process; drop from the record what is done again."""
        self.resumed = True
        if _KEY not in checkpoint:  # of an earlier version
            return
        with _damage_said():
            own, loops = checkpoint[_KEY], checkpoint["loops"]["fit_loop"]
            self.between, states, rows = bool(own["between"]), list(own["random"]), int(own["rows"])
            step = int(loops["epoch_loop.state_dict"]["_batches_that_stepped"])
        if len(states) == trainer.world_size:
            self.random = states[trainer.global_rank]
        else:
            rank_zero_only(note)(
                f"{len(states)} processes wrote the state, {trainer.world_size} go on: "
                "dropout draws other numbers than it would have"
            )
        if trainer.is_global_zero:
            _cut(self.metrics, max(rows, 0))
            _purge_events(trainer, step + 1)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Go on as if there had been no interruption."""
        if not self.resumed:
            return
        self.resumed = False
        _begin_epoch(trainer)
        if self.between:
            _skip_validation(trainer)
        for callback in trainer.early_stopping_callbacks:
            assert isinstance(callback, EarlyStopping)
            callback.patience = self.patience  # it takes that of the state
            if callback.wait_count >= callback.patience:
                trainer.should_stop = True
                rank_zero_only(say)("nothing is left to train: early stopping has ended this run.")
        if self.random is not None:
            with _damage_said():
                set_random_state(self.random, pl_module.device)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the validation that was begun before the interruption."""
        if not trainer.sanity_checking:
            trainer.fit_loop.epoch_loop.val_loop.batch_progress.total.reset_on_restart()


def settled(loops: Mapping[str, Any], validating: bool = False) -> dict[str, Any]:
    """Return the progress of Lightning's fit loop so that it goes on from here exactly.

    Args:
        loops: `state_dict` of the fit loop, between two batches, at the start of a validation, or
            at the end of an epoch. A batch that is fetched and not begun counts as not fetched;
            an epoch of which none is begun as not begun; a validation of which none is done is
            due.
        validating: whether the trainer is in a validation.
    """
    batches, epochs = _copy(loops["epoch_loop.batch_progress"]), _copy(loops["epoch_progress"])
    validation = _copy(loops["epoch_loop.val_loop.batch_progress"])
    for progress in (batches["total"], batches["current"]):
        if progress["ready"] > progress["started"]:
            progress["ready"] = progress["started"]
            batches["is_last_batch"] = False
    none_done = not any(batches["current"].values()) and not validating
    if none_done and epochs["current"]["started"] > epochs["current"]["processed"]:
        for progress in (epochs["total"], epochs["current"]):
            progress["ready"] = progress["started"] = progress["processed"]
    if validating and not validation["current"]["ready"]:
        # What Lightning takes for a validation that it was stopped in the first batch of.
        for progress in (validation["total"], validation["current"]):
            progress["ready"] = progress["started"] = progress["processed"] + 1
        validation["is_last_batch"] = False
    return {
        **loops,
        "epoch_progress": epochs,
        "epoch_loop.batch_progress": batches,
        "epoch_loop.val_loop.batch_progress": validation,
    }


def finished_epochs(content: Mapping[str, Any], path: Path) -> int:
    """Return how many epochs are behind the state that a checkpoint holds, validations included.

    Raises:
        ConfigError: it holds none.
    """
    try:
        return int(content["loops"]["fit_loop"]["epoch_progress"]["current"]["processed"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no state of a training to go on from.\n"
            f"Start a new run from its weights: model.weights={path}"
        ) from error


def random_state(device: torch.device) -> Random:
    """Return what Python, numpy, torch and the device of this process draw from, as plain data."""
    version, words, gauss = random.getstate()
    name, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": [version, list(words), gauss],
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
    }


def set_random_state(state: Random, device: torch.device) -> None:
    """Let this process draw on from a state of `random_state`."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)


@contextmanager
def _damage_said() -> Iterator[None]:
    """Turn what goes wrong with a state that is not as it was written into a word."""
    try:
        yield
    except _DAMAGE as error:
        raise ConfigError(
            f"the checkpoint's state of the training is not as hrseg writes it ({error}).\n"
            "Start a new run from its weights: model.weights=FILE"
        ) from error


def _of_all_processes(trainer: pl.Trainer, state: Random) -> list[Random]:
    """Return the states of all processes, in their order; each of them must come here."""
    states: list[Any] = [state] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(states, state)
    return states


def _begin_epoch(trainer: pl.Trainer) -> None:
    """After a finished epoch let Lightning begin the next; by steps it would finish it again.

    `trainer.max_steps` makes it take any state for one amid an epoch.
    """
    loop, epochs = trainer.fit_loop, trainer.fit_loop.epoch_progress
    for progress in (epochs.total, epochs.current):
        assert isinstance(progress, _ProcessedTracker)
        if not loop.restarting or progress.started > progress.processed:
            return
        progress.completed = progress.processed
    _Loop.restarting.fset(loop, False)  # type: ignore[attr-defined]
    loop.reset_restart_stage()
    loop.epoch_loop.reset_restart_stage()


def _skip_validation(trainer: pl.Trainer) -> None:
    """Let Lightning pass over the validation of the last batch, if it had one, and count it once.

    It takes the state for one at the end of that validation, and counts the step that was counted.
    """
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    if loop.restarted_on_last and fetcher is not None and loop._should_check_val_fx(fetcher):
        loop._batches_that_stepped -= 1


def _rows(metrics: Path) -> int:
    """Return how many rows the record has."""
    return max(metrics.read_bytes().count(b"\n") - 1, 0) if metrics.is_file() else 0


def _cut(metrics: Path, rows: int) -> None:
    """Keep the first `rows` rows: the others belong to steps that are done again."""
    if rows < _rows(metrics):
        lines = metrics.read_bytes().splitlines(keepends=True)
        write_bytes(metrics, b"".join(lines[: rows + 1]))


def _purge_events(trainer: pl.Trainer, step: int) -> None:
    """Tell TensorBoard to forget what was written from `step` on, which is written again."""
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            from tensorboard.compat.proto.event_pb2 import (  # type: ignore[import-untyped]
                Event,
                SessionLog,
            )

            start = SessionLog(status=SessionLog.START)
            writer = logger.experiment._get_file_writer()
            writer.add_event(Event(step=step, session_log=start), step)


def _copy(progress: Mapping[str, Any]) -> dict[str, Any]:
    return {key: dict(v) if isinstance(v, dict) else v for key, v in progress.items()}


def check_state(content: Mapping[str, Any], path: Path) -> None:
    """Refuse a training state whose parts are not of the kinds that Lightning writes.

    Raises:
        ConfigError: this.
    """
    wrong = [name for name, fits in _PARTS.items() if not fits(content.get(name))]
    if wrong:
        raise _no_state(path, f"its {wrong[0]} is not what Lightning writes")


@contextmanager
def restoring(path: Path | None) -> Iterator[None]:
    """Turn what Lightning, or a callback, says to a state of another kind into one clear error."""
    try:
        yield
    except HrsegError:
        raise
    except Exception as error:
        if path is None or is_out_of_memory(error) or not _was_restoring(error):
            raise
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        raise _no_state(path, reason) from error


def _no_state(path: Path, why: str) -> ConfigError:
    """Return the error for a checkpoint that no training can go on from."""
    return ConfigError(
        f"{path} holds no state of a training to go on from: {why}.\n"
        f"Start a new run from its weights: model.weights={path}"
    )


def _was_restoring(error: BaseException) -> bool:
    modules = [frame.f_globals.get("__name__", "") for frame, _ in walk_tb(error.__traceback__)]
    return any("checkpoint_connector" in name or ".migration" in name for name in modules)


def _are_dicts(value: Any, *keys: str) -> bool:
    """Return whether something is a list of dicts that have such keys, with whole numbers."""
    return isinstance(value, list) and all(
        isinstance(one, dict) and all(type(one.get(key)) is int for key in keys) for one in value
    )


_PARTS: dict[str, Callable[[Any], bool]] = {
    "pytorch-lightning_version": lambda v: re.fullmatch(r"\d+\.\d+[\w.+]{,40}", str(v)) is not None,
    "epoch": lambda value: type(value) is int,
    "global_step": lambda value: type(value) is int,
    "loops": lambda value: isinstance(value, dict),
    "callbacks": lambda value: isinstance(value, dict),
    "optimizer_states": _are_dicts,
    "lr_schedulers": lambda value: _are_dicts(value, "_step_count", "last_epoch"),
}
