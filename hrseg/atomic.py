"""Files that are whole or not there."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hrseg.errors import ConfigError

PARTIAL = ".partial-"
_ROOM = 2**24  # bytes: with less, what a library could not write had no room


@contextmanager
def replacing(path: Path, previous: Path | None = None) -> Iterator[Path]:
    """Give a path to write to; what was written takes the place of `path` when all went well.

    A reader sees the old file or the new one; after an error nothing half-written is left.

    Args:
        path: the file.
        previous: where the old file is kept; with it the change also outlasts a loss of power.

    Raises:
        ConfigError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    try:
        yield partial
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(partial, path)
        if previous is not None:
            _sync_folder(path.parent)
    except BaseException as error:
        partial.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full_disk(path) from error
        raise


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file at once, as `replacing` does."""
    with replacing(path) as partial:
        partial.write_bytes(data)


def cannot_write(path: Path, reason: str) -> ConfigError:
    """Return the error of a library that could not write `path`: a full disk, or its reason."""
    path = path.with_name(path.name.removeprefix(PARTIAL))
    if shutil.disk_usage(path.parent).free < _ROOM:
        return _full_disk(path)
    return ConfigError(f"{path} could not be written: {reason}")


def _keep(path: Path, previous: Path) -> None:
    """Let `previous` be what `path` is now; at no moment is there neither."""
    link = previous.with_name(f"{PARTIAL}{previous.name}")
    link.unlink(missing_ok=True)
    try:
        os.link(path, link)
    except OSError:  # FAT, some network folders: then by a copy
        shutil.copyfile(path, link)
    os.replace(link, previous)


def _sync_folder(folder: Path) -> None:
    """Wait until the disk knows the names in a folder, where the system can tell it to."""
    with suppress(OSError):  # Windows, some network folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _full_disk(path: Path) -> ConfigError:
    return ConfigError(f"no space left to write {path}: free some, or choose another disk.")
