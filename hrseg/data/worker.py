"""What a data worker does beside loading: it notes what it is at, and leaves when it should."""

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import cv2

from hrseg.errors import DataError

LOOK = 1.0  # seconds between two looks whether the parent is there
STARTING = -(2**62)  # before the first sample

ROOM = (
    "Batches go through /dev/shm: give it more room (docker run --shm-size=2g) and more open files "
    "(ulimit -n 4096), or lower data.batch_size or data.workers; 0 needs none."
)

# The numbers that workers share with the process that waits for them, and where this one's are:
# the sample that it is at, its complement when that is done, and a count of these changes.
_desk: Any = None
_place = 0


def at(index: int) -> None:
    """Note which sample this worker is at; in a process that is no worker nothing happens."""
    if _desk is not None:
        _desk[_place] = index
        _desk[_place + 1] += 1


def start_worker(desk: Any, worker: int) -> None:
    """Prepare a worker: where it notes what it is at, what it does not hear, when it leaves.

    Args:
        desk: two numbers for each worker, then the process to leave with; 0: the one that started
            this one.
        worker: its number.
    """
    global _desk, _place
    _desk, _place = desk, 2 * worker
    cv2.setNumThreads(0)  # OpenCV's threads deadlock in forked workers, and fight for the cores
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        # A terminal and SLURM tell everyone; to answer, and to save, is the main process's.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_leave_with, args=(desk[-1] or os.getppid(),), daemon=True).start()


def collate_noted(collate: Callable[[Any], Any], samples: Any) -> Any:
    """Return the batch of `samples`, which are done.

    Raises:
        DataError: there is no room to pass it on.
    """
    if _desk is not None and _desk[_place] >= 0:
        at(~_desk[_place])
    try:
        return collate(samples)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        reason = str(error).rpartition(": ")[2]
        raise DataError(f"a data worker cannot pass on its batch: {reason}.\n{ROOM}") from error


def _leave_with(parent: int) -> None:
    """End this process when its parent has ended, whatever it is at."""
    while os.getppid() == parent:
        time.sleep(LOOK)
    os._exit(1)
