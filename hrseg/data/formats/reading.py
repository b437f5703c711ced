"""Readers that the formats share: JSON files, coordinates, and image files inside the source."""

import json
import os
import reprlib
from collections.abc import Sequence
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from hrseg.data.formats.annotations import FloatArray, fault
from hrseg.data.images import SUFFIXES
from hrseg.data.pairing import raise_unlisted
from hrseg.errors import DataError
from hrseg.utils.text import one_line

LARGEST = 2**30  # bytes of an annotation file
FARTHEST = 2**24  # pixels of a coordinate


def read_text(path: Path) -> str:
    """Return the text of an annotation file, UTF-8 with or without a byte order mark.

    Raises:
        DataError: an unreadable file, more than 1 GiB, or another encoding.
    """
    if not path.is_file():
        raise fault(path, "the file does not exist, or is not a regular file", "a text file")
    if path.stat().st_size > LARGEST:
        size = f"{path.stat().st_size / 2**30:,.1f} GiB exceed the limit of 1 GiB"
        raise fault(path, size, "an annotation file", "split the file into several files.")
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise fault(path, f"byte {error.start:,} is not UTF-8", "text in UTF-8") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file.

    Raises:
        DataError: as `read_text`, or invalid JSON.
    """
    text = read_text(path)
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise fault(path, f"invalid JSON in {where}: {error.msg}", "a JSON file") from error
    except (RecursionError, ValueError) as error:  # too many brackets, or digits of a number
        raise fault(path, f"invalid JSON: {error}", "a JSON file") from error


def has_keys(path: Path, keys: Sequence[str]) -> bool:
    """Return whether a JSON file contains all keys at any depth; quick, without parsing."""
    try:
        if not path.is_file():  # a pipe would block
            return False
        with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
            return all(content.find(f'"{key}"'.encode()) >= 0 for key in keys)
    except (OSError, ValueError):  # unreadable, or empty
        return False


def head(path: Path, count: int) -> bytes:
    """Return the first bytes of a file; b"" if it is unreadable, or a pipe, which would block."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(count)
    except OSError:
        return b""


def first_line(path: Path) -> str:
    """Return the first line of a text file, at most 10,000 characters; "" if unreadable."""
    try:
        if not path.is_file():
            return ""
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return file.readline(10_000)
    except OSError:
        return ""


def field(content: Any, key: str, kind: type | tuple[type, ...], source: Path, subject: str) -> Any:
    """Return `content[key]`, of type `kind`; `subject` names `content` in the message.

    Raises:
        DataError: `content` is not an object, or the key is missing or has another type.
    """
    value = content.get(key) if isinstance(content, dict) else None
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        state = "is missing" if value is None else f"has the value {one_line(reprlib.repr(value))}"
        kinds = kind if isinstance(kind, tuple) else (kind,)
        names = " or ".join(_JSON_NAMES.get(name, name.__name__) for name in kinds)
        raise fault(source, f'the key "{key}" of {subject} {state}', f"a value of type {names}")
    return value


_JSON_NAMES = {dict: "object", list: "array", str: "string", int: "integer", float: "number"}


def ring(values: Any, source: Path, subject: str) -> FloatArray:
    """Return the points of a polygon, (N, 2): x, y in pixels.

    Args:
        values: x1, y1, x2, y2, ..., or pairs x, y: lists or an array.
        source: annotation file, for messages.
        subject: name of the object in messages.

    Raises:
        DataError: fewer than three points, or values that are not finite numbers.
    """
    points = points_of(values, source, subject)
    if len(points) < 3:
        raise fault(source, f"{subject} has {len(points)} points", "at least three points")
    return points


def points_of(values: Any, source: Path, subject: str) -> FloatArray:
    """Return points (N, 2) as `ring` does, of any number."""
    try:
        array = np.asarray(values, np.float64)
        points = array.reshape(-1, 2)
    except (TypeError, ValueError, OverflowError) as error:
        raise fault(source, f"{subject} has coordinates that are not pairs of numbers",
                    "pairs x, y of numbers") from error  # fmt: skip
    if array.ndim not in (1, 2) or (array.ndim == 2 and array.shape[1] != 2):
        raise fault(source, f"{subject} has coordinates of shape {array.shape}", "pairs x, y")
    if not (np.abs(points) < FARTHEST).all():  # also NaN
        wrong = points[~(np.abs(points) < FARTHEST).all(1)][0].tolist()
        raise fault(source, f"{subject} has the coordinates {wrong}", "finite pixel coordinates")
    return points


def box(values: Any, source: Path, subject: str) -> list[float]:
    """Return the four numbers of a box; DataError for other values."""
    if not isinstance(values, list) or len(values) != 4:
        raise fault(source, f"{subject} has neither an outline nor a box", "an outline")
    return [float(value) for value in points_of(values, source, subject).ravel()]


class ImageFinder:
    """Finder of the image files that annotation files name, never outside of the source folder."""

    def __init__(self, root: Path) -> None:
        """Remember the folder; its files are listed on the first use of `find`."""
        self.root = Path(os.path.abspath(root))

    def find(self, name: str, source: Path, *folders: Path) -> Path:
        """Return the file of a name in an annotation file.

        The name is tried relative to `folders`, to the folder of the annotation file, to the
        source folder, and to its folder "images". Else a file with this base name is searched below
        the source folder.

        Args:
            name: absolute or relative path, also of Windows.
            source: annotation file.
            folders: folders to try first.

        Raises:
            DataError: no such file, or several files with this base name.
        """
        if path := self.optional(name, source, *folders):
            return path
        outside = not self._inside(source.parent / _posix(name))
        where = "points outside of" if outside else "does not exist in"
        raise fault(
            source,
            f"the image {one_line(name)!r} {where} {self.root}",
            "an image file in this folder",
            "add the image, or remove its entry.",
        )

    def optional(self, name: str, source: Path, *folders: Path) -> Path | None:
        """Return the file as `find`, or None if it is missing."""
        relative = _posix(name)
        for folder in (*folders, source.parent, self.root, self.root / "images"):
            path = Path(os.path.normpath(Path(os.path.abspath(folder)) / relative))
            if "\0" not in name and self._inside(path) and path.is_file():
                return path
        return self._by_base_name(relative.rpartition("/")[2], source)

    def _inside(self, path: Path) -> bool:
        return Path(os.path.abspath(path)).is_relative_to(self.root)

    def _by_base_name(self, base: str, source: Path) -> Path | None:
        paths = self._files.get(base, ())
        if len(paths) > 1:
            shown = " and ".join(one_line(str(path)) for path in paths[:2])
            raise fault(
                source,
                f"{len(paths)} files have the name of the image {one_line(base)!r}: {shown}",
                "one file of this name, or a path relative to the source folder",
            )
        return paths[0] if paths else None

    @cached_property
    def _files(self) -> dict[str, list[Path]]:
        files: dict[str, list[Path]] = {}
        for path in files_below(self.root):
            files.setdefault(path.name, []).append(path)
        return files


def files_below(root: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Return the files below a folder with one of the suffixes, sorted, without hidden files."""
    paths: list[Path] = []
    for parent, folders, names in os.walk(root, onerror=raise_unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        paths += [
            Path(parent, name)
            for name in sorted(names)
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in suffixes
        ]
    return paths


def no_duplicates(names: Sequence[str], source: Path) -> tuple[str, ...]:
    """Return stripped class names in their order, each once.

    Raises:
        DataError: an empty name, a name of several lines, or of more than 200 characters.
    """
    stripped = dict.fromkeys(name.strip() for name in names)
    for name in stripped:
        if not name or one_line(name) != name or len(name) > 200:
            raise fault(source, f"a class has the name {one_line(name)!r}",
                        "one line of 1 to 200 printable characters")  # fmt: skip
    return tuple(stripped)


def no_images(root: Path, title: str) -> NoReturn:
    """Raise the DataError of annotation files without any image."""
    raise DataError(
        f"{one_line(str(root))} has {title} files, but none of them has an annotated image.\n"
        "Expected: at least one image. Fix: export the data set again from the annotation tool."
    )


def _posix(name: str) -> str:
    return name.replace("\\", "/")
