"""YOLO polygons: data.yaml, folders of images, and a .txt label file per image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from hrseg.data.formats.annotations import Annotation, Annotations, FloatArray, Shape, fault
from hrseg.data.formats.reading import (
    ImageFinder,
    files_below,
    no_duplicates,
    no_images,
    read_text,
)
from hrseg.errors import DataError
from hrseg.utils.text import one_line

NAME = "yolo"
TITLE = "YOLO polygons"
SIGNATURE = "data.yaml with the keys names and train, and .txt label files"
_SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_MARGIN = 0.01  # tolerance of relative coordinates beyond 0..1


@dataclass
class _Reader:
    """State of reading one data set."""

    path: Path  # of data.yaml
    finder: ImageFinder
    names: dict[int, str]
    warnings: list[str] = field(default_factory=list)
    unlabelled: int = 0  # images without a label file
    boxes: int = 0


def recognise(root: Path) -> bool:
    """Return whether a folder has a YAML file with class names and a split."""
    return _config_of(root) is not None


def read(root: Path) -> Annotations:
    """Return the polygons of all splits in data.yaml.

    Raises:
        DataError: a damaged file, an unknown class, or coordinates that are not relative.
    """
    config = _config_of(root)
    if config is None:
        raise DataError(
            f"{one_line(str(root))} has no valid data.yaml.\n"
            "Expected: a YAML file with the keys names and train. Fix: add it, as YOLO tools do."
        )
    path, content = config
    reader = _Reader(path, ImageFinder(root), _names(content["names"], path))
    items = [
        _annotation(reader, image, split)
        for key, split in _SPLITS.items()
        if content.get(key)
        for image in _images(reader, content, key)
    ]
    if not items:
        no_images(root, TITLE)
    if reader.unlabelled:
        reader.warnings.append(f"{reader.unlabelled} images have no label file: no objects")
    if reader.boxes:
        reader.warnings.append(f"{reader.boxes} objects have no outline: drawn as boxes")
    names = no_duplicates(list(reader.names.values()), path)
    return Annotations(names, items, warnings=tuple(reader.warnings))


def _config_of(root: Path) -> tuple[Path, dict[str, Any]] | None:
    """Return the first YAML file in the folder with names and a split, and its content."""
    for path in sorted([*root.glob("*.yaml"), *root.glob("*.yml")]):
        try:
            content = yaml.safe_load(read_text(path))
        except (yaml.YAMLError, DataError, RecursionError, ValueError):
            continue
        if isinstance(content, dict) and "names" in content and content.keys() & _SPLITS.keys():
            return path, content
    return None


def _names(names: Any, path: Path) -> dict[int, str]:
    """Return class id -> name of a list, or of a mapping."""
    named = dict(enumerate(names)) if isinstance(names, list) else names
    if not isinstance(named, dict) or not all(
        isinstance(key, int) and isinstance(name, str | int | float) for key, name in named.items()
    ):
        raise fault(path, "the key names has no class names", "a list, or a mapping id: name")
    return {key: str(named[key]).strip() for key in sorted(named)}


def _images(reader: _Reader, content: dict[str, Any], key: str) -> list[Path]:
    """Return the images of a split: below folders, or in lists of paths."""
    places = content[key] if isinstance(content[key], list) else [content[key]]
    images: list[Path] = []
    for place in places:
        if not isinstance(place, str):
            raise fault(reader.path, f"the key {key} has no path", "a folder, a list, or a .txt")
        path = _place(reader, content.get("path"), place)
        if path is None:
            reader.warnings.append(f"{key}: {one_line(place)} does not exist: omitted")
        elif path.is_dir():
            images += files_below(path)
        else:
            lines = filter(None, map(str.strip, read_text(path).splitlines()))
            images += [reader.finder.find(line, path, reader.path.parent) for line in lines]
    return list(dict.fromkeys(images))


def _place(reader: _Reader, base: Any, place: str) -> Path | None:
    """Return the folder or list of a split inside the source folder, or None.

    Tools write paths relative to the folder `path`, to data.yaml, or to its parent ("../train").
    """
    root = reader.path.parent.absolute()
    parts = PurePosixPath(place.replace("\\", "/")).parts
    inner = [part for part in parts if part not in ("..", "/")]
    candidates = [root / (base if isinstance(base, str) else ".") / place, root / place]
    candidates += [root.joinpath(*inner[-count:]) for count in (len(inner), 2, 1) if inner]
    for candidate in candidates:
        path = Path(os.path.normpath(candidate))
        if path.is_relative_to(root) and path.exists():
            return path
    return None


def _annotation(reader: _Reader, image: Path, split: str) -> Annotation:
    label = _label_file(image, reader.finder.root)
    rows: list[tuple[str, FloatArray]] = []
    if label.is_file():
        rows = _rows(reader, label)
    else:
        reader.unlabelled += 1
    source = label if label.is_file() else reader.path
    return Annotation(image, source, split, partial(_shapes, rows))


def _label_file(image: Path, root: Path) -> Path:
    """Return the label file: the last folder "images" below the source becomes "labels"."""
    parts = list(Path(os.path.abspath(image)).relative_to(root).parts)
    for index in reversed(range(len(parts) - 1)):
        if parts[index] == "images":
            parts[index] = "labels"
            break
    return root.joinpath(*parts).with_suffix(".txt")


def _rows(reader: _Reader, path: Path) -> list[tuple[str, FloatArray]]:
    """Return class name and relative points (N, 2) of each line of a label file."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not (words := line.split()):
            continue
        try:
            key, values = int(words[0]), np.array(words[1:], np.float64)
        except ValueError as error:
            raise fault(path, f"line {number} is not a row of numbers", _ROW) from error
        if key not in reader.names:
            raise fault(path, f"line {number} has the unknown class {key}",
                        f"a class of {reader.path.name}")  # fmt: skip
        if len(values) != 4 and (len(values) < 6 or len(values) % 2):
            raise fault(path, f"line {number} has {len(words)} numbers", _ROW)
        if not ((values >= -_MARGIN) & (values <= 1 + _MARGIN)).all():  # also NaN
            raise fault(path, f"line {number} has a coordinate outside of 0 to 1", _ROW)
        reader.boxes += len(values) == 4
        points = _corners(values) if len(values) == 4 else values.reshape(-1, 2)
        rows.append((reader.names[key], points))
    return rows


_ROW = "a class id and relative coordinates x, y of at least three points"


def _corners(values: FloatArray) -> FloatArray:
    """Return the corners (4, 2) of a box: x and y of its centre, width, height."""
    x, y, width, height = values
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    corners: FloatArray = np.array([x, y]) + signs * np.array([width, height]) / 2
    return corners


def _shapes(rows: Sequence[tuple[str, FloatArray]], height: int, width: int) -> list[Shape]:
    return [Shape(label, ((points * (width, height),),)) for label, points in rows]
