"""Roboflow semantic masks: an index mask beside each image, and the classes in _classes.csv."""

import csv
from functools import partial
from pathlib import Path

import numpy as np

from hrseg.data.formats.annotations import (
    UNLABELLED,
    Annotation,
    Annotations,
    IntArray,
    fault,
    split_of,
)
from hrseg.data.formats.reading import files_below, first_line, no_duplicates, no_images, read_text
from hrseg.data.masks import read_index_mask
from hrseg.utils.constants import IGNORE_INDEX

NAME = "roboflow"
TITLE = "Roboflow semantic masks"
SIGNATURE = "_classes.csv with the header Pixel Value, Class, and masks NAME_mask.png"
_CLASSES = "_classes.csv"
_SUFFIX = "_mask"


def recognise(root: Path) -> bool:
    """Return whether the folder, or a folder in it, has a _classes.csv of pixel values."""
    return bool(_lists(root))


def read(root: Path) -> Annotations:
    """Return the masks beside all lists of classes.

    Raises:
        DataError: a damaged list, or an image without a mask.
    """
    lists = _lists(root)
    names = no_duplicates([name for path in lists for name in _values(path).values()], lists[0])
    items = [item for path in lists for item in _annotations(root, path, names)]
    if not items:
        no_images(root, TITLE)
    return Annotations(names, items)


def _lists(root: Path) -> list[Path]:
    paths = sorted([*root.glob(_CLASSES), *root.glob(f"*/{_CLASSES}")])
    return [path for path in paths if first_line(path).lower().startswith("pixel value")]


def _values(path: Path) -> dict[int, str]:
    """Return pixel value -> class name."""
    values = {}
    rows = csv.reader(read_text(path).splitlines()[1:], skipinitialspace=True)
    for number, row in enumerate(rows, 2):
        if not row:
            continue
        if len(row) != 2 or not row[0].strip().isdecimal() or int(row[0]) > 255:
            raise fault(path, f"line {number} is not a pixel value and a class",
                        "lines such as: 1, road")  # fmt: skip
        values[int(row[0])] = row[1].strip()
    return values


def _annotations(root: Path, path: Path, names: tuple[str, ...]) -> list[Annotation]:
    table = np.full(256, -2, np.int16)
    table[IGNORE_INDEX] = IGNORE_INDEX
    for value, name in _values(path).items():
        table[value] = names.index(name)
    files = sorted(file for file in files_below(path.parent) if file.parent == path.parent)
    masks = {file.stem: file for file in files if file.stem.endswith(_SUFFIX)}
    split = split_of(path.parent.name) if path.parent != root else ""
    items = []
    for image in files:
        if image.stem in masks:
            continue
        if (mask := masks.get(f"{image.stem}{_SUFFIX}")) is None:
            message = f"the image {image.name} has no mask {image.stem}{_SUFFIX}.png"
            raise fault(path, message, "a mask beside each image", "add it, or remove the image.")
        items.append(Annotation(image, mask, split, ids=partial(looked_up, mask, table)))
    return items


def looked_up(mask: Path, table: IntArray, height: int, width: int) -> IntArray:
    """Return the entries of a table for the values of an index mask.

    Args:
        mask: PNG file with ids.
        table: 256 entries: positions in the class names, 255, -1, or -2 for unknown values.
        height: unused: the caller checks the size of the result.
        width: unused.

    Raises:
        DataError: an unreadable mask, or unknown values.
    """
    values = read_index_mask(mask)
    ids = table[values]
    if (ids < UNLABELLED).any():
        wrong = int(values[ids < UNLABELLED][0])
        raise fault(mask, f"the mask has the unknown value {wrong}", "values of listed classes")
    return ids
