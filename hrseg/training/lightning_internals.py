"""Private parts of Lightning that hrseg depends on, read from pytorch-lightning 2.6.6.

Each function states its reason. tests/training/test_lightning_internals.py has a contract test for
each, which names the change of a new version. No other module of hrseg uses a private part.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl

VERSION = "2.6.6"


def skip_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Skip the broadcast with which each training step asks process 0 for a SIGTERM.

    Reason: it waits for the device in every step, and `Interruption` asks without waiting.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def settled_loops(
    loops: Mapping[str, Any], validating: bool = False, validated: bool = False
) -> dict[str, Any]:
    """Return the counters of the fit loop in a form from which Lightning resumes exactly.

    Reason: Lightning counts a batch fetched, but not begun, as done, and restarts a
    validation only if it was stopped in its first batch. The layout of `loops` is that of
    `fit_loop.state_dict()`, saved between two batches, at the start of a validation
    (`validating`), or at the end of an epoch. `validated`: a validation followed the last batch.
    """
    settled = deepcopy(dict(loops))
    batches, epochs = settled["epoch_loop.batch_progress"], settled["epoch_progress"]
    between = batches["current"]["ready"] > batches["current"]["started"]
    if between:  # the fetched batch counts as not fetched
        for progress in (batches["total"], batches["current"]):
            progress["ready"] = progress["started"]
        batches["is_last_batch"] = False
    none_done = not any(batches["current"].values()) and not validating
    if none_done and epochs["current"]["started"] > epochs["current"]["processed"]:
        for progress in (epochs["total"], epochs["current"]):
            progress["ready"] = progress["started"] = progress["processed"]
    elif between and validated:
        # A restart passes over this validation and counts the step before it again.
        settled["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    validation = settled["epoch_loop.val_loop.batch_progress"]
    if validating and not validation["current"]["ready"]:
        for progress in (validation["total"], validation["current"]):
            progress["ready"] = progress["started"] = progress["processed"] + 1
        validation["is_last_batch"] = False
    return settled


def begin_next_epoch(trainer: pl.Trainer) -> None:
    """Begin the next epoch if the restored state lies between two epochs.

    Reason: with `max_steps` Lightning would finish the finished epoch again.
    """
    loop = trainer.fit_loop
    current = loop.epoch_progress.state_dict()["current"]
    if not loop.restarting or current["started"] > current["processed"]:
        return
    for progress in (loop.epoch_progress.total, loop.epoch_progress.current):
        progress.completed = progress.state_dict()["processed"]
    loop.epoch_loop.restarting = False
    loop.reset_restart_stage()
    loop.epoch_loop.reset_restart_stage()
