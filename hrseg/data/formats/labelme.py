"""LabelMe JSON: polygons, rectangles, circles and masks, in one file per image."""

import base64
import binascii
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.data.formats.annotations import Annotation, Annotations, Shape, fault, split_of
from hrseg.data.formats.reading import (
    ImageFinder,
    field,
    files_below,
    has_keys,
    no_duplicates,
    no_images,
    points_of,
    read_json,
    read_text,
    ring,
)
from hrseg.data.images import decoder_errors, open_image
from hrseg.data.png import SIGNATURE as PNG
from hrseg.utils.text import one_line

NAME = "labelme"
TITLE = "LabelMe JSON"
SIGNATURE = "one .json file per image with the keys shapes and imagePath"
_KEYS = ("shapes", "imagePath")
_TRIED = 20  # files
_AREAS = {"polygon": 3, "rectangle": 2, "circle": 2, "mask": 2}  # kinds of shapes, fewest points
_IGNORE = "__ignore__"  # in a labels.txt of LabelMe


def recognise(root: Path) -> bool:
    """Return whether one of the first JSON files has the keys of LabelMe."""
    return any(has_keys(path, _KEYS) for path in files_below(root, (".json",))[:_TRIED])


def read(root: Path) -> Annotations:
    """Return the shapes of all LabelMe files below a folder.

    Raises:
        DataError: a damaged file, or a missing image.
    """
    finder, kinds, other = ImageFinder(root), Counter[str](), 0
    items, labels = [], set[str]()
    for path in files_below(root, (".json",)):
        content = read_json(path)
        if not isinstance(content, dict) or not set(_KEYS) <= content.keys():
            other += 1
            continue
        rows = field(content, "shapes", list, path, "the file")
        shapes = [_checked(shape, path, index) for index, shape in enumerate(rows)]
        kinds.update(shape["shape_type"] for shape in shapes)
        shapes = [shape for shape in shapes if shape["shape_type"] in _AREAS]
        labels.update(shape["label"] for shape in shapes)
        items.append(_annotation(content, shapes, path, finder))
    if not items:
        no_images(root, TITLE)
    skipped = {kind: count for kind, count in kinds.items() if kind not in _AREAS}
    lines = [f"{n} shapes of the kind {one_line(k)}: omitted" for k, n in sorted(skipped.items())]
    lines += [f"{other} .json files of another format: omitted"] if other else []
    return Annotations(_class_names(root, labels), items, warnings=tuple(lines))


def _class_names(root: Path, labels: set[str]) -> tuple[str, ...]:
    """Return the names in the order of labels.txt, then the other labels, sorted."""
    path = root / "labels.txt"
    listed = read_text(path).splitlines() if path.is_file() else []
    names = [name for name in map(str.strip, listed) if name] + sorted(labels)
    return no_duplicates([name for name in names if name != _IGNORE], path)


def _checked(shape: Any, path: Path, index: int) -> dict[str, Any]:
    """Return label, kind, points and mask of a shape."""
    subject = f"shape {index}"
    (label,) = no_duplicates([field(shape, "label", str, path, subject)], path)
    kind = str(shape.get("shape_type") or "polygon")
    points = points_of(field(shape, "points", list, path, subject), path, subject)
    if len(points) < _AREAS.get(kind, 0):
        raise fault(path, f"{subject} ({one_line(label)}) has {len(points)} points",
                    f"at least {_AREAS[kind]} for a {kind}")  # fmt: skip
    return {"label": label, "shape_type": kind, "points": points, "mask": shape.get("mask")}


def _annotation(
    content: dict[str, Any], shapes: list[dict[str, Any]], path: Path, finder: ImageFinder
) -> Annotation:
    name = field(content, "imagePath", str, path, "the file")
    size, data = None, None
    if content.get("imageHeight") is not None:
        height, width = (
            field(content, key, int, path, "the file") for key in ("imageHeight", "imageWidth")
        )
        size = height, width
    image = finder.optional(name, path)
    if image is None:
        if not isinstance(content.get("imageData"), str):
            image = finder.find(name, path)  # raises
        suffix = ".png" if _embedded(content, path).startswith(PNG) else ".jpg"
        image, data = path.with_suffix(suffix), partial(_read_embedded, path)
    parents = path.relative_to(finder.root).parts[:-1] if path.is_relative_to(finder.root) else ()
    split = next(filter(None, map(split_of, parents)), "")
    return Annotation(image, path, split, partial(_shapes, shapes, path), size=size, data=data)


def _read_embedded(path: Path) -> bytes:
    return _embedded(read_json(path), path)


def _embedded(content: dict[str, Any], path: Path) -> bytes:
    return _base64(field(content, "imageData", str, path, "the file"), path, "imageData")


def _base64(text: str, path: Path, subject: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise fault(path, f"{subject} is invalid base64", "an embedded PNG or JPEG") from error


def _shapes(shapes: list[dict[str, Any]], path: Path, height: int, width: int) -> list[Shape]:
    return [
        _shape(shape, path, f"shape {index}", height, width) for index, shape in enumerate(shapes)
    ]


def _shape(shape: dict[str, Any], path: Path, subject: str, height: int, width: int) -> Shape:
    """Return the area of a shape; a circle is given by its centre and a point on it."""
    label, points, kind = shape["label"], shape["points"], shape["shape_type"]
    ignore = label == _IGNORE
    if kind == "mask":
        text = field(shape, "mask", str, path, subject)
        with decoder_errors(path), open_image(path, _base64(text, path, subject)) as picture:
            mask = np.asarray(picture.convert("L")) > 0
        column, row = np.floor(points.min(0)).astype(int).tolist()
        return Shape(label, mask=mask, corner=(row, column), ignore=ignore)
    if kind == "circle":
        return _circle(label, points, height, width, ignore)
    if kind == "rectangle":
        (left, top), (right, bottom) = points.min(0), points.max(0)
        points = ring([left, top, right, top, right, bottom, left, bottom], path, subject)
    return Shape(label, ((points,),), ignore=ignore)


def _circle(label: str, points: Any, height: int, width: int, ignore: bool) -> Shape:
    """Return the pixels whose centre lies in a circle, cropped to the image."""
    (x, y), radius = points[0], float(np.hypot(*(points[1] - points[0])))
    left, right = (int(np.clip(edge, 0, width)) for edge in (x - radius, x + radius + 1))
    top, bottom = (int(np.clip(edge, 0, height)) for edge in (y - radius, y + radius + 1))
    columns, rows = np.arange(left, right) + 0.5, np.arange(top, bottom) + 0.5
    mask = (columns - x) ** 2 + (rows[:, None] - y) ** 2 <= radius**2
    return Shape(label, mask=mask, corner=(top, left), ignore=ignore)
