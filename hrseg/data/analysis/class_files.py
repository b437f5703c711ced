"""Class names, ids and colours from the files of annotation tools: labelmap.txt, _classes.csv."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from hrseg.data.datasets.folder import read_classes

Color = tuple[int, int, int]

_LARGEST = 10**6  # bytes of a file
_NAME = r"(?P<name>[^,:;\t]*[^\W\d][^,:;\t]*?)"
_COLOR = r"(?P<red>\d{1,3})[\s,;]+(?P<green>\d{1,3})[\s,;]+(?P<blue>\d{1,3})"
_ROWS = tuple(
    re.compile(row)
    for row in (
        rf"(?:(?P<id>\d+)[\s,:;]+)?{_NAME}\s*[\s,:;]\s*{_COLOR}\b\D*",  # CVAT, class_dict.csv
        rf"(?:(?P<id>\d+)[\s,:;]+)?{_COLOR}[\s,:;]+{_NAME}\s*",  # label_colors.txt of CamVid
        r"(?P<id>\d+)[\s,:;]+(?:[\d.]+\s+)*(?P<name>.*[^\W\d].*)",  # Roboflow, objectInfo150.txt
        rf"{_NAME}[\s,:;=]+(?P<id>\d+)",
    )
)


@dataclass(frozen=True)
class ClassList:
    """Classes of a file next to the images.

    Attributes:
        names: the names by raw id; "" for an id without a name.
        palette: the RGB colours of the names, or None.
        file: the file, or None.
    """

    names: Sequence[str] = ()
    palette: Sequence[Color] | None = None
    file: Path | None = None


def find_class_list(root: Path) -> ClassList:
    """Return the classes of the first readable file in root, or in a folder below it.

    The order is: classes.json, classes.txt, and text files in which each line has a name, and a
    number or a colour, such as CVAT's labelmap.txt, Roboflow's _classes.csv, class_dict.csv and
    objectInfo150.txt. Numbers that begin at 1 make id 0 "unlabelled".

    Raises:
        DataError: classes.json is invalid.
    """
    for name in ("classes.json", "classes.txt"):
        if (root / name).is_file():
            names, colors = read_classes(root)
            return ClassList(names, colors, root / name)
    files = [path for pattern in ("*.txt", "*.csv") for path in sorted(root.glob(pattern))]
    for path in (*files, *sorted(root.glob("*/_classes.csv"))):
        if classes := _read(path):
            return classes
    return ClassList()


def _read(path: Path) -> ClassList | None:
    """Return the classes of a text file; None for any other text."""
    if path.stat().st_size > _LARGEST:
        return None
    text = path.read_text("utf-8-sig", "replace")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    for pattern in _ROWS:
        rows = [match.groupdict() for line in lines if (match := pattern.fullmatch(line))]
        header = len(lines) > 2 and not pattern.fullmatch(lines[0])
        if rows and len(rows) == len(lines) - header and (classes := _classes(rows, path)):
            return classes
    return None


def _classes(rows: Sequence[dict[str, str | None]], path: Path) -> ClassList | None:
    names = [str(row["name"]).strip().strip("\"'") for row in rows]
    colors = list(_colors(rows))
    ids = [int(row["id"]) for row in rows if row["id"]] or list(range(len(rows)))
    unique = len(set(ids)) == len(ids) == len(names) and len(set(colors)) == len(colors)
    if not unique or max(ids) > 255 or any(max(color) > 255 for color in colors):
        return None
    if colors:
        return ClassList(names, colors, path)
    by_id = dict(zip(ids, names, strict=True))
    if min(ids) == 1:
        by_id[0] = "unlabelled"
    return ClassList([by_id.get(i, "") for i in range(max(ids) + 1)], None, path)


def _colors(rows: Iterable[dict[str, str | None]]) -> Iterator[Color]:
    for row in rows:
        if row.get("red"):
            yield int(str(row["red"])), int(str(row["green"])), int(str(row["blue"]))
