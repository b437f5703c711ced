"""DataLoader that names the sample of a dead or hanging worker, and resumes inside an epoch."""

import atexit
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
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

LOOKS = 10  # checks of a worker's progress within its patience
STARTING = -(2**62)  # before the first sample
_SHM = "/dev/shm"
_REPAIR = "If it is the same file again, check that file: data.workers=0 reads in the main process."
ROOM = (
    f"Batches go through {_SHM}: give it more room (docker run --shm-size=2g) and more open files "
    "(ulimit -n 4096), or lower data.batch_size or data.workers; 0 needs none."
)

# Shared with the main process, two numbers per worker: its sample (complement: done), its process.
_desk: Any = None
_place = 0


def at(index: int) -> None:
    """Note the sample that this worker reads; in the main process nothing happens."""
    if _desk is not None:
        _desk[_place] = index


def start_worker(desk: Any, worker: int) -> None:
    """Prepare a worker: its place in `desk`, ignored signals, its end with the main process."""
    global _desk, _place
    _desk, _place = desk, 2 * worker
    _desk[_place : _place + 2] = [STARTING, os.getpid()]
    cv2.setNumThreads(0)  # OpenCV's threads deadlock in forked workers, and fight for the cores
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"):
        # A terminal and SLURM signal every process; only the main process answers, and saves.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    cast(Any, parent_process()).join()
    os._exit(1)


def collate_noted(collate: Callable[[Any], Any], samples: Any) -> Any:
    """Return the batch of `samples`; DataError: no shared memory for it."""
    if _desk is not None and _desk[_place] >= 0:
        _desk[_place] = ~_desk[_place]
    try:
        return collate(samples)
    except RuntimeError as error:
        if "shared memory" not in str(error):
            raise
        reason = str(error).rpartition(": ")[2]
        raise DataError(f"A data worker cannot pass on its batch: {reason}.\n{ROOM}") from error


def _kill_daemons() -> None:
    for process in active_children():
        if process.daemon:  # multiprocessing terminates them, and waits for one that hangs
            process.kill()


class WatchedLoader(DataLoader[T]):
    """A DataLoader that names the worker that died or hangs, and its sample.

    Its data set has `files`, (image, mask) paths by index, and calls `at` for each that it reads.
    A training sampler has `epoch` and `resume`.

    Raises:
        DataError: during iteration: a worker died, hangs, or cannot be started.
    """

    def __init__(self, dataset: Dataset[T], patience: float | None = None, **options: Any) -> None:
        """Take the arguments of a DataLoader.

        Args:
            dataset: the samples.
            patience: seconds without a finished sample after which a worker counts as hanging;
                None or 0: no limit. On Windows, and outside the main thread, there is none.
            options: arguments of DataLoader except `worker_init_fn` and `collate_fn`.
        """
        self.patience, self.epoch, self.done = patience or 0.0, 0, 0
        self._resumed: tuple[int, int] | None = None
        self._workers: list[BaseProcess] = []
        if count := options.get("num_workers", 0):
            cv2.setNumThreads(0)  # before the fork: a forked process cannot stop OpenCV's threads
            collate = default_convert if options.get("batch_size", 1) is None else default_collate
            self._desk: Any = RawArray("q", 2 * count)
            options["collate_fn"] = partial(collate_noted, collate)
            options["worker_init_fn"] = partial(start_worker, self._desk)
        super().__init__(dataset, **options)

    def __iter__(self) -> Iterator[T]:  # type: ignore[override]
        """Return the batches of the epoch of the sampler; workers begin to read at once."""
        return self._batches(self._epoch(), self._start())

    def _batches(self, epoch: int, batches: Iterator[T]) -> Iterator[T]:
        if epoch != self._epoch():  # Lightning sets the epoch after `iter` when it resumes
            epoch, batches = self._epoch(), self._start()
        resumed, done = self._resumed or (epoch, 0)
        self.epoch, self.done = epoch, done if resumed == epoch else 0
        end: Any = object()
        while True:
            with self._watching():
                batch = next(batches, end)
            if batch is end:
                return
            self.done += 1
            yield batch

    def place(self) -> dict[str, int]:
        """Return the place in the data: epoch, batches given out, and batches of an epoch."""
        return {"epoch": self.epoch, "done": self.done, "of": len(self)}

    def resume(self, state: dict[str, int]) -> None:
        """Begin the next iteration at a state of `place`.

        Raises:
            ConfigError: invalid, or inside an epoch that has another number of batches now.
        """
        try:
            epoch, done, of = (int(state[key]) for key in ("epoch", "done", "of"))
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"Invalid place in the data in the checkpoint: {state!r:.100}") from (
                error
            )
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
        if not self.persistent_workers:
            self._workers = []
        others = active_children()
        try:
            with self._watching():
                batches = super().__iter__()
        except OSError as error:  # no memory, no process, no semaphore
            raise DataError(
                f"Cannot start {self.num_workers} data workers: {error.strerror or error}.\n"
                f"They need memory, processes and {_SHM}. Lower data.workers; 0 loads in the "
                "main process."
            ) from error
        self._workers += set(active_children()).difference(others) if self.num_workers else ()
        atexit.unregister(_kill_daemons)
        atexit.register(_kill_daemons)  # before torch's, which waits 10 s for a hanging worker
        return batches

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Wait for workers: in here, and nowhere else, a dead or hanging one is an error."""
        if not self.num_workers:
            yield
            return
        handlers, still, seen = {}, 0, self._desk[:]
        fault: HrsegError | None = None

        def look(signum: int, *_: Any) -> None:
            nonlocal fault, still, seen
            if not self._workers:  # they are killed
                return
            if any(worker.exitcode for worker in self._workers):
                fault = self._died()
            elif signum == signal.SIGALRM:
                still, seen = (still + 1 if seen == self._desk[:] else 0), self._desk[:]
                fault = self._hangs() if still >= LOOKS else None
            if fault is not None:
                raise fault

        try:
            if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
                # torch's own handler raises wherever the main thread is, even while it saves.
                for signum in (signal.SIGCHLD, signal.SIGALRM):
                    handlers[signum] = signal.signal(signum, look)
                look(signal.SIGCHLD)
                signal.setitimer(signal.ITIMER_REAL, *2 * [self.patience / LOOKS])
            yield
        except BaseException as error:
            if fault is None and isinstance(error, RuntimeError | OSError | EOFError):
                # torch found a dead worker, or the memory of a batch is lost with one.
                wait([worker.sentinel for worker in self._workers], 2.0)
                if all(worker.exitcode is None for worker in self._workers):
                    raise
                fault = self._died()
            self._kill()
            if fault is None and isinstance(error, HrsegError):  # a worker's, after its traceback
                fault = type(error)(str(error).rpartition(f"{type(error).__name__}: ")[2].strip())
            if fault is None:
                raise
            raise fault from error
        finally:
            if handlers:
                signal.setitimer(signal.ITIMER_REAL, 0)
            for signum, handler in handlers.items():
                signal.signal(signum, handler or signal.SIG_DFL)

    def _hangs(self) -> DataError:
        states = {worker: psutil.Process(worker.pid).status() for worker in self._workers}
        stopped = [worker for worker, state in states.items() if state == psutil.STATUS_STOPPED]
        name, doing = self._name(stopped or self._workers)
        self._kill()
        return DataError(
            f"{name} has been {doing} for {self.patience:g} s{' (it was stopped)' * bool(stopped)}."
            "\nDoes the disk or the network of the file answer? data.worker_timeout sets the "
            f"seconds, null waits for ever.\n{_REPAIR}"
        )

    def _died(self) -> DataError:
        dead = [worker for worker in self._workers if worker.exitcode is not None]
        name, doing = self._name(dead)
        others = f", {len(dead) - 1} more with it" if len(dead) > 1 else ""
        code = next(worker.exitcode for worker in dead if str(worker.pid) in name) or 0
        self._kill()
        end, repair = _ending(code)
        return DataError(f"{name} {end}{others}, {doing}.\n{repair}\n{_REPAIR}")

    def _name(self, workers: Iterable[BaseProcess]) -> tuple[str, str]:
        """Return the name of a worker and its sample, of one that reads a sample if possible."""
        samples = dict(zip(self._desk[1::2], self._desk[::2], strict=True))
        index, pid = max((samples.get(worker.pid, STARTING), worker.pid) for worker in workers)
        name = f"data worker (process {pid})"
        if index == STARTING:
            return name, "starting"
        where = "at" if index >= 0 else "passing on a batch or waiting, done with"
        index = max(index, ~index)
        image, mask = cast(Any, self.dataset).files[index]
        return name, f"{where} sample {index}: {image}" + (f", mask {mask}" if mask else "")

    def _kill(self) -> None:
        workers, self._workers = self._workers, []  # their ends are no news
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.join(1.0)


def _ending(code: int) -> tuple[str, str]:
    """Return how a worker ended, and the repair."""
    if code >= 0:
        return f"ended by itself (exit code {code})", "See its output above."
    name = signal.Signals(-code).name
    repair = "A file is damaged, or a library is: `hrseg data check` reads every file."
    if name == "SIGBUS":
        repair = f"No room in {_SHM}, or a mapped file was cut short: hrseg data cache --verify."
        repair += f"\n{ROOM}"
    elif name == "SIGKILL":
        repair = "Most often the memory was full (`dmesg`): lower data.workers or data.batch_size."
    return f"{'was killed' if name == 'SIGKILL' else 'crashed'} ({name})", repair
