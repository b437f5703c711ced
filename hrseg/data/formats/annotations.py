"""Annotations of a data set in the form that all formats share: images, shapes and class names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrseg.errors import DataError
from hrseg.utils.text import one_line

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int16]
BoolArray = npt.NDArray[np.bool_]
Polygon = tuple[FloatArray, ...]
UNLABELLED = -1  # in `Annotation.ids`
_SPLITS = {"train": "train(?:ing)?", "val": "val(?:id(?:ation)?)?", "test": "test(?:ing)?"}


@dataclass(frozen=True)
class Shape:
    """One object of an image: the union of its polygons and its mask.

    Coordinates are x, y in pixels. (0, 0) is the upper left corner of the upper left pixel, so that
    the centre of this pixel is (0.5, 0.5).

    Attributes:
        label: name of the class.
        polygons: each is a tuple of rings (N, 2), filled by the even-odd rule, so that a ring
            inside another is a hole. Shapes are the union of their polygons.
        mask: pixels of the object (h, w), for run lengths and brushes.
        corner: row and column of the upper left pixel of `mask` in the image.
        ignore: the pixels are ignored (id 255), for example a crowd.
        layer: shapes of a higher layer are drawn over those of a lower one, of whatever size.
    """

    label: str
    polygons: tuple[Polygon, ...] = ()
    mask: BoolArray | None = None
    corner: tuple[int, int] = (0, 0)
    ignore: bool = False
    layer: int = 0


@dataclass(frozen=True)
class Annotation:
    """The labels of one image: `shapes` or `ids`, read when they are needed.

    Attributes:
        image: file of the image.
        source: annotation file, for messages and `import.json`.
        split: "train", "val", "test" or "" (see `split_of`).
        shapes: (height, width) -> the objects of the image.
        ids: (height, width) -> position in the class names of each pixel (height, width), -1
            for unlabelled and 255 for ignored pixels.
        size: (height, width) of the image in the annotation file; None: not stated.
        data: content of the image if it is embedded in the annotation file; `image` is its name.
    """

    image: Path
    source: Path
    split: str = ""
    shapes: Callable[[int, int], Sequence[Shape]] | None = None
    ids: Callable[[int, int], IntArray] | None = None
    size: tuple[int, int] | None = None
    data: Callable[[], bytes] | None = None


@dataclass(frozen=True)
class Annotations:
    """All annotations of a data set.

    Attributes:
        class_names: different names, in the order of the ids. Shapes use these names.
        items: the labels of each image.
        palette: RGB colour of each class; None: the default colours.
        warnings: texts for the user, one line each.
    """

    class_names: tuple[str, ...]
    items: Sequence[Annotation]
    palette: tuple[tuple[int, int, int], ...] | None = None
    warnings: tuple[str, ...] = ()


def split_of(name: str) -> str:
    """Return "train", "val" or "test" for the name of a split, a folder or a list, else "".

    Examples:
        >>> [split_of(name) for name in ("instances_train2017", "Validation", "photos")]
        ['train', 'val', '']
    """
    for split, pattern in _SPLITS.items():
        if re.search(rf"(?<![a-z])(?:{pattern})(?![a-z])", name, re.I):
            return split
    return ""


def fault(source: Path, message: str, expected: str, fix: str = "") -> DataError:
    """Return the error of an annotation file: the file and the fault, the expectation, the fix."""
    fix = fix or "correct the file, or export it again from the annotation tool."
    return DataError(f"{one_line(str(source))}: {message}.\nExpected: {expected}.\nFix: {fix}")
