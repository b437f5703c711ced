"""Atomic writes: a file has its old content or its new one, never half of it."""

import errno
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hrseg.errors import ConfigError

PARTIAL = ".partial-"
FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = 2**24  # bytes: with less, a library's failure to write is taken for a full disk


@contextmanager
def replacing(path: Path, durable: bool = False, previous: Path | None = None) -> Iterator[Path]:
    """Give a path to write to, and rename it to `path` unless an error is raised.

    Args:
        path: the file.
        durable: wait for the disk, so that the change outlasts a loss of power.
        previous: path that keeps the old file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{path.name}")
    partial.unlink(missing_ok=True)  # left by a killed process, or a link that leads elsewhere
    kept = None
    try:
        yield partial
        if durable:
            with partial.open("rb+") as file:
                sync(file.fileno())
        if previous and path.exists():
            kept = _second_name(path, previous)
        os.replace(partial, path)
        # Not before: `path` may be damaged, and `previous` the only good file.
        if previous and kept:
            os.replace(kept, previous)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        for left in filter(None, (partial, kept)):
            left.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise _full_disk(path) from error
        raise


def write_bytes(path: Path, data: bytes, durable: bool = False) -> None:
    """Write a file as `replacing` does."""
    with replacing(path, durable) as partial:
        partial.write_bytes(data)


def write_json(path: Path, content: Any, indent: int | None = 1) -> None:
    """Write JSON at once, as `replacing` does."""
    write_bytes(path, json.dumps(content, indent=indent).encode())


def sync(handle: int) -> None:
    """Wait until the disk has all of a file, on file systems that support it."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def cannot_write(path: Path, reason: str) -> ConfigError:
    """Return the error of a library that could not write `path`: a full disk, or its reason."""
    path = path.with_name(path.name.removeprefix(PARTIAL))
    if shutil.disk_usage(path.parent).free < _ROOM:
        return _full_disk(path)
    return ConfigError(f"{path} could not be written: {reason}")


def _second_name(path: Path, previous: Path) -> Path | None:
    """Return a hard link to `path`; None: it was renamed to `previous`."""
    name = previous.with_name(f"{PARTIAL}{previous.name}")
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:  # FAT, some network folders: `path` is missing for a moment
        os.replace(path, previous)
        return None
    return name


def _sync_folder(folder: Path) -> None:
    with suppress(OSError):  # Windows, some network folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _full_disk(path: Path) -> ConfigError:
    return ConfigError(f"no space left to write {path}: free some, or choose another disk.")
