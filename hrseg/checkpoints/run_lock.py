"""Lock of a run folder: only one training writes into it at a time."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hrseg.checkpoints.runs import is_first_process
from hrseg.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_NAME = ".lock"


@contextmanager
def locked_run(run: Path) -> Iterator[None]:
    """Lock a run folder for this process, the first of its training.

    The system releases the lock when the process ends, however it ends: a lock cannot be stale.
    POSIX record locks are not inherited by data workers, and work on NFS. A file system without
    locks, and Windows, train without one.

    Raises:
        ConfigError: another process trains in this folder.
    """
    if fcntl is None or not is_first_process():
        yield
        return
    with (run / _NAME).open("a+") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "unknown"
            raise ConfigError(
                f"{run}: another process trains in this run folder ({owner}).\n"
                "Fix: wait until it ends or stop it, then resume; or start a new run."
            ) from None
        except OSError:
            yield
            return
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        try:
            yield
        finally:
            (run / _NAME).unlink(missing_ok=True)
