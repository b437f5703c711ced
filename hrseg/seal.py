"""Checkpoints that say whether they are whole: a seal inside the file, and the file before it.

The seal is a zip comment behind what `torch.save` wrote: the sha256 of all bytes before the two
that hold the comment's length. Any reader of zips passes over it.
"""

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import BinaryIO, Literal

State = Literal["whole", "damaged", "unsealed"]

_SEAL = re.compile(rb"hrseg sha256 ([0-9a-f]{64})")
SEAL_BYTES = len(b"hrseg sha256 ") + 64
_TAIL = 2 + SEAL_BYTES  # the length of the comment, and the comment
_END = b"PK\5\6"  # of a zip's last record, of 22 bytes
_STARTS = (b"PK\3\4", b"\x80")  # of torch.save's files, today's and those before torch 1.6


class SealingFile:
    """What `torch.save` can write into: hashes on the way, then seals.

    Attributes:
        fault: what the disk said to a write; torch tells of it in words of its own.
    """

    def __init__(self, file: BinaryIO) -> None:
        """Take the open, empty file."""
        self.file, self.fault = file, None  # type: BinaryIO, OSError | None
        self._sum, self._held = hashlib.sha256(), b""

    def write(self, data: bytes | memoryview) -> int:
        """Write, and hash all but the last two bytes so far."""
        try:
            self.file.write(data)
        except OSError as error:
            self.fault = self.fault or error
            raise
        held = self._held + bytes(data[-2:])
        if len(data) > 1:
            self._sum.update(self._held)
            self._sum.update(data[:-2])
        else:
            self._sum.update(held[:-2])
        self._held = held[-2:]
        return len(data)

    def flush(self) -> None:
        """Flush the file."""
        self.file.flush()

    def seal(self) -> None:
        """Write the seal, and wait until the disk has all of it."""
        self.file.seek(-2, os.SEEK_END)
        seal = b"hrseg sha256 " + self._sum.hexdigest().encode()
        self.file.write(len(seal).to_bytes(2, "little") + seal)
        self.file.flush()
        os.fsync(self.file.fileno())


def state_of(path: Path) -> State:
    """Return whether a checkpoint is as it was written, by reading all of it.

    A file without a seal (the authors', Lightning's, hrseg's before its seals) is only known to be
    damaged where its end or its beginning is missing.
    """
    with path.open("rb") as file:
        start, size = file.read(4), file.seek(0, os.SEEK_END)
        if seal := seal_of(file):
            file.seek(0)
            return "whole" if _digest(file, size - _TAIL) == seal else "damaged"
        file.seek(max(size - 22, 0))
        zip_without_end = start == _STARTS[0] and file.read(4) != _END
    return "damaged" if zip_without_end or not start.startswith(_STARTS) else "unsealed"


def seal_of(file: BinaryIO) -> bytes | None:
    """Return the digest that stands at the end of an open file, in hexadecimal; None: no seal."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - SEAL_BYTES, 0))
    seal = _SEAL.fullmatch(file.read())
    return seal[1] if seal else None


def previous_of(path: Path) -> Path:
    """Return where the file before `path` is kept: `last.ckpt` -> `last.previous.ckpt`."""
    return path.with_name(f"{path.stem}.previous{path.suffix}")


def whole_checkpoint(path: Path) -> Path:
    """Return a checkpoint, or the one before it where it is damaged or gone, with a word."""
    previous = previous_of(path)
    if not previous.is_file():
        return path  # what is wrong with it is the reader's to say
    fault = state_of(path) if path.is_file() else "not there"
    if fault in ("whole", "unsealed") or state_of(previous) != "whole":
        return path
    warnings.warn(f"{path} is {fault}: the one before it is taken, {previous}", stacklevel=2)
    return previous


def _digest(file: BinaryIO, length: int) -> bytes:
    total = hashlib.sha256()
    while length > 0 and (part := file.read(min(length, 2**22))):
        total.update(part)
        length -= len(part)
    return total.hexdigest().encode()
