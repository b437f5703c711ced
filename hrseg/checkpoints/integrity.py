"""Integrity of checkpoints: a checksum inside the file, and the previous file as a fallback.

The seal is a zip comment behind what `torch.save` wrote: the sha256 of all bytes before the two
that hold the comment's length. Any reader of zips passes over it.
"""

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

from hrseg.utils.files import sync

State = Literal["whole", "damaged", "unsealed"]

_SEAL = re.compile(rb"hrseg sha256 ([0-9a-f]{64})")
SEAL_BYTES = len(b"hrseg sha256 ") + 64
_LENGTH = SEAL_BYTES.to_bytes(2, "little")  # of the comment, as a zip says it before it
_END = b"PK\5\6"  # of a zip's last record, of 22 bytes
_STARTS = (b"PK\3\4", b"\x80")  # of torch.save's files, today's and those before torch 1.6


class SealingFile:
    """What `torch.save` can write into: hashes on the way, then seals.

    Attributes:
        fault: what ended a write, a full disk or a signal; torch tells of it in words of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Take the open, empty file."""
        self.file, self.fault = file, None  # type: BinaryIO, BaseException | None
        self._sum, self._held = hashlib.sha256(), b""

    def write(self, data: bytes | memoryview) -> int:
        """Write, and hash all but the last two bytes so far."""
        try:
            self.file.write(data)
            held = self._held + bytes(data[-2:])
            if len(data) > 1:
                self._sum.update(self._held)
                self._sum.update(data[:-2])
            else:
                self._sum.update(held[:-2])
            self._held = held[-2:]
        except BaseException as error:
            self.fault = self.fault or error
            raise
        return len(data)

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()

    def seal(self) -> None:
        """Write the seal, and wait until the disk has all of it."""
        self.file.seek(-2, os.SEEK_END)
        seal = b"hrseg sha256 " + self._sum.hexdigest().encode()
        self.file.write(_LENGTH + seal)
        self.file.flush()
        sync(self.file.fileno())


def state_of(path: Path) -> State:
    """Return whether a checkpoint is as it was written, by reading all of it.

    A file without a seal (the authors', Lightning's, hrseg's before its seals) is only known to be
    damaged where its end or its beginning is missing.
    """
    with path.open("rb") as file:
        start, size = file.read(4), file.seek(0, os.SEEK_END)
        if seal := seal_of(file):
            file.seek(0)
            same = _digest(file, size - SEAL_BYTES - 2) == seal and file.read(2) == _LENGTH
            return "whole" if same else "damaged"
        file.seek(max(size - 22, 0))
        end = file.read(22)
    ends = start != _STARTS[0] or (end.startswith(_END) and end.endswith(b"\0\0"))
    return "unsealed" if ends and start.startswith(_STARTS) else "damaged"


def seal_of(file: BinaryIO) -> bytes | None:
    """Return the digest that stands at the end of an open file, in hexadecimal; None: no seal."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SEAL_BYTES, 0))
    seal = _SEAL.fullmatch(file.read(SEAL_BYTES))
    return seal[1] if seal else None


def previous_of(path: Path) -> Path:
    """Return where the file before `path` is kept: `last.ckpt` -> `last.previous.ckpt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def whole_checkpoint(path: Path) -> Path:
    """Return a checkpoint, or the one before it where it is damaged or gone, with a word.

    A path without a sound one before it is returned as it is: what is wrong with it is the
    reader's to say.
    """
    previous = previous_of(path)
    if not previous.is_file():
        return path
    fault = state_of(path) if path.is_file() else "not there"
    if fault in ("whole", "unsealed") or state_of(previous) == "damaged":
        return path
    warnings.warn(
        f"{path} is {fault}: the one before it is taken, {previous.name}{_moment(previous)}",
        stacklevel=3,
    )
    return previous


def whole_ones_beside(path: Path) -> list[Path]:
    """Return the sealed checkpoints in the folder of `path` that are as they were written."""
    others = (other for other in sorted(path.parent.glob("*.ckpt")) if other.is_file())
    return [other for other in others if other != path and state_of(other) == "whole"]


def _moment(path: Path) -> str:
    """Return epoch and step of a checkpoint for a message; "" if they cannot be read."""
    import torch  # heavy, and only needed after a checkpoint was damaged

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        return f" of epoch {int(content['epoch']) + 1}, step {int(content['global_step'])}"
    except Exception:
        return ""


def _digest(file: BinaryIO, length: int) -> bytes:
    total = hashlib.sha256()
    while length > 0 and (part := file.read(min(length, 2**22))):
        total.update(part)
        length -= len(part)
    return total.hexdigest().encode()
