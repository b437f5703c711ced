"""COCO JSON: polygons, run lengths and crowds, in one file or one file per split."""

import reprlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hrseg.data.formats.annotations import (
    Annotation,
    Annotations,
    BoolArray,
    Shape,
    fault,
    split_of,
)
from hrseg.data.formats.raster import cropped
from hrseg.data.formats.reading import (
    ImageFinder,
    box,
    field,
    files_below,
    has_keys,
    no_duplicates,
    no_images,
    read_json,
    ring,
)
from hrseg.utils.text import one_line

NAME = "coco"
TITLE = "COCO JSON"
SIGNATURE = ".json files with the keys images, annotations and categories"
_KEYS = ("images", "annotations", "categories")
_MOST_FILES = 20  # .json files in one folder; tools with a file per image write more
_ID = (int, str)
_Object = dict[str, Any]


@dataclass(frozen=True)
class _File:
    """One JSON file: its images, its objects by image id, and its class names by category id."""

    path: Path
    images: Sequence[_Object]
    objects: Mapping[int | str, list[_Object]]
    names: Mapping[int | str, str]
    warnings: tuple[str, ...]


def recognise(root: Path) -> bool:
    """Return whether a JSON file has the three main keys of COCO."""
    return bool(_paths(root))


def read(root: Path) -> Annotations:
    """Return the objects of all COCO files below a folder; each file may be a split.

    Raises:
        DataError: a damaged file, a missing image, or an object of an unknown category.
    """
    files = [_read_file(path) for path in _paths(root)]
    finder = ImageFinder(root)
    items = [_annotation(file, image, finder) for file in files for image in file.images]
    if not items:
        no_images(root, TITLE)
    names = [name for file in files for name in file.names.values()]
    warnings = tuple(line for file in files for line in file.warnings)
    return Annotations(no_duplicates(names, files[0].path), items, warnings=warnings)


def _paths(root: Path) -> list[Path]:
    """Return the COCO files; only those named "instances" if there are captions or keypoints."""
    paths = files_below(root, (".json",))
    number = Counter(path.parent for path in paths)
    few = [path for path in paths if number[path.parent] <= _MOST_FILES]
    paths = [path for path in few if has_keys(path, _KEYS)]
    return [path for path in paths if path.name.startswith("instances")] or paths


def _read_file(path: Path) -> _File:
    content = read_json(path)
    images, objects, categories = (field(content, key, list, path, "the file") for key in _KEYS)
    names: dict[int | str, str] = {}
    for category in categories:
        key = field(category, "id", _ID, path, "a category")
        name = field(category, "name", str, path, f"category {key}").strip()
        if names.setdefault(key, name) != name:
            raise fault(path, f"two categories have the id {key}", "different ids")
    by_image: dict[int | str, list[_Object]] = {}
    used = set()
    for index, item in enumerate(objects):
        subject = f"annotation {index}"
        by_image.setdefault(field(item, "image_id", _ID, path, subject), []).append(item)
        used.add(category := field(item, "category_id", _ID, path, subject))
        if category not in names:
            raise fault(path, f"{subject} has the unknown category_id {one_line(str(category))}",
                        "an id of the categories")  # fmt: skip
    parents = [item.get("supercategory") for item in categories]
    unused = [key for key, name in names.items() if key not in used and name in parents]
    kept = {key: name for key, name in names.items() if key not in unused}
    known = {field(image, "id", _ID, path, "an image") for image in images}
    if len(known) < len(images):
        raise fault(path, "two images have the same id", "a different id for each image")
    warnings = _warnings(path, by_image, known, [names[key] for key in unused])
    return _File(path, images, by_image, kept, warnings)


def _warnings(
    path: Path,
    by_image: Mapping[int | str, list[_Object]],
    known: set[int | str],
    unused: Sequence[str],
) -> tuple[str, ...]:
    """Return warnings on omitted objects and categories, and on boxes."""
    objects = [item for items in by_image.values() for item in items]
    lost = sum(len(items) for key, items in by_image.items() if key not in known)
    boxes = sum(not item.get("segmentation") for item in objects)
    lines = []
    if lost:
        lines.append(f"{lost} objects of unknown images: omitted")
    if boxes:
        lines.append(f"{boxes} of {len(objects)} objects have no outline: drawn as boxes")
    lines += [
        f"the category {one_line(name)!r} is the parent of others and has no objects: omitted"
        for name in unused
    ]
    return tuple(f"{one_line(path.name)}: {line}" for line in lines)


def _annotation(file: _File, image: _Object, finder: ImageFinder) -> Annotation:
    name = field(image, "file_name", str, file.path, f"image {image['id']}")
    size = None
    if image.get("height") is not None:
        height, width = (field(image, k, int, file.path, f"image {name!r}") for k in _SIZE)
        size = height, width
    outer = "" if file.path.parent == finder.root else file.path.parent.name
    folder = file.path.stem.rpartition("_")[2]  # instances_train2017
    folders = (finder.root / folder, finder.root / "images" / folder)
    return Annotation(
        finder.find(name, file.path, file.path.parent, *folders),
        file.path,
        split_of(file.path.stem) or split_of(outer),
        partial(_shapes, file, image["id"]),
        size=size,
    )


_SIZE = ("height", "width")


def _shapes(file: _File, image: int | str, height: int, width: int) -> list[Shape]:
    return [
        _shape(file, item, f"object {item.get('id', index)} of image {image}", height, width)
        for index, item in enumerate(file.objects.get(image, ()))
    ]


def _shape(file: _File, item: _Object, subject: str, height: int, width: int) -> Shape:
    """Return the shape of an object: run lengths, polygons, or its box."""
    label, outline = file.names[item["category_id"]], item.get("segmentation")
    crowd = item.get("iscrowd") in (1, True)
    if isinstance(outline, dict):
        mask, corner = cropped(_decode(outline, file.path, subject, (height, width)))
        return Shape(label, mask=mask, corner=corner, ignore=crowd)
    if not outline:
        left, top, w, h = box(item.get("bbox"), file.path, subject)
        corners = [left, top, left + w, top, left + w, top + h, left, top + h]
        return Shape(label, ((ring(corners, file.path, subject),),), ignore=crowd)
    if not isinstance(outline, list):
        raise fault(file.path, f"{subject} has an invalid segmentation", "polygons or run lengths")
    parts = outline if isinstance(outline[0], list) else [outline]
    return Shape(label, tuple((ring(p, file.path, subject),) for p in parts), ignore=crowd)


def _decode(rle: _Object, path: Path, subject: str, size: tuple[int, int]) -> BoolArray:
    """Return the mask (height, width) of run lengths, compressed (text) or not (numbers).

    Raises:
        DataError: run lengths for another size, or with another sum.
    """
    stated, runs = rle.get("size"), rle.get("counts")
    if stated != list(size):
        raise fault(
            path,
            f"{subject} has run lengths for the size {one_line(reprlib.repr(stated))}",
            f"[{size[0]}, {size[1]}], the height and width of the image",
        )
    try:
        counts = decompressed(runs) if isinstance(runs, str) else np.array(runs)
    except ValueError as error:
        raise fault(path, f"{subject} has invalid run lengths: {error}", "run lengths") from error
    height, width = size
    if counts.dtype.kind != "i" or counts.ndim != 1 or (counts < 0).any():
        raise fault(path, f"{subject} has invalid run lengths", "a text or positive integers")
    if (total := int(np.sum(counts, dtype=np.float64))) != height * width:
        raise fault(path, f"{subject} has run lengths for {total} pixels",
                    f"{height * width} pixels, as in the image")  # fmt: skip
    values = np.arange(len(counts)) % 2 == 1
    return np.repeat(values, counts).reshape(width, height).T  # column after column


def decompressed(text: str) -> npt.NDArray[np.int64]:
    """Return the run lengths of COCO's compressed text, after its source common/maskApi.c.

    Each character minus 48 has 5 bits of a number, lowest first, and 32 if more follow. Its bit 4
    in the last character is the sign. From the fourth number on, it is the difference from the
    number two before. pycocotools decodes this too, but invalid text corrupts its memory.

    Raises:
        ValueError: invalid text.

    Examples:
        >>> decompressed("52203").tolist()
        [5, 2, 2, 2, 5]
    """
    codes = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        raise ValueError("invalid or missing characters")
    ends = np.flatnonzero(codes & 32 == 0)
    starts = np.concatenate(([0], ends[:-1] + 1))
    if (ends - starts).max() > 6:
        raise ValueError("a number above 2^34")
    place = np.arange(len(codes)) - np.repeat(starts, ends - starts + 1)
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts)
    negative = codes[ends] & 16 != 0
    numbers[negative] -= 1 << 5 * (ends - starts + 1)[negative]
    for first in (1, 2):
        numbers[first::2] = np.cumsum(numbers[first::2])
    return numbers
