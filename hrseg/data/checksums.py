"""Manifest of the sha256 checksums of a data set, in the format of `sha256sum -c`."""

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hrseg.data.images import open_file, printable_path
from hrseg.errors import ConfigError, DataError
from hrseg.utils.files import write_bytes

NAME = "hrseg.sha256"  # in the root of a data set


@dataclass(frozen=True)
class Manifest:
    """Checksums: `digests` maps names relative to `root`, with slashes, to hexadecimal sha256."""

    path: Path
    root: Path
    digests: dict[str, str]

    @classmethod
    def read(cls, path: Path, root: Path) -> "Manifest":
        """Read a manifest; raise ConfigError for a missing file or an invalid line."""
        try:
            lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise ConfigError(
                f"data.manifest: {path.absolute()} cannot be read: {error.strerror}.\n"
                "Expected: a manifest of the data set. Fix: `hrseg data check --hash` writes it."
            ) from error
        digests = {}
        for number, line in enumerate(lines, 1):
            if not line:
                continue
            match = re.fullmatch(r"\\?([0-9a-f]{64})  (.+)", line)
            if not match:
                raise ConfigError(
                    f"{path}, line {number} is invalid.\n"
                    "Expected: a sha256, two spaces and a name.\n"
                    "Fix: remove the file; `hrseg data check --hash` writes it again."
                )
            name = _unescape(match[2]) if line.startswith("\\") else match[2]
            digests[os.path.normpath(name).replace(os.sep, "/")] = match[1]
        return cls(path, root, digests)

    def compare(self, file: Path, digest: str) -> None:
        """Compare the sha256 of a file; raise DataError if it differs or is missing."""
        expected = self.digests.get(_name(file, self.root))
        if digest != expected:
            fault = "is not in" if expected is None else "has changed: its bytes differ from"
            raise DataError(
                f"{printable_path(file)} {fault} the manifest {self.path}.\n"
                "Expected: the files of the time when the manifest was written.\n"
                "Fix: copy the file again. If it is right, remove the manifest; "
                "`hrseg data check --hash` writes it again."
            )


def write_manifest(path: Path, root: Path, digests: Iterable[tuple[Path, str]]) -> None:
    """Write the manifest of files and their sha256, each name once, sorted."""
    lines = {_name(file, root): digest for file, digest in digests}
    text = "".join(_line(name, lines[name]) for name in sorted(lines))
    try:
        write_bytes(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ConfigError(
            f"The manifest {path.absolute()} cannot be written: {error.strerror}.\n"
            "Expected: a file in a writable folder. Fix: data.manifest=FILE"
        ) from error


def digest_of(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal; DataError if it cannot be read."""
    with open_file(file) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _line(name: str, digest: str) -> str:
    # sha256sum escapes backslashes and newlines, and marks the line with a backslash.
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{chr(92) * (escaped != name)}{digest}  {escaped}\n"


def _unescape(name: str) -> str:
    parts = name.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)


def _name(file: Path, root: Path) -> str:
    return os.path.relpath(file, root).replace(os.sep, "/")
