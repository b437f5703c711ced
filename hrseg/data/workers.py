"""DataLoader with supervised workers: a dead or hanging worker is an error with its sample."""

import atexit
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing import RawArray, process
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakSet, ref

import cv2
from torch._C import _remove_worker_pids
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils.collate import default_collate, default_convert
from torch.utils.data.dataloader import _BaseDataLoaderIter, _MultiProcessingDataLoaderIter

from hrseg.errors import DataError, HrsegError

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


T = TypeVar("T")

POLL = 1.0  # seconds between two looks at the workers
GRACE = 2.0  # seconds that workers get to leave
STOPPED = " (it was stopped)"
_SHM = Path("/dev/shm")


class WatchedLoader(DataLoader[T]):
    """A DataLoader that finds out which worker died or hangs, and at which sample.

    Its data set has `files`, (image, mask) paths by index, and calls `at` for each that it reads.

    Raises:
        DataError: while it is iterated over, a worker died, hangs, or cannot be started.
    """

    def __init__(self, dataset: Dataset[T], patience: float | None = None, **options: Any) -> None:
        """Take what a DataLoader takes.

        Args:
            dataset: what is loaded.
            patience: seconds that a worker may be at one sample while it is waited for; None or
                0: for ever.
            options: arguments of DataLoader; `worker_init_fn` and `collate_fn` are its own.
        """
        self.patience = patience or 0.0
        workers = options.get("num_workers", 0)
        self.desk: Any = RawArray("q", 2 * workers + 1) if workers else None
        if workers:
            cv2.setNumThreads(0)  # before the fork: a forked process cannot stop OpenCV's threads
            collate = default_convert if options.get("batch_size", 1) is None else default_collate
            options["collate_fn"] = partial(collate_noted, collate)
            options["worker_init_fn"] = partial(start_worker, self.desk)
        super().__init__(dataset, **options)

    def _get_iterator(self) -> _BaseDataLoaderIter:
        if not self.num_workers:
            return super()._get_iterator()
        try:
            return _Watch(self)
        except OSError as error:  # no memory, no process, no semaphore
            raise DataError(
                f"cannot start {self.num_workers} data workers: {error.strerror or error}.\n"
                f"They need memory, processes and {_shm()}. Lower data.workers; 0 loads in the "
                "main process."
            ) from error


class _Watch(_MultiProcessingDataLoaderIter):
    """torch's iterator, but for how it waits: it looks at the workers every second.

    torch raises from a signal handler wherever the main thread is when a worker dies, amid a
    checkpoint too. Its timeout goes on while a whole job is suspended, and is one for a batch of
    any size.
    """

    def __init__(self, loader: WatchedLoader[Any]) -> None:
        self._owner = os.getpid()
        self._workers: list[Any] = []
        self._workers_status = [True] * loader.num_workers
        self._shutdown = True  # there is nothing to shut down yet
        self._desk, self._patience = loader.desk, loader.patience
        self._files: Sequence[Any] = getattr(loader.dataset, "files", ())
        self._waiting, self._still, self._seen = False, 0.0, [0]
        self._verdict: DataError | None = None
        for worker in range(loader.num_workers):
            self._desk[2 * worker] = STARTING
        context = loader.multiprocessing_context or multiprocessing
        # Said, since a worker that starts late asks too late; a fork server stands between the two.
        self._desk[-1] = 0 if context.get_start_method() == "forkserver" else self._owner
        _watches.add(self)
        super().__init__(loader)
        _remove_worker_pids(id(self))  # from the list of torch's signal handler
        self._worker_pids_set = False
        if self._patience:
            threading.Thread(target=_watch_over, args=(ref(self),), daemon=True).start()

    def __next__(self) -> Any:
        try:
            return super().__next__()
        except HrsegError as error:
            raise type(error)(_message_of(error)) from error

    def _get_data(self) -> Any:
        self._waiting = True
        try:
            while self._verdict is None:
                found, data = self._try_get_data(POLL)  # type: ignore[no-untyped-call]
                if found:
                    return data
                if self._pin_memory and not self._pin_memory_thread.is_alive():
                    raise RuntimeError("the thread that pins memory has ended")
        except (RuntimeError, OSError, EOFError) as error:
            # torch has seen a dead worker, or the memory of a batch has gone with one.
            raise self._fault(error) from error
        finally:
            self._waiting = False
        self._end()
        raise self._verdict

    def _look(self) -> None:
        """Count how long the worker whose batch is the next one has made no progress."""
        if not self._waiting:
            return
        owed = self._task_info.get(self._rcvd_idx)
        worker = owed[0] if owed else None  # at the start of an epoch all of them are waited for
        progress = self._desk[:] if worker is None else self._desk[2 * worker : 2 * worker + 2]
        if progress != self._seen:
            self._seen, self._still = progress, 0.0
            return
        self._still += POLL
        if self._still >= self._patience:
            self._verdict = self._hanging(worker)
            self._kill()  # which wakes a main process that waits for a worker in another way

    def _hanging(self, owed: int | None) -> DataError:
        """Return what to raise for a worker that is waited for."""
        states = [_state(worker.pid) for worker in self._workers]
        worker = max(
            range(len(states)),
            key=lambda at: (states[at] == STOPPED, at == owed, self._desk[2 * at]),
        )
        return DataError(
            f"{self._name(worker)} has been {self._doing(worker)} for {self._still:.0f} s"
            f"{states[worker]}.\nIs the disk or the network that holds the file alive? "
            "data.worker_timeout sets the seconds, null waits for ever.\n"
            f"{_AGAIN}"
        )

    def _fault(self, error: Exception) -> Exception:
        """Return what to raise for an error of torch's: who died, of what, at which sample."""
        deadline = time.monotonic() + 2 * POLL
        if self._verdict:
            self._end()
            return self._verdict
        while not (dead := self._dead()) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not dead:
            return error
        worker = max(dead, key=lambda place: self._desk[2 * place])
        code = int(self._workers[worker].exitcode)
        others = f", {len(dead) - 1} more with it" if len(dead) > 1 else ""
        self._end()
        end, repair = _ending(code)
        return DataError(
            f"{self._name(worker)} {end}{others}, {self._doing(worker)}.\n{repair}\n{_AGAIN}"
        )

    def _dead(self) -> list[int]:
        return [place for place, worker in enumerate(self._workers) if not worker.is_alive()]

    def _name(self, worker: int) -> str:
        return f"data worker {worker} (process {self._workers[worker].pid})"

    def _doing(self, worker: int) -> str:
        index = int(self._desk[2 * worker])
        if index == STARTING:
            return "starting"
        where = "at" if index >= 0 else "passing on a batch or waiting, done with"
        index = max(index, ~index)
        image, mask = self._files[index]
        return f"{where} sample {index}: {image}" + (f", mask {mask}" if mask else "")

    def _kill(self) -> None:
        if os.getpid() == self._owner:  # not in a process that inherited this object
            for worker in self._workers:
                worker.kill()

    def _end(self) -> None:
        self._kill()
        for worker in self._workers:
            worker.join(POLL)

    def _shutdown_workers(self) -> None:
        """End the workers; those that hang, or are stopped, are killed."""
        if self._shutdown or os.getpid() != self._owner:
            return
        late = threading.Timer(GRACE, self._kill)
        late.daemon = True
        late.start()
        try:
            super()._shutdown_workers()
        finally:
            late.cancel()


def _message_of(error: HrsegError) -> str:
    """Return the message of an error from a worker, without torch's "Caught ... in" traceback."""
    return str(error).rpartition(f"{type(error).__name__}: ")[2].strip()


def _watch_over(watch: Callable[[], _Watch | None]) -> None:
    """Look at workers as long as there are any; in a thread, since what waits can be stuck.

    Counts its looks, not the clock, which goes on while a job is suspended.
    """
    while (alive := watch()) is not None and not alive._shutdown:
        alive._look()
        del alive
        time.sleep(POLL)


_watches: WeakSet[_Watch] = WeakSet()


@atexit.register
def _end_all() -> None:
    """End workers that are left at the end of the process; multiprocessing would wait for them."""
    for watch in list(_watches):
        if os.getpid() == watch._owner:
            watch._end()
            watch._shutdown = True
            # One that the kernel cannot end, at a dead disk, holds up nobody else.
            process._children.difference_update(watch._workers)  # type: ignore[attr-defined]


_AGAIN = "Where it is the same file again, look at that: data.workers=0 reads in the main process."


def _ending(code: int) -> tuple[str, str]:
    """Return how a worker ended, and what to do about it."""
    if code >= 0:
        return f"ended by itself (exit code {code})", "No worker should: see what it printed above."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGBUS":
        cause = f"No room in {_shm()}, or a mapped file was cut short: hrseg data cache --verify."
        return f"crashed ({name})", f"{cause}\n{ROOM}"
    if name in ("SIGSEGV", "SIGABRT", "SIGFPE", "SIGILL"):
        return f"crashed ({name})", (
            "The file is damaged in a way that its reader cannot take, or a library is: "
            "`hrseg data check` reads every file."
        )
    return f"was killed ({name})", (
        "Most often the memory was full (`dmesg` tells): lower data.workers or data.batch_size."
    )


def _shm() -> str:
    try:
        room = shutil.disk_usage(_SHM)
    except OSError:
        return str(_SHM)
    return f"{_SHM} ({room.free / 2**20:,.0f} of {room.total / 2**20:,.0f} MiB free)"


def _state(pid: int) -> str:
    """Return what Linux says of a process that does not go on."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", errors="replace").rpartition(") ")[2]
    except OSError:
        return ""
    return {"T": STOPPED, "D": " (it waits for a disk or a network)"}.get(state[0], "")
