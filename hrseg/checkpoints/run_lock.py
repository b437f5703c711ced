"""Lock file of a run folder, so that only one training at a time writes into it."""

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
    """Lock a run folder for this process, if it is the first process of the training.

    The system releases the lock when the process ends, even if it is killed. Locks are therefore
    never stale. POSIX record locks are not inherited by data workers, and they work on NFS.
    Windows and file systems without locks train without one.

    Raises:
        ConfigError: if another process trains in this folder.
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
                "Expected: one training per run folder.\n"
                "Fix: wait until that process ends or stop it, then resume; or start a new run."
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
