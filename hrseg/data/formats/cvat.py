"""CVAT for images 1.1: XML files with polygons, boxes, ellipses and masks as run lengths."""

import re
from collections import Counter
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from hrseg.data.formats.annotations import (
    Annotation,
    Annotations,
    BoolArray,
    FloatArray,
    Shape,
    fault,
    split_of,
)
from hrseg.data.formats.outlines import box, ellipse, palette_of, rotated
from hrseg.data.formats.reading import (
    ImageFinder,
    files_below,
    head,
    no_duplicates,
    no_images,
    points_of,
    read_text,
    ring,
)
from hrseg.utils.text import one_line

NAME = "cvat"
TITLE = "CVAT for images 1.1 (XML)"
SIGNATURE = ".xml files with the element <annotations>"
_SHAPES = ("polygon", "box", "ellipse", "mask")
_WITHOUT_AREA = ("points", "polyline", "skeleton", "cuboid", "tag")  # types of labels
_HEAD = 4096  # bytes


def recognise(root: Path) -> bool:
    """Return whether an XML file of CVAT is below a folder."""
    return bool(_paths(root))


def read(root: Path) -> Annotations:
    """Return the shapes of all CVAT files below a folder.

    Shapes of a higher `z_order` are drawn over those of a lower one. The attribute `subset` of an
    image, or else the name of the XML file or its folder, is the split.

    Raises:
        DataError: a damaged file, a document type (DTD), tracks of a video, or a missing image.
    """
    finder = ImageFinder(root)
    colors: dict[str, str] = {}
    ignored: Counter[str] = Counter()
    items: list[Annotation] = []
    paths = _paths(root)
    for path in paths:
        document = _parse(path)
        colors |= {name: color for name, color in _labels(document).items() if name not in colors}
        for image in document.findall("image"):
            items.append(_annotation(image, path, finder))
            ignored.update(shape.tag for shape in image if shape.tag not in _SHAPES)
    if not items:
        no_images(root, TITLE)
    names = no_duplicates(tuple(colors), paths[0])
    warnings = [
        f"{count} {tag} elements were left out: they have no area"
        for tag, count in sorted(ignored.items())
    ]
    return Annotations(names, items, palette_of(tuple(colors.values())), tuple(warnings))


def _paths(root: Path) -> list[Path]:
    start = re.compile(rb"<annotations[\s>]")
    return [path for path in files_below(root, (".xml",)) if start.search(head(path, _HEAD))]


class _Builder(ElementTree.TreeBuilder):
    """Builder that refuses document types: their entities can expand to any size."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        raise _DocumentTypeError


class _DocumentTypeError(Exception):
    """The XML file has a document type."""


def _parse(path: Path) -> ElementTree.Element:
    """Return the root of an XML file of images."""
    try:
        document = ElementTree.fromstring(read_text(path), ElementTree.XMLParser(target=_Builder()))
    except _DocumentTypeError as error:
        raise fault(path, "a document type (<!DOCTYPE ...>) is not allowed",
                    "XML without a document type, as CVAT writes it") from error  # fmt: skip
    except ElementTree.ParseError as error:
        raise fault(path, f"invalid XML: {error}", "a whole XML file of CVAT") from error
    if document.find("track") is not None:
        raise fault(
            path,
            "the file has tracks of a video",
            'the format "CVAT for images 1.1"',
            'export the task as "CVAT for images 1.1".',
        )
    return document


def _labels(document: ElementTree.Element) -> dict[str, str]:
    """Return name -> colour of the labels; of a file without labels, those of the shapes."""
    labels = document.findall("meta//label")
    named = {
        label.findtext("name", "").strip(): label.findtext("color", "")
        for label in labels
        if label.findtext("type") not in _WITHOUT_AREA and label.find("parent") is None
    }
    if labels:
        return named
    shapes = [
        shape for image in document.findall("image") for shape in image if shape.tag in _SHAPES
    ]
    return dict.fromkeys(sorted({shape.get("label", "").strip() for shape in shapes}), "")


def _annotation(image: ElementTree.Element, path: Path, finder: ImageFinder) -> Annotation:
    name = image.get("name", "")
    subset = image.get("subset", "")
    split = split_of(subset) or split_of(path.stem) or split_of(path.parent.name)
    subject = f"the image {one_line(name)!r}"
    return Annotation(
        image=finder.find(name, path, path.parent / "images" / subset, path.parent / "images"),
        source=path,
        split=split,
        shapes=partial(_shapes, image, path),
        size=(_integer(image, "height", path, subject), _integer(image, "width", path, subject)),
    )


def _shapes(image: ElementTree.Element, path: Path, height: int, width: int) -> list[Shape]:
    """Return the shapes of an image."""
    shapes = []
    for element in image:
        if element.tag not in _SHAPES:
            continue
        label = element.get("label", "").strip()
        subject = f"a {element.tag} {one_line(label)!r} of {one_line(image.get('name', ''))!r}"
        layer = _integer(element, "z_order", path, subject, "0")
        if element.tag == "mask":
            pixels, corner = _mask(element, path, subject, (height, width))
            shapes.append(Shape(label, mask=pixels, corner=corner, layer=layer))
        else:
            outline = _outline(element, path, subject)
            shapes.append(Shape(label, ((outline,),), layer=layer))
    return shapes


def _outline(element: ElementTree.Element, path: Path, subject: str) -> FloatArray:
    """Return the corners (N, 2) of a polygon, box or ellipse, in pixels."""

    def numbers(*keys: str) -> list[float]:
        return [_number(element, key, path, subject) for key in keys]

    if element.tag == "polygon":
        pairs = [pair.split(",") for pair in element.get("points", "").split(";") if pair.strip()]
        return ring(pairs, path, subject)
    if element.tag == "box":
        points = box(*numbers("xtl", "ytl", "xbr", "ybr"))
    else:
        points = ellipse(*numbers("cx", "cy", "rx", "ry"))
    x, y = (points.min(0) + points.max(0)) / 2
    return rotated(points, _number(element, "rotation", path, subject, "0"), (x, y))


def _mask(
    element: ElementTree.Element, path: Path, subject: str, size: tuple[int, int]
) -> tuple[BoolArray, tuple[int, int]]:
    """Return the pixels (h, w) of a mask, and the row and column of its corner.

    The run lengths are those of pixels outside and inside by turns, row by row.
    """
    left, top, width, height = (
        _integer(element, key, path, subject) for key in ("left", "top", "width", "height")
    )
    if not (0 < height <= size[0] and 0 < width <= size[1]):
        raise fault(path, f"{subject} has {height}x{width} pixels (height x width)",
                    f"at most {size[0]}x{size[1]}, the size of the image")  # fmt: skip
    try:
        lengths = np.array([int(text) for text in element.get("rle", "").split(",")], np.int64)
    except (ValueError, OverflowError) as error:
        raise fault(path, f"{subject} has run lengths that are not integers",
                    "integers, separated by commas") from error  # fmt: skip
    total = sum(lengths.tolist())  # Python's integers do not overflow
    if (lengths < 0).any() or total != height * width:
        raise fault(path, f"{subject} has run lengths for {total} pixels",
                    f"{height} x {width} = {height * width} pixels")  # fmt: skip
    pixels = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return pixels.reshape(height, width), (top, left)


def _number(
    element: ElementTree.Element, key: str, path: Path, subject: str, default: str = ""
) -> float:
    """Return a finite number in an attribute of an element."""
    text = element.get(key, default)
    try:
        value = float(text)
    except ValueError as error:
        raise fault(path, f'{subject} has the attribute {key}="{one_line(text)[:60]}"',
                    "a number") from error  # fmt: skip
    return float(points_of([value, 0.0], path, subject)[0, 0])


def _integer(
    element: ElementTree.Element, key: str, path: Path, subject: str, default: str = ""
) -> int:
    return round(_number(element, key, path, subject, default))
