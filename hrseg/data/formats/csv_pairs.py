"""CSV of pairs: a table with the path of an image and of its index mask in each line."""

import csv
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from hrseg.data.datasets.folder import read_classes
from hrseg.data.formats.annotations import Annotation, Annotations, IntArray, fault, split_of
from hrseg.data.formats.reading import ImageFinder, first_line, no_duplicates, no_images, read_text
from hrseg.data.formats.roboflow import looked_up
from hrseg.data.images import SUFFIXES
from hrseg.data.masks import Palette, read_index_mask
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

NAME = "csv"
TITLE = "CSV of image, mask pairs"
SIGNATURE = ".csv files with the columns image, mask, and possibly split"
_IMAGES = ("image", "images", "image_path", "img", "filename", "file", "path")
_MASKS = ("mask", "masks", "mask_path", "label", "labels", "label_path", "annotation")
_Row = tuple[Path, Path, str, Path]  # image, mask, split, table


def recognise(root: Path) -> bool:
    """Return whether the folder has a CSV file with images and masks."""
    return bool(_tables(root))


def read(root: Path) -> Annotations:
    """Return the masks of all tables in the folder; each may be a split.

    The class names are in classes.json or classes.txt. Without them, they are class_0, class_1,
    ... up to the highest id in the masks.

    Raises:
        DataError: a missing file, or an unknown id in a mask.
    """
    finder = ImageFinder(root)
    rows = [row for path in _tables(root) for row in _rows(path, finder)]
    if not rows:
        no_images(root, TITLE)
    masks = [mask for _, mask, _, _ in rows]
    names, palette, table, warnings = _classes(root, masks)
    items = [
        Annotation(image, mask, split, ids=partial(looked_up, mask, table))
        for image, mask, split, _ in rows
    ]
    return Annotations(no_duplicates(names, root), items, palette, warnings)


def _tables(root: Path) -> list[Path]:
    return [path for path in sorted(root.glob("*.csv")) if _columns(path) is not None]


def _columns(path: Path) -> tuple[str, int, int, int | None] | None:
    """Return the delimiter, and the positions of image, mask and split; None: another table."""
    line = first_line(path)
    delimiter = max(",;\t", key=line.count)
    words = [word.strip().lower() for word in next(csv.reader([line], delimiter=delimiter), [])]
    if len(words) > 1 and all(word.endswith(SUFFIXES) for word in words[:2]):
        return delimiter, 0, 1, None  # without a header
    image, mask = (next((words.index(n) for n in known if n in words), None) for known in _HEADER)
    split = words.index("split") if "split" in words else None
    return None if image is None or mask is None else (delimiter, image, mask, split)


_HEADER = (_IMAGES, _MASKS)


def _rows(path: Path, finder: ImageFinder) -> Iterator[_Row]:
    """Yield image, mask and split of each line."""
    columns = _columns(path)
    assert columns is not None
    delimiter, image, mask, split = columns
    lines = read_text(path).splitlines()
    for number, words in enumerate(csv.reader(lines, delimiter=delimiter), 1):
        header = number == 1 and not words[image].strip().lower().endswith(SUFFIXES)
        if header or not words:
            continue
        if len(words) <= max(image, mask, split or 0):
            raise fault(path, f"line {number} has {len(words)} columns", "image and mask")
        files = [finder.find(words[column].strip(), path) for column in (image, mask)]
        part = path.stem if split is None else words[split]
        yield files[0], files[1], split_of(part), path


def _classes(
    root: Path, masks: Sequence[Path]
) -> tuple[Sequence[str], Palette | None, IntArray, tuple[str, ...]]:
    """Return class names, palette, the table id -> class, and warnings."""
    table = np.full(256, -2, np.int16)
    table[IGNORE_INDEX] = IGNORE_INDEX
    try:
        names, palette = read_classes(root)
    except DataError:
        if (root / "classes.json").is_file():
            raise
        names, palette = [], None
    if names:
        table[: len(names)] = np.arange(len(names))
        return names, palette, table, ()
    ids = sorted({int(value) for mask in masks for value in np.unique(read_index_mask(mask))})
    if ids == [0, IGNORE_INDEX]:
        table[[0, IGNORE_INDEX]] = 0, 1
        warning = "the masks contain only 0 and 255, which are read as background and foreground"
        return ["background", "foreground"], None, table, (warning,)
    highest = max((key for key in ids if key != IGNORE_INDEX), default=-1)
    names = [f"class_{key}" for key in range(highest + 1)]
    table[: len(names)] = np.arange(len(names))
    warning = f"no classes.txt: the {len(names)} classes are named class_0, class_1, ..."
    return names, None, table, (warning,)
