"""Integrity of checkpoints: CRC32 checksums, and the previous file as a fallback.

`torch.save` writes a zip archive with a CRC32 of each record; `torch.load` does not compare them.
"""

import time
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

State = Literal["whole", "damaged", "unchecked"]

_FOLDER = 0x10  # attribute of a zip entry for which torch reads no content
_SETTLED = 2  # seconds: the coarsest clock of a file system
_states: dict[tuple[Any, ...], State] = {}


def state_of(path: Path) -> State:
    """Return whether a checkpoint is as it was written, by reading all of it once per process.

    A file of torch before 1.6 has no checksums; it is "unchecked".
    """
    status = path.stat()
    key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
    state = _states.get(key) or _read_state(path)
    if time.time() - status.st_mtime > _SETTLED:  # a later write has a later time
        _states[key] = state
    return state


def previous_of(path: Path) -> Path:
    """Return the path of the file before `path`: `last.ckpt` -> `last.previous.ckpt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def whole_checkpoint(path: Path) -> Path:
    """Return a checkpoint, or with a warning the previous one if it is damaged or missing.

    A path without an intact previous file is returned unchanged; its reader reports the damage.
    """
    previous = previous_of(path)
    if not previous.is_file():
        return path
    fault = state_of(path) if path.is_file() else "missing"
    if fault in ("whole", "unchecked") or state_of(previous) == "damaged":
        return path
    warnings.warn(
        f"{path} is {fault}. Using the previous checkpoint, {previous.name}{_moment(previous)}",
        stacklevel=3,
    )
    return previous


def whole_ones_beside(path: Path) -> list[Path]:
    """Return the intact checkpoints in the folder of `path`."""
    others = (other for other in sorted(path.parent.glob("*.ckpt")) if other.is_file())
    return [other for other in others if other != path and state_of(other) == "whole"]


def _read_state(path: Path) -> State:
    with path.open("rb") as file:
        start = file.read(4)
    if start != b"PK\3\4":
        return "unchecked" if start.startswith(b"\x80") else "damaged"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            plain = not any(e.compress_type or e.external_attr & _FOLDER for e in entries)
            # No zip bomb: torch.save never compresses, and no two records share their bytes.
            plain = plain and sum(e.file_size for e in entries) <= path.stat().st_size
            whole = plain and archive.testzip() is None and _opens(path)
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        whole = False
    return "whole" if whole else "damaged"


def _opens(path: Path) -> bool:
    """Return whether torch finds the records of an archive: no checksum covers its directory."""
    try:
        _load(path)
    except Exception as error:  # nearly any: RuntimeError, KeyError, UnicodeDecodeError
        return "GLOBAL" in str(error)  # intact, but with more than data; the reader refuses it
    return True


def _moment(path: Path) -> str:
    with suppress(Exception):
        content = _load(path)
        return f" of epoch {int(content['epoch']) + 1}, step {int(content['global_step'])}"
    return ""


def _load(path: Path) -> Any:
    import torch  # slow to import, and only needed to read a file

    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
