"""Formats of annotation tools: COCO, LabelMe, YOLO, CVAT and others, read for `hrseg data import`.

Each format is a module with `NAME`, `TITLE`, `SIGNATURE` (the files by which it is recognised),
`recognise(root) -> bool` and `read(root) -> Annotations`.
"""

from pathlib import Path
from typing import Protocol

from hrseg.data.formats import (
    coco,
    csv_pairs,
    cvat,
    label_studio,
    labelme,
    roboflow,
    supervisely,
    voc,
    yolo,
)
from hrseg.data.formats.annotations import Annotations


class Format(Protocol):
    """Reader of the annotation files of one tool."""

    NAME: str
    TITLE: str
    SIGNATURE: str

    def recognise(self, root: Path) -> bool:
        """Return whether the files below a folder have this format; quick, and never raises."""
        ...

    def read(self, root: Path) -> Annotations:
        """Return the annotations below a folder; DataError for damaged files."""
        ...


# In the order of recognition: the strictest signatures first.
FORMATS: tuple[Format, ...] = (
    coco,
    labelme,
    cvat,
    supervisely,
    label_studio,
    voc,
    roboflow,
    yolo,
    csv_pairs,
)


def recognise(root: Path) -> str | None:
    """Return the name of the first format that recognises a folder, or None."""
    return next((form.NAME for form in FORMATS if form.recognise(root)), None)
