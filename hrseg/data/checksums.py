"""Checksums of a data set: a manifest of sha256 sums that `sha256sum -c` reads as well."""

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from hrseg.data.images import named, open_file
from hrseg.errors import ConfigError, DataError
from hrseg.utils.files import write_bytes

NAME = "hrseg.sha256"  # in the root of a data set


@dataclass(frozen=True)
class Manifest:
    """What the files below a folder were when they were looked at.

    Attributes:
        path: of the manifest.
        root: the folder that its names start from.
        digests: name with slashes -> sha256 in hexadecimal.
    """

    path: Path
    root: Path
    digests: dict[str, str]

    @classmethod
    def read(cls, path: Path, root: Path) -> "Manifest":
        """Read a manifest.

        Raises:
            ConfigError: it is not there, or a line is none of a manifest.
        """
        try:
            lines = path.read_bytes().decode("utf-8", "surrogateescape").split("\n")
        except OSError as error:
            raise ConfigError(
                f"data.manifest: cannot read {path.absolute()}: {error.strerror}.\n"
                "`hrseg data check --hash` writes it."
            ) from error
        digests = {}
        for number, line in enumerate(lines, 1):
            digest, gap, name = line.removeprefix("\\").partition("  ")
            if not line:
                continue
            if not gap or len(digest) != 64 or set(digest) - set("0123456789abcdef"):
                raise ConfigError(
                    f"{path}, line {number}: expected a sha256, two blanks and a name.\n"
                    "Remove the file and let `hrseg data check --hash` write it again."
                )
            name = _unescaped(name) if line[0] == "\\" else name
            digests[os.path.normpath(name).replace(os.sep, "/")] = digest
        return cls(path, root, digests)

    def check(self, file: Path) -> None:
        """Read a file and compare it with its line; errors as `compare`."""
        self.compare(file, digest_of(file))

    def compare(self, file: Path, digest: str) -> None:
        """Compare the sha256 of a file with its line.

        Raises:
            DataError: it has other bytes, or no line.
        """
        name = name_below(file, self.root)
        said = self.digests.get(name)
        if said is None:
            raise DataError(
                f"{named(file)} is not in the manifest {self.path}: it came later.\n"
                "If it is right, remove the manifest: `hrseg data check --hash` writes it again."
            )
        if digest != said:
            raise DataError(
                f"{named(file)} has changed: its bytes are not those in the manifest {self.path}.\n"
                "Copy the file again. If the new one is right, remove the manifest and let "
                "`hrseg data check --hash` write it again."
            )


def write_manifest(path: Path, root: Path, digests: Iterable[tuple[Path, str]]) -> None:
    """Write the manifest of files with their sha256, sorted by name, each once.

    Raises:
        ConfigError: it cannot be written there.
    """
    lines = {name_below(file, root): digest for file, digest in digests}
    text = "".join(_line(name, lines[name]) for name in sorted(lines))
    try:
        write_bytes(path, text.encode("utf-8", "surrogateescape"))
    except OSError as error:
        raise ConfigError(
            f"cannot write the manifest {path.absolute()}: {error.strerror}.\n"
            "Say another place: data.manifest=FILE"
        ) from error


def digest_of(file: Path) -> str:
    """Return the sha256 of a file in hexadecimal.

    Raises:
        DataError: it cannot be read, or is no file that could be an image.
    """
    with open_file(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def name_below(file: Path, root: Path) -> str:
    """Return the path of a file from the root, with slashes; of one elsewhere with `..`."""
    return os.path.relpath(file, root).replace(os.sep, "/")


def _line(name: str, digest: str) -> str:
    escaped = name.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
    return f"{'' if escaped == name else chr(92)}{digest}  {escaped}\n"


def _unescaped(name: str) -> str:
    parts = name.split("\\\\")
    return "\\".join(part.replace("\\n", "\n").replace("\\r", "\r") for part in parts)
