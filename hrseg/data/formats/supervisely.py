"""Supervisely projects: meta.json, and a folder of images and of annotations per data set."""

import base64
import binascii
import io
import zlib
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hrseg.data.formats.annotations import (
    Annotation,
    Annotations,
    BoolArray,
    Polygon,
    Shape,
    fault,
    split_of,
)
from hrseg.data.formats.outlines import box, palette_of
from hrseg.data.formats.reading import (
    ImageFinder,
    field,
    no_duplicates,
    no_images,
    points_of,
    read_json,
    ring,
)
from hrseg.utils.files import read_object
from hrseg.utils.text import one_line

NAME = "supervisely"
TITLE = "Supervisely"
SIGNATURE = 'meta.json with the key "classes", and folders ann'
_SHAPES = ("polygon", "rectangle", "bitmap")
_OVERHEAD = 2**16  # bytes of a PNG file beyond its pixels


def recognise(root: Path) -> bool:
    """Return whether a folder, or a folder in it, is a project of Supervisely."""
    return _base(root) is not None


def read(root: Path) -> Annotations:
    """Return the objects of all data sets of a project.

    The split of an image is a tag such as "train", or else the name of its data set.

    Raises:
        DataError: a damaged file, or a missing image.
    """
    base = _base(root) or root
    meta = base / "meta.json"
    classes = field(read_json(meta), "classes", list, meta, "the file")
    titles = [field(entry, "title", str, meta, "a class") for entry in classes]
    names = no_duplicates(titles, meta)
    finder = ImageFinder(root)
    ignored: Counter[str] = Counter()
    items = []
    for folder in _folders(base):
        for path in sorted(folder.glob("*.json")):
            content = read_json(path)
            items.append(_annotation(content, path, finder))
            kinds = [
                _kind(item, path) for item in field(content, "objects", list, path, "the file")
            ]
            ignored.update(kind for kind in kinds if kind not in _SHAPES)
    if not items:
        no_images(root, TITLE)
    palette = palette_of([entry.get("color") for entry in classes])
    warnings = [
        f"{count} objects of the type {one_line(kind)!r} were left out: only "
        f"{', '.join(_SHAPES)} are read"
        for kind, count in sorted(ignored.items())
    ]
    same = palette if palette and len(palette) == len(names) else None
    return Annotations(names, items, same, tuple(warnings))


def _base(root: Path) -> Path | None:
    """Return the folder of meta.json if data sets are below it."""
    for meta in (root / "meta.json", *sorted(root.glob("*/meta.json"))):
        if "classes" in read_object(meta) and _folders(meta.parent):
            return meta.parent
    return None


def _folders(base: Path) -> list[Path]:
    """Return the folders of annotations, also of nested data sets."""
    return sorted(path for path in base.rglob("ann") if path.is_dir())


def _annotation(content: Any, path: Path, finder: ImageFinder) -> Annotation:
    size = field(content, "size", dict, path, "the file")
    height, width = (field(size, key, int, path, '"size"') for key in ("height", "width"))
    folder = path.parent.parent
    tags = content.get("tags") if isinstance(content.get("tags"), list) else []
    names = [tag.get("name") for tag in tags if isinstance(tag, dict)]
    splits = [split_of(str(name)) for name in (*names, folder.name)]
    return Annotation(
        image=finder.find(path.stem, path, folder / "img"),
        source=path,
        split=next(filter(None, splits), ""),
        shapes=partial(_shapes, path),
        size=(height, width),
    )


def _kind(item: Any, path: Path) -> str:
    """Return the type of an object; old files do not state that of a bitmap or polygon."""
    default = "bitmap" if isinstance(item, dict) and item.get("bitmap") else "polygon"
    if isinstance(item, dict) and item.get("geometryType") is None:
        return default
    return str(field(item, "geometryType", str, path, "an object"))


def _shapes(path: Path, height: int, width: int) -> list[Shape]:
    """Return the objects of an annotation file; it is read again, to need less memory."""
    shapes = []
    for number, item in enumerate(read_json(path)["objects"], 1):
        subject = f"object {number}"
        kind = _kind(item, path)
        label = field(item, "classTitle", str, path, subject).strip()
        if kind == "bitmap":
            bitmap = field(item, "bitmap", dict, path, subject)
            pixels = _pixels(bitmap, path, subject, (height, width))
            column, row = _origin(bitmap, path, subject)
            shapes.append(Shape(label, mask=pixels, corner=(row, column)))
        elif kind in _SHAPES:
            points = field(item, "points", dict, path, subject)
            shapes.append(Shape(label, (_polygon(points, kind, path, subject),)))
    return shapes


def _polygon(points: dict[str, Any], kind: str, path: Path, subject: str) -> Polygon:
    """Return the rings of a polygon or rectangle.

    Integers are numbers of pixels: (3, 2) is the pixel in column 3 and row 2, and a rectangle
    includes its last column and row. Supervisely itself converts them so, to the centres of
    pixels. Other numbers are positions.
    """
    outline = field(points, "exterior", list, path, subject)
    holes = points.get("interior") or []
    if not isinstance(holes, list):
        raise fault(path, f'{subject} has "interior" of another type', "an array of rings")
    parts = [points_of(part, path, subject) for part in (outline, *holes)]
    whole = all((part == np.floor(part)).all() for part in parts)
    if kind == "polygon":
        return tuple(ring(part, path, subject) + 0.5 * whole for part in parts)
    if len(parts[0]) != 2:
        raise fault(path, f"{subject} is a rectangle of {len(parts[0])} points", "two corners")
    (left, top), (right, bottom) = parts[0].min(0), parts[0].max(0) + 1.0 * whole
    return (box(left, top, right, bottom),)


def _origin(bitmap: dict[str, Any], path: Path, subject: str) -> tuple[int, int]:
    """Return column and row of the upper left pixel of a bitmap."""
    points = points_of(field(bitmap, "origin", list, path, subject), path, subject)
    if len(points) != 1:
        raise fault(path, f'{subject} has {len(points)} points as "origin"', "one point x, y")
    return int(points[0, 0]), int(points[0, 1])


def _pixels(bitmap: dict[str, Any], path: Path, subject: str, size: tuple[int, int]) -> BoolArray:
    """Return the pixels (h, w) of a bitmap: base64 of zlib of a PNG file.

    Args:
        bitmap: the JSON object with "data".
        path: annotation file.
        subject: name of the object in messages.
        size: (height, width) of the image, which limits the memory.
    """
    limit = 4 * size[0] * size[1] + _OVERHEAD
    try:
        packed = base64.b64decode(field(bitmap, "data", str, path, subject), validate=True)
        stream = zlib.decompressobj()
        data = stream.decompress(packed, limit)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise _damaged(path, subject, str(error)) from error
    if not stream.eof:
        cause = "it is larger than its image" if stream.unconsumed_tail else "it is cut off"
        raise _damaged(path, subject, cause)
    try:
        with Image.open(io.BytesIO(data), formats=["PNG"]) as picture:
            if picture.height > size[0] or picture.width > size[1]:
                raise ValueError(f"it has {picture.height}x{picture.width} pixels (height x width)")
            return _mask_of(picture)
    except Exception as error:  # on damaged files Pillow raises nearly any exception
        raise _damaged(path, subject, str(error).partition("\n")[0]) from error


def _mask_of(picture: Image.Image) -> BoolArray:
    """Return the opaque pixels of a picture; of one without transparency, those above 0."""
    if picture.has_transparency_data:
        return np.asarray(picture.convert("RGBA"))[..., 3] > 0
    values = np.asarray(picture)
    if values.ndim != 2:
        raise ValueError(f"it has colours ({picture.mode}) instead of a transparency")
    return values > 0


def _damaged(path: Path, subject: str, cause: str) -> Exception:
    return fault(path, f"the bitmap of {subject} cannot be read: {cause}",
                 "base64 of a zlib stream with a PNG, at most as large as the image")  # fmt: skip
