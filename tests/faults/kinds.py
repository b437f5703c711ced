"""The kinds of faults: what is promised about each, and how many are injected."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.faults import (
    Tally,
    checkpoints,
    dirty,
    metrics,
    network,
    numbers,
    resume,
    signals,
    strangers,
    windows,
    workers,
)

Inject = Callable[[int, Path, int], Tally]


@dataclass(frozen=True)
class Kind:
    """One kind of fault.

    Attributes:
        promise: what holds in spite of it, a sentence of at most 70 characters.
        inject: (count, an empty folder, seed) -> what became of them.
        quick: how many in the tests, seconds of work.
        full: how many in `scripts/maintenance/torture.py --all`.
    """

    promise: str
    inject: Inject
    quick: int
    full: int


KINDS: dict[str, Kind] = {
    "checkpoint_killed": Kind(
        "SIGKILL amid a write: the last that was saved is there, whole",
        checkpoints.killed, 20, 500,
    ),
    "checkpoint_full_disk": Kind(
        "a full disk: said, the checkpoints that were there are as they were",
        checkpoints.full_disk, 15, 60,
    ),
    "checkpoint_damaged": Kind(
        "a damaged checkpoint: the one before it is taken, with a word",
        checkpoints.damaged, 25, 300,
    ),
    "best_killed": Kind(
        "SIGKILL between any two files: the best and its scores, resumed, agree",
        windows.inject, 1, 48,
    ),
    "no_numbers": Kind(
        "NaN, infinity: no step with it, none saved, its batch named and kept",
        numbers.no_numbers, 8, 96,
    ),
    "no_memory": Kind(
        "out of memory in evaluation: it goes on, to the same scores",
        numbers.no_memory, 20, 1000,
    ),
    "data_workers": Kind(
        "workers killed, crashed, hanging: their file named, no process left",
        workers.inject, 3, 60,
    ),
    "metrics_layout": Kind(
        "any processes, workers, order, windows: the same count of every pixel",
        metrics.inject, 6, 240,
    ),
    "training_interrupted": Kind(
        "a training killed or stopped, resumed: every bit as in one go",
        resume.interrupted, 2, 36,
    ),
    "commands_stopped": Kind(
        "SIGTERM, Ctrl-C, a lost terminal: saved, one line, within 10 s",
        signals.stopped, 2, 32,
    ),
    "dirty_data": Kind(
        "an image or mask that is harmed: read right, or named and left out",
        dirty.pairs, 60, 1200,
    ),
    "strangers": Kind(
        "hostile files: nothing runs, leaves its folder, calls out or hangs",
        strangers.inject, 13, 1000,
    ),
    "network": Kind(
        "imports, training, every command: no socket, in C libraries either",
        network.inject, 3, 21,
    ),
}  # fmt: skip
