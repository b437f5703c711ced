"""Private parts of Lightning that hrseg uses, as of pytorch-lightning 2.6.6.

No other module of hrseg uses private parts. tests/training/test_lightning_internals.py has a
contract test for each function, whose failure names the part that a new version changes.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import pytorch_lightning as pl

VERSION = "2.6.6"


def skip_sigterm_broadcast(trainer: pl.Trainer) -> None:
    """Skip the broadcast of SIGTERM by process 0 in each training step.

    Reason: the broadcast waits for the device in each step. `Interruption` does not wait.
    """
    trainer.fit_loop.epoch_loop._broadcast_sigterm_tensor = lambda: None  # type: ignore[method-assign]


def settled_loops(
    loops: Mapping[str, Any], validating: bool = False, validated: bool = False
) -> dict[str, Any]:
    """Return corrected counters of the fit loop, from which Lightning resumes exactly.

    Reason: Lightning counts a fetched batch as done before its step starts. It also restarts a
    validation only if the interruption was in its first batch.

    Args:
        loops: `fit_loop.state_dict()` between two batches, at the start of a validation, or at the
            end of an epoch.
        validating: the state is from the start of a validation.
        validated: a validation followed the last batch.
    """
    settled = deepcopy(dict(loops))
    batches, epochs = settled["epoch_loop.batch_progress"], settled["epoch_progress"]
    between = batches["current"]["ready"] > batches["current"]["started"]
    if between:  # count the fetched batch as not fetched
        for progress in (batches["total"], batches["current"]):
            progress["ready"] = progress["started"]
        batches["is_last_batch"] = False
    none_done = not any(batches["current"].values()) and not validating
    if none_done and epochs["current"]["started"] > epochs["current"]["processed"]:
        for progress in (epochs["total"], epochs["current"]):
            progress["ready"] = progress["started"] = progress["processed"]
    elif between and validated:
        # A restart skips this validation, and counts the step before it a second time.
        settled["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1
    validation = settled["epoch_loop.val_loop.batch_progress"]
    if validating and not validation["current"]["ready"]:
        for progress in (validation["total"], validation["current"]):
            progress["ready"] = progress["started"] = progress["processed"] + 1
        validation["is_last_batch"] = False
    return settled


def begin_next_epoch(trainer: pl.Trainer) -> None:
    """Begin the next epoch if the restored state lies between two epochs.

    Reason: with `max_steps`, Lightning would end the finished epoch a second time.
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
