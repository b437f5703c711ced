"""Integrity of checkpoints: CRC32 checksums, and the previous checkpoint as a fallback.

`torch.save` writes a zip archive with a CRC32 for each record. `torch.load` does not check them.
"""

import time
import warnings
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

State = Literal["whole", "damaged", "unchecked"]

_FOLDER = 0x10  # attribute of a directory entry; torch does not read the content of such an entry
_SETTLED = 2  # seconds; the coarsest resolution of modification times among file systems
_states: dict[tuple[Any, ...], State] = {}


def state_of(path: Path) -> State:
    """Return the integrity of a checkpoint. The whole file is read once per process.

    The state is "unchecked" for files of torch before 1.6, which have no checksums.
    """
    status = path.stat()
    key = (path.absolute(), status.st_ino, status.st_size, status.st_mtime_ns)
    state = _states.get(key) or _read_state(path)
    if time.time() - status.st_mtime > _SETTLED:  # any later write changes the modification time
        _states[key] = state
    return state


def previous_of(path: Path) -> Path:
    """Return the path of the previous checkpoint: `last.ckpt` -> `last.previous.ckpt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def whole_checkpoint(path: Path) -> Path:
    """Return `path`, or the previous checkpoint with a warning if `path` is damaged or missing.

    Without an intact previous checkpoint the path is returned unchanged. Reading it then reports
    the damage.
    """
    previous = previous_of(path)
    if not previous.is_file():
        return path
    problem = state_of(path) if path.is_file() else "missing"
    if problem in ("whole", "unchecked") or state_of(previous) == "damaged":
        return path
    warnings.warn(
        f"{path} is {problem}. "
        f"Using the previous checkpoint, {previous.name}{_training_step(previous)}",
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
            # Refuse zip bombs: torch.save never compresses, and its records never share bytes.
            plain = plain and sum(e.file_size for e in entries) <= path.stat().st_size
            whole = plain and archive.testzip() is None and _is_loadable(path)
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        whole = False
    return "whole" if whole else "damaged"


def _is_loadable(path: Path) -> bool:
    """Return whether torch finds the records. The zip directory is not covered by checksums."""
    try:
        _load(path)
    except Exception as error:  # RuntimeError, KeyError, UnicodeDecodeError and others
        return "GLOBAL" in str(error)  # intact, but with code; `read_checkpoint` refuses it
    return True


def _training_step(path: Path) -> str:
    """Return " of epoch E, step S" for a readable checkpoint, otherwise an empty string."""
    with suppress(Exception):
        content = _load(path)
        return f" of epoch {int(content['epoch']) + 1}, step {int(content['global_step'])}"
    return ""


def _load(path: Path) -> Any:
    import torch  # slow to import, and needed only to read a file

    return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
