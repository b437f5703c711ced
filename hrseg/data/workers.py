"""DataLoader with errors for dead and hanging workers, and resume within an epoch."""

import atexit
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from multiprocessing import RawArray, active_children, parent_process
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar, cast

import cv2
import psutil
from torch.utils.data import DataLoader, Dataset, default_collate, default_convert

from hrseg.errors import ConfigError, DataError, HrsegError
from hrseg.utils.system import exit_with_parent

T = TypeVar("T")
R = TypeVar("R")

_SIGCHLD = getattr(signal, "SIGCHLD", None)  # missing on Windows
_CHECKS = 10  # checks of the workers' progress within `patience`
_STARTING = -(2**62)  # before the first sample
_FIX = "If it is the same file again, check this file: data.workers=0 reads in the main process."
_SHARED_MEMORY_FIX = (
    "Fix: enlarge /dev/shm (docker run --shm-size=2g), allow more open files (ulimit -n 4096), "
    "or lower data.batch_size or data.workers; 0 needs neither."
)
_ENDINGS = {
    "SIGBUS": "/dev/shm is full, or a mapped file was truncated (`hrseg data cache --verify`)."
    f"\n{_SHARED_MEMORY_FIX}",
    "SIGKILL": "The memory was probably full (`dmesg`). Fix: lower data.workers, data.batch_size.",
}

# Shared with the main process. Two numbers per worker: its sample, or the complement of a finished
# sample, and its process id.
_board: Any = None
_slot = 0


def report_sample(index: int) -> None:
    """Report the sample that this worker reads; no effect in the main process."""
    if _board is not None:
        _board[_slot] = index


def _start_worker(board: Any, worker: int) -> None:
    global _board, _slot
    _board, _slot = board, 2 * worker
    _board[_slot : _slot + 2] = [_STARTING, os.getpid()]
    cv2.setNumThreads(0)  # OpenCV's threads deadlock in forked workers, and compete for the cores
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        # A terminal and SLURM signal every process; only the main process handles signals.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.excepthook = _print_if_parent_lives
    threading.Thread(target=exit_with_parent, daemon=True).start()


def _print_if_parent_lives(*error: Any) -> None:
    # The thread that sends batches may fail before `exit_with_parent` sees the end of the parent.
    parent = cast(Any, parent_process())
    parent.join(1.0)
    if parent.is_alive():
        sys.__excepthook__(*error)


def _collate(collate: Callable[[Any], Any], samples: Any) -> Any:
    if _board is not None and _board[_slot] >= 0:
        _board[_slot] = ~_board[_slot]
    try:
        return collate(samples)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        reason = str(error).rpartition(": ")[2]
        raise DataError(
            f"A data worker cannot send its batch: {reason}.\n"
            f"Expected: room in the shared memory, /dev/shm.\n{_SHARED_MEMORY_FIX}"
        ) from error


def _kill_daemons() -> None:
    for process in active_children():
        if process.daemon:  # multiprocessing only terminates them, and waits for a hanging one
            process.kill()


class WatchedLoader(DataLoader[T]):
    """DataLoader that raises a DataError with the worker that died or hangs, and its sample.

    The dataset has a method `label`, index -> text, and calls `report_sample` for each sample.
    A training sampler has `epoch` and `resume`.

    Args:
        dataset: dataset to load.
        patience: seconds without a finished sample after which the workers are killed; None or
            0: no limit.
        options: arguments of a DataLoader except `worker_init_fn` and `collate_fn`.
    """

    def __init__(self, dataset: Dataset[T], patience: float | None = None, **options: Any) -> None:
        self.patience, self.epoch, self.done = patience or 0.0, 0, 0
        self._resumed: tuple[int, int] | None = None
        self._workers: list[BaseProcess] = []
        self._hanging: DataError | None = None
        if count := options.get("num_workers", 0):
            cv2.setNumThreads(0)  # a forked process cannot stop OpenCV's threads
            collate = default_convert if options.get("batch_size", 1) is None else default_collate
            self._board: Any = RawArray("q", 2 * count)
            options["collate_fn"] = partial(_collate, collate)
            options["worker_init_fn"] = partial(_start_worker, self._board)
        super().__init__(dataset, **options)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Return the batches of the sampler's epoch; the workers start at once."""
        return self._batches(self._epoch(), self._start())

    def _batches(self, epoch: int, batches: Iterator[T]) -> Iterator[T]:
        if epoch != self._epoch():  # Lightning sets the epoch after `iter` when it resumes
            epoch, batches = self._epoch(), self._start()
        resumed, done = self._resumed or (epoch, 0)
        self.epoch, self.done = epoch, done if resumed == epoch else 0
        end: Any = object()
        while (batch := self._watched(lambda: next(batches, end))) is not end:
            self.done += 1
            yield batch

    def position(self) -> dict[str, int]:
        """Return the position in the data: epoch, finished batches, batches per epoch."""
        return {"epoch": self.epoch, "done": self.done, "of": len(self)}

    def resume(self, state: dict[str, int]) -> None:
        """Begin the next iteration at a result of `position`.

        Raises:
            ConfigError: within an epoch whose number of batches has changed.
        """
        epoch, done, of = state["epoch"], state["done"], state["of"]
        if 0 < done < of != len(self):
            raise ConfigError(
                f"The checkpoint is {done} batches into epoch {epoch + 1}, of {of} batches; "
                f"an epoch now has {len(self)}.\nExpected: the same number until this epoch ends.\n"
                "Fix: keep the images, data.batch_size and trainer.accumulate_grad_batches."
            )
        self.epoch, self.done = self._resumed = epoch, done
        cast(Any, self.sampler).resume(epoch, done * (self.batch_size or 1))

    def _epoch(self) -> int:
        return int(getattr(self.sampler, "epoch", 0))

    def _start(self) -> Iterator[T]:
        if not self.num_workers:
            return super().__iter__()
        if not self.persistent_workers:
            self._workers = []
        others, handler = active_children(), _SIGCHLD and signal.getsignal(_SIGCHLD)
        batches = self._watched(super().__iter__)
        if _SIGCHLD and threading.current_thread() is threading.main_thread():
            # torch's handler raises at any point of the main thread, even during a save.
            signal.signal(_SIGCHLD, handler or signal.SIG_DFL)
        self._workers += set(active_children()).difference(others)
        atexit.unregister(_kill_daemons)
        atexit.register(_kill_daemons)  # runs before torch's, which waits 10 s for a hanging worker
        return batches

    def _watched(self, wait_for: Callable[[], R]) -> R:
        """Wait for workers; raise the error of a dead or hanging one, with its sample."""
        if not self.num_workers:
            return wait_for()
        done = threading.Event()
        if self.patience and self._workers:
            threading.Thread(target=self._kill_hanging, args=(done,), daemon=True).start()
        try:
            return wait_for()
        except BaseException as error:
            fault = self._fault_of(error)
            self._kill()
            if fault is None:
                raise
            raise fault from error
        finally:
            done.set()

    def _kill_hanging(self, done: threading.Event) -> None:
        """Kill the workers if all of them hang, so that torch stops waiting."""
        workers, idle_checks, board = self._workers, 0, self._board[:]
        while idle_checks < _CHECKS:
            if done.wait(self.patience / _CHECKS):
                return
            idle_checks = idle_checks + 1 if board == self._board[:] else 0
            board = self._board[:]
        if wait([worker.sentinel for worker in workers], 0):  # torch finds a dead worker
            return
        states = {worker: psutil.Process(worker.pid).status() for worker in workers}
        stopped = [worker for worker, state in states.items() if state == psutil.STATUS_STOPPED]
        name, activity = self._describe(stopped or workers)
        self._hanging = DataError(
            f"{name} has been {activity} for {self.patience:g} s"
            f"{' (it was stopped)' * bool(stopped)}.\n"
            "Expected: a sample within data.worker_timeout seconds (null: no limit).\n"
            f"Fix: check the disk or the network of the file.\n{_FIX}"
        )
        for worker in workers:
            worker.kill()

    def _fault_of(self, error: BaseException) -> HrsegError | None:
        """Return the error to raise instead of an error from torch; None: raise that one."""
        if isinstance(error, HrsegError):  # of a worker, after its traceback
            return type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip())
        if isinstance(error, OSError) and not self._workers:  # no memory, process or semaphore
            return DataError(
                f"{self.num_workers} data workers cannot be started: {error.strerror or error}.\n"
                "Expected: enough memory, processes and /dev/shm for them.\n"
                "Fix: lower data.workers; 0 loads in the main process."
            )
        if not isinstance(error, RuntimeError | OSError | EOFError) or self._hanging:
            return self._hanging if isinstance(error, Exception) else None
        # torch found a dead worker, or lost the memory of a batch with it.
        ready = wait([worker.sentinel for worker in self._workers], 2.0)
        for worker in self._workers:
            if worker.sentinel in ready:  # closed shortly before the exit code is known
                worker.join()
        return self._death()

    def _death(self) -> DataError | None:
        dead = [worker for worker in self._workers if worker.exitcode is not None]
        if not dead:
            return None
        name, activity = self._describe(dead)
        code = next(worker.exitcode for worker in dead if str(worker.pid) in name) or 0
        if code >= 0:
            ending, fix = f"exited by itself (exit code {code})", "See its output above."
        else:
            number = signal.Signals(-code).name
            ending = f"{'was killed' if number == 'SIGKILL' else 'crashed'} ({number})"
            fix = _ENDINGS.get(
                number, "A file or a library is damaged. Fix: `hrseg data check` reads every file."
            )
        return DataError(f"{name} {ending}, {activity}.\n{fix}\n{_FIX}")

    def _describe(self, workers: Iterable[BaseProcess]) -> tuple[str, str]:
        """Return the name and activity of a worker; prefer one that reads a sample."""
        samples = dict(zip(self._board[1::2], self._board[::2], strict=True))
        index, pid = max((samples.get(worker.pid, _STARTING), worker.pid) for worker in workers)
        name = f"Data worker (process {pid})"
        if index == _STARTING:
            return name, "starting"
        activity = "at" if index >= 0 else "sending a batch or waiting, after"
        index = max(index, ~index)
        return name, f"{activity} sample {index}: {cast(Any, self.dataset).label(index)}"

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join(1.0)
        self._workers = []
