"""Where training stands in its data: the epoch, and how many batches of it are done."""

from typing import NamedTuple

import pytorch_lightning as pl
from pytorch_lightning.loops.progress import _ProcessedTracker


class Position(NamedTuple):
    """The place in the data that training goes on from.

    Attributes:
        epoch: counted from 0.
        done: batches of that epoch, of one process, that have been trained on.
        of: batches of an epoch.
    """

    epoch: int
    done: int
    of: int


def position(trainer: pl.Trainer, of: int) -> Position:
    """Return where `trainer` stands; `of` is the number of batches that its loader has."""
    batches = trainer.fit_loop.epoch_loop.batch_progress
    epochs, done = trainer.fit_loop.epoch_progress.current, batches.current
    assert isinstance(epochs, _ProcessedTracker) and isinstance(done, _ProcessedTracker)
    if epochs.started == epochs.processed:
        return Position(epochs.processed, 0, of)  # between two epochs
    if batches.is_last_batch and done.completed == done.processed - 1:
        # Saved in on_train_batch_end: Lightning goes on in the next epoch.
        return Position(epochs.processed + 1, 0, of)
    return Position(epochs.processed, done.processed, of)
