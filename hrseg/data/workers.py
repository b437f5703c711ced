"""DataLoader that names the sample of a dead or hanging worker, and resumes inside an epoch."""

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

T = TypeVar("T")
R = TypeVar("R")

_SIGCHLD = getattr(signal, "SIGCHLD", None)  # Windows has none
_LOOKS = 10  # checks of a worker's progress within its patience
_STARTING = -(2**62)  # before the first sample
_REPAIR = "If it is the same file again, check that file: data.workers=0 reads in the main process."
_ROOM = (
    "Batches go through /dev/shm: give it more room (docker run --shm-size=2g) and more open files "
    "(ulimit -n 4096), or lower data.batch_size or data.workers; 0 needs none."
)
_ENDINGS = {
    "SIGBUS": "No room in /dev/shm, or a mapped file was cut short: hrseg data cache --verify."
    f"\n{_ROOM}",
    "SIGKILL": "Most often the memory was full (`dmesg`): lower data.workers or data.batch_size.",
}

# Shared with the main process. Two numbers per worker: its sample (complement: done), its process.
_board: Any = None
_slot = 0


def at(index: int) -> None:
    """Note the sample that this worker reads; no effect in the main process."""
    if _board is not None:
        _board[_slot] = index


def _start_worker(board: Any, worker: int) -> None:
    global _board, _slot
    _board, _slot = board, 2 * worker
    _board[_slot : _slot + 2] = [_STARTING, os.getpid()]
    cv2.setNumThreads(0)  # OpenCV's threads deadlock in forked workers, and fight for the cores
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        # A terminal and SLURM signal every process; only the main process answers, and saves.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    sys.excepthook = _unless_parent_died
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _unless_parent_died(*error: Any) -> None:
    # The thread that passes on batches may meet the end of the parent before `_leave_with_parent`.
    parent = cast(Any, parent_process())
    parent.join(1.0)
    if parent.is_alive():
        sys.__excepthook__(*error)


def _leave_with_parent() -> None:
    cast(Any, parent_process()).join()
    os._exit(1)


def _collate(collate: Callable[[Any], Any], samples: Any) -> Any:
    if _board is not None and _board[_slot] >= 0:
        _board[_slot] = ~_board[_slot]
    try:
        return collate(samples)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        reason = str(error).rpartition(": ")[2]
        raise DataError(f"A data worker cannot pass on its batch: {reason}.\n{_ROOM}") from error


def _kill_daemons() -> None:
    for process in active_children():
        if process.daemon:  # multiprocessing terminates them, and waits for one that hangs
            process.kill()


class WatchedLoader(DataLoader[T]):
    """A DataLoader that names the worker that died or hangs, and its sample, in a DataError.

    Its data set has `label`, index -> text, and calls `at` for each sample that it reads.
    A training sampler has `epoch` and `resume`.
    """

    def __init__(self, dataset: Dataset[T], patience: float | None = None, **options: Any) -> None:
        """Take the arguments of a DataLoader except `worker_init_fn` and `collate_fn`.

        A worker hangs after `patience` seconds without a finished sample; None or 0: never.
        """
        self.patience, self.epoch, self.done = patience or 0.0, 0, 0
        self._resumed: tuple[int, int] | None = None
        self._workers: list[BaseProcess] = []
        self._hanging: DataError | None = None
        if count := options.get("num_workers", 0):
            cv2.setNumThreads(0)  # before the fork: a forked process cannot stop OpenCV's threads
            collate = default_convert if options.get("batch_size", 1) is None else default_collate
            self._board: Any = RawArray("q", 2 * count)
            options["collate_fn"] = partial(_collate, collate)
            options["worker_init_fn"] = partial(_start_worker, self._board)
        super().__init__(dataset, **options)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Return the batches of the sampler's epoch; workers begin to read at once."""
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
        """Return the position in the data: epoch, batches given out, batches per epoch."""
        return {"epoch": self.epoch, "done": self.done, "of": len(self)}

    def resume(self, state: dict[str, int]) -> None:
        """Begin the next iteration at a position that `position` returned.

        ConfigError: inside an epoch that has another number of batches now.
        """
        epoch, done, of = state["epoch"], state["done"], state["of"]
        if 0 < done < of != len(self):
            raise ConfigError(
                f"The state lies {done} batches into epoch {epoch + 1}, of {of} batches; now an "
                f"epoch has {len(self)}.\nUntil that epoch has ended keep the images, "
                "data.batch_size and trainer.accumulate_grad_batches of the start."
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
            # torch's handler raises wherever the main thread is, even while it saves.
            signal.signal(_SIGCHLD, handler or signal.SIG_DFL)
        self._workers += set(active_children()).difference(others)
        atexit.unregister(_kill_daemons)
        atexit.register(_kill_daemons)  # before torch's, which waits 10 s for a hanging worker
        return batches

    def _watched(self, wait_for: Callable[[], R]) -> R:
        """Wait for workers; turn a dead or hanging one into an error that names its sample."""
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
        """Kill the workers when none of them makes progress, so that torch stops waiting."""
        workers, still, seen = self._workers, 0, self._board[:]
        while still < _LOOKS:
            if done.wait(self.patience / _LOOKS):
                return
            still, seen = (still + 1 if seen == self._board[:] else 0), self._board[:]
        if wait([worker.sentinel for worker in workers], 0):  # torch finds the dead one
            return
        states = {worker: psutil.Process(worker.pid).status() for worker in workers}
        stopped = [worker for worker, state in states.items() if state == psutil.STATUS_STOPPED]
        name, doing = self._name(stopped or workers)
        self._hanging = DataError(
            f"{name} has been {doing} for {self.patience:g} s{' (it was stopped)' * bool(stopped)}."
            "\nDoes the disk or the network of the file answer? data.worker_timeout sets the "
            f"seconds, null waits for ever.\n{_REPAIR}"
        )
        for worker in workers:
            worker.kill()

    def _fault_of(self, error: BaseException) -> HrsegError | None:
        """Return the error to raise for one that passed through torch; None: that one."""
        if isinstance(error, HrsegError):  # a worker's, after its traceback
            return type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip())
        if isinstance(error, OSError) and not self._workers:  # no memory, process or semaphore
            return DataError(
                f"Cannot start {self.num_workers} data workers: {error.strerror or error}.\n"
                "They need memory, processes and /dev/shm. Lower data.workers; 0 loads in the "
                "main process."
            )
        if not isinstance(error, RuntimeError | OSError | EOFError) or self._hanging:
            return self._hanging if isinstance(error, Exception) else None
        # torch found a dead worker, or the memory of a batch was lost with one.
        ready = wait([worker.sentinel for worker in self._workers], 2.0)
        for worker in self._workers:
            if worker.sentinel in ready:  # closed a moment before there is an exit code
                worker.join()
        return self._died()

    def _died(self) -> DataError | None:
        dead = [worker for worker in self._workers if worker.exitcode is not None]
        if not dead:
            return None
        name, doing = self._name(dead)
        code = next(worker.exitcode for worker in dead if str(worker.pid) in name) or 0
        if code >= 0:
            ending, repair = f"ended by itself (exit code {code})", "See its output above."
        else:
            number = signal.Signals(-code).name
            ending = f"{'was killed' if number == 'SIGKILL' else 'crashed'} ({number})"
            repair = _ENDINGS.get(
                number, "A file is damaged, or a library is: `hrseg data check` reads every file."
            )
        return DataError(f"{name} {ending}, {doing}.\n{repair}\n{_REPAIR}")

    def _name(self, workers: Iterable[BaseProcess]) -> tuple[str, str]:
        """Return the name of a worker and its sample; prefer one that reads a sample."""
        samples = dict(zip(self._board[1::2], self._board[::2], strict=True))
        index, pid = max((samples.get(worker.pid, _STARTING), worker.pid) for worker in workers)
        name = f"data worker (process {pid})"
        if index == _STARTING:
            return name, "starting"
        doing = "at" if index >= 0 else "passing on a batch or waiting, done with"
        index = max(index, ~index)
        return name, f"{doing} sample {index}: {cast(Any, self.dataset).label(index)}"

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()
        for worker in self._workers:
            worker.join(1.0)
        self._workers = []
