"""Atomic writes: a file has its old or its new content, never a part of it."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hrseg.errors import ConfigError

PARTIAL = ".partial-"
FULL = (errno.ENOSPC, errno.EDQUOT)
_ROOM = 2**24  # bytes; with less free space, a failed write counts as a full disk


@contextmanager
def replacing(
    path: Path, durable: bool = False, previous: Path | None = None, writer: str = ""
) -> Iterator[Path]:
    """Yield a path to write to, and rename it to `path` unless an error is raised.

    Args:
        path: the file to replace.
        durable: wait for the disk, so that the change survives a power failure.
        previous: path to which the old file is renamed; None: the old file is removed.
        writer: name of this process, unique among processes that may write `path` at once.

    Raises:
        ConfigError: the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{PARTIAL}{writer}{path.name}")
    partial.unlink(missing_ok=True)  # of a killed process, or a link to another file
    link = None
    try:
        yield partial
        if durable:
            with partial.open("rb+") as file:
                sync(file.fileno())
        if previous and path.exists():
            link = _second_name(path, previous)
        os.replace(partial, path)
        # Only now: the old `path` may be damaged, and `previous` the only valid file.
        if previous and link:
            os.replace(link, previous)
        if durable:
            _sync_folder(path.parent)
    except BaseException as error:
        for temporary in filter(None, (partial, link)):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in FULL:
            raise _full_disk(path) from error
        raise


def write_bytes(path: Path, data: bytes, durable: bool = False, writer: str = "") -> None:
    """Write a file atomically, by `replacing`."""
    with replacing(path, durable, writer=writer) as partial:
        partial.write_bytes(data)


def write_json(path: Path, content: Any, indent: int | None = 1, writer: str = "") -> None:
    """Write a JSON file atomically, by `replacing`."""
    write_bytes(path, json.dumps(content, indent=indent).encode(), writer=writer)


def check_output(option: str, path: Path, keys: Collection[str] = ()) -> None:
    """Check before the work that an output file can be written and replaces only its own kind.

    Args:
        option: the option of the file, for messages.
        path: the file.
        keys: top-level keys of hrseg's JSON in this file, which an existing file must have.
            Without keys the caller checks an existing file.

    Raises:
        ConfigError: `path` is a folder, a file of another kind, or in a read-only folder.
    """
    if path.is_dir():
        raise ConfigError(
            f"{option} {path} is a folder.\nExpected: a file to write. Fix: {option} {path}/FILE"
        )
    if keys and not (is_empty(path) or set(keys) <= read_object(path).keys()):
        raise other_kind(option, path)
    folder = next(parent for parent in path.absolute().parents if parent.is_dir())
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ConfigError(
            f"{path} cannot be written: {folder}: {error.strerror}.\n"
            f"Expected: a folder that can be written to. Fix: {option} OTHER_FILE"
        ) from error


def is_empty(path: Path) -> bool:
    """Return whether a file is missing or has no bytes, so that it can be overwritten."""
    return not path.exists() or path.stat().st_size == 0


def other_kind(option: str, path: Path) -> ConfigError:
    """Return the error of an existing output file of another program."""
    return ConfigError(
        f"{option} {path} exists and is a file of another kind. It was not overwritten.\n"
        f"Expected: a new file, or the output of an earlier call. Fix: {option} OTHER_FILE"
    )


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; {} for a missing file or other content."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def sync(handle: int) -> None:
    """Wait until a file is on the disk, on file systems that support it."""
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def cannot_write(path: Path, reason: str) -> ConfigError:
    """Return the error of a failed write of `path`: a full disk, or the library's reason."""
    path = path.with_name(path.name.removeprefix(PARTIAL))
    if shutil.disk_usage(path.parent).free < _ROOM:
        return _full_disk(path)
    return ConfigError(f"{path} could not be written: {reason}")


def _second_name(path: Path, previous: Path) -> Path | None:
    """Return a new hard link to `path`, or None if `path` was renamed to `previous` instead."""
    name = previous.with_name(f"{PARTIAL}{previous.name}")
    name.unlink(missing_ok=True)
    try:
        os.link(path, name)
    except OSError:  # FAT, some network folders; `path` is missing for a moment
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
    return ConfigError(
        f"no space left to write {path}.\n"
        "Expected: free disk space. Fix: remove files, or choose another disk."
    )
