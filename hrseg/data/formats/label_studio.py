"""Label Studio JSON export: brush masks as run lengths, polygons, rectangles and ellipses."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np

from hrseg.data.formats.annotations import (
    Annotation,
    Annotations,
    FloatArray,
    Shape,
    fault,
    split_of,
)
from hrseg.data.formats.brush import decode_brush
from hrseg.data.formats.outlines import box, ellipse, rotated
from hrseg.data.formats.reading import (
    ImageFinder,
    field,
    files_below,
    head,
    no_duplicates,
    no_images,
    points_of,
    read_json,
    ring,
)
from hrseg.data.images import SUFFIXES
from hrseg.utils.text import one_line

NAME = "label-studio"
TITLE = "Label Studio JSON"
SIGNATURE = '.json files with a list of tasks that have "annotations"'
_SHAPES = ("brushlabels", "polygonlabels", "rectanglelabels", "ellipselabels")
_HEAD = 2**16  # bytes
_TASKS = re.compile(rb'(\xef\xbb\xbf)?\s*\[\s*\{.*?"(annotations|completions)"\s*:\s*\[', re.DOTALL)
_UPLOAD_PREFIX = re.compile("^[0-9a-f]{8}-")  # of uploaded files


@dataclass(frozen=True)
class _Region:
    """A labelled region of an image, with positions in percent of the image's size."""

    kind: str  # one of _SHAPES
    label: str
    value: dict[str, Any]
    size: tuple[int, int]  # (height, width) of the image
    subject: str  # for messages


def recognise(root: Path) -> bool:
    """Return whether a JSON export of Label Studio is below a folder."""
    return bool(_paths(root))


def read(root: Path) -> Annotations:
    """Return the regions of all JSON exports below a folder.

    Of several annotations of a task, the first one marked as ground truth is read, or else the
    first one that was not skipped. The name of the file or its folder is the split.

    Raises:
        DataError: a damaged file, a missing image, or a rotated image.
    """
    finder = ImageFinder(root)
    labels: set[str] = set()
    notes: Counter[str] = Counter()
    items = []
    paths = _paths(root)
    for path in paths:
        split = split_of(path.stem) or split_of(path.parent.name)
        for number, task in enumerate(read_json(path), 1):
            regions = _regions(task, f"task {number}", path, notes)
            if regions is not None:
                name = _image_name(task, f"task {number}", path)
                image = _find(name, path, finder)
                sizes = _size(regions, path)
                shapes = partial(_shapes, regions, path)
                items.append(Annotation(image, path, split, shapes, size=sizes))
                labels.update(region.label for region in regions)
    if not items:
        no_images(root, TITLE)
    warnings = tuple(f"{count} {text}" for text, count in sorted(notes.items()))
    return Annotations(no_duplicates(sorted(labels), paths[0]), items, warnings=warnings)


def _paths(root: Path) -> list[Path]:
    return [path for path in files_below(root, (".json",)) if _TASKS.match(head(path, _HEAD))]


def _regions(task: Any, subject: str, path: Path, notes: Counter[str]) -> list[_Region] | None:
    """Return the labelled regions of a task, or None if it is not annotated; count omissions."""
    key = "completions" if isinstance(task, dict) and "completions" in task else "annotations"
    annotations = [
        annotation
        for annotation in field(task, key, list, path, subject)
        if isinstance(annotation, dict) and not annotation.get("was_cancelled")
    ]
    if not annotations:
        notes["tasks without an annotation were left out"] += 1
        return None
    if len(annotations) > 1:
        notes["tasks have several annotations: the ground truth or else the first one is read"] += 1
    chosen = next((a for a in annotations if a.get("ground_truth")), annotations[0])
    regions = []
    for number, result in enumerate(field(chosen, "result", list, path, subject), 1):
        kind = field(result, "type", str, path, f"region {number} of {subject}")
        if kind not in _SHAPES:
            notes[f"results of the type {one_line(kind)!r} were left out"] += 1
            continue
        region, count = _region(result, kind, f"region {number} of {subject}", path)
        notes["regions without a label were left out"] += count == 0
        notes["regions have several labels: the first one is read"] += count > 1
        regions += [region] if count else []
    for text in [text for text, count in notes.items() if not count]:
        del notes[text]
    return regions


def _region(result: Any, kind: str, subject: str, path: Path) -> tuple[_Region, int]:
    """Return a region, and its number of labels."""
    value = field(result, "value", dict, path, subject)
    labels = value.get(kind) or []
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise fault(path, f'{subject} has "{kind}" of another type', "an array of strings")
    if result.get("image_rotation") not in (None, 0, 360):
        raise fault(
            path,
            f"{subject} is in an image that was rotated by {result['image_rotation']} degrees",
            "images without a rotation",
            "rotate the image file itself and annotate it again, or remove the task.",
        )
    size = tuple(
        field(result, f"original_{key}", int, path, subject) for key in ("height", "width")
    )
    label = labels[0].strip() if labels else ""
    return _Region(kind, label, value, (size[0], size[1]), subject), len(labels)


def _size(regions: Sequence[_Region], path: Path) -> tuple[int, int] | None:
    """Return the (height, width) of the image, or None without regions."""
    sizes = sorted({region.size for region in regions})
    if len(sizes) > 1:
        raise fault(path, f"{regions[0].subject} and others are of images of different sizes, "
                    f"{sizes[0]} and {sizes[1]}", "one image in each task")  # fmt: skip
    return sizes[0] if sizes else None


def _image_name(task: Any, subject: str, path: Path) -> str:
    """Return the path of the task's image: the first of its data with the suffix of an image."""
    data = field(task, "data", dict, path, subject)
    names = [_path_of(value) for value in data.values() if isinstance(value, str)]
    for name in names:
        if name.lower().endswith(SUFFIXES):
            return name
    raise fault(path, f'{subject} has no image in "data"',
                f"a path or URL that ends in {', '.join(SUFFIXES)}")  # fmt: skip


def _path_of(text: str) -> str:
    """Return the path in a URL such as s3://bucket/a.png or /data/local-files/?d=a.png."""
    if "://" not in text and not text.startswith("/data/"):
        return text
    try:
        parts = urlsplit(text)
    except ValueError:  # invalid host
        return text
    return parse_qs(parts.query).get("d", [unquote(parts.path)])[0]


def _find(name: str, path: Path, finder: ImageFinder) -> Path:
    """Return an image file by the longest known end of its path, also without upload prefix."""
    *parents, base = name.replace("\\", "/").strip("/").split("/")
    folders = [finder.root.joinpath(*parents[start:]) for start in range(len(parents))]
    for candidate in (base, _UPLOAD_PREFIX.sub("", base)):
        if image := finder.optional(candidate, path, *folders):
            return image
    return finder.find(name, path)


def _shapes(regions: Sequence[_Region], path: Path, height: int, width: int) -> list[Shape]:
    """Return the shapes of an image."""
    shapes = []
    for region in regions:
        if region.kind == "brushlabels":
            try:
                mask = decode_brush(region.value.get("rle"), height, width)
            except ValueError as error:
                raise fault(path, f"the run lengths of {region.subject} are invalid: {error}",
                            "run lengths of Label Studio's brush") from error  # fmt: skip
            shapes.append(Shape(region.label, mask=mask))
        else:
            outline = _outline(region, path, np.array([width, height]) / 100)
            shapes.append(Shape(region.label, ((outline,),)))
    return shapes


def _outline(region: _Region, path: Path, percent: FloatArray) -> FloatArray:
    """Return the corners (N, 2) of a region in pixels; `percent` is 1 % of width and height."""
    value, subject = region.value, region.subject
    if region.kind == "polygonlabels":
        return ring(field(value, "points", list, path, subject), path, subject) * percent

    def pair(*keys: str) -> tuple[float, float]:
        """Return values in x and y as pixels."""
        numbers = [field(value, key, (int, float), path, subject) for key in keys]
        x, y = (points_of(numbers, path, subject)[0] * percent).tolist()
        return x, y

    x, y = pair("x", "y")
    if region.kind == "rectanglelabels":
        width, height = pair("width", "height")
        points = box(x, y, x + width, y + height)
    else:
        points = ellipse(x, y, *pair("radiusX", "radiusY"))
    degrees = points_of([value.get("rotation") or 0, 0], path, subject)[0, 0]
    return ring(rotated(points, degrees, (x, y)), path, subject)
