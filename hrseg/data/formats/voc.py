"""Pascal VOC masks, also CVAT's "Segmentation mask 1.1": SegmentationClass and labelmap.txt."""

import re
from collections.abc import Callable, Mapping
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
from hrseg.data.formats.reading import files_below, no_duplicates, no_images, read_text
from hrseg.data.images import header_size
from hrseg.data.masks import MaskReader, Palette, id_table, read_rgb_mask
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import one_line, some

NAME = "voc"
TITLE = 'Pascal VOC masks (CVAT: "Segmentation mask 1.1")'
SIGNATURE = "PNG files in the folder SegmentationClass"
_CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip
_VOID = (224, 224, 192)  # colour of VOC's outlines, 255 in its palette
_BLACK = (0, 0, 0)
_MASKS = "SegmentationClass"
_PARENTS = (".", "*", "VOCdevkit/*")  # of SegmentationClass, below the source folder
_UNKNOWN_COLOR = "Fix: add a line NAME:R,G,B:: with this colour to labelmap.txt."
_NO_LABEL_MAP = "Fix: add labelmap.txt with a line NAME:R,G,B:: for each class."

ReadIds = Callable[[int, int], IntArray]


def recognise(root: Path) -> bool:
    """Return whether a folder has VOC's folder SegmentationClass, with PNG files."""
    return _base(root) is not None


def read(root: Path) -> Annotations:
    """Return the masks of SegmentationClass with the images of JPEGImages or images.

    With labelmap.txt masks have its colours, and black pixels of its class "background" are
    unlabelled, as in CVAT. Without it they have the indices of VOC's 21 classes. Each list in
    ImageSets/Segmentation is a split.

    Raises:
        DataError: a damaged labelmap.txt, a missing image, or no pairs of image and mask.
    """
    base = _base(root) or root
    names, palette, reader = _classes(base)
    masks = _stems(base / _MASKS)
    images = _stems(base / "JPEGImages") | _stems(base / "images")
    splits, unmasked = _splits(base, masks)
    items = []
    for (split, stem), source in splits.items():
        mask = masks[stem]
        if stem not in images:
            raise fault(
                source,
                f"the image {one_line(stem)!r} is neither in JPEGImages nor in images",
                "an image for each mask",
                'export the data set again, in CVAT with "Save images", or add the image.',
            )
        ids, size = partial(reader, mask), header_size(mask)
        items.append(Annotation(images[stem], mask, split, ids=ids, size=size))
    if not items:
        no_images(root, TITLE)
    return Annotations(names, items, palette, _warnings(unmasked))


def _base(root: Path) -> Path | None:
    folders = (path for parent in _PARENTS for path in sorted(root.glob(f"{parent}/{_MASKS}")))
    return next((folder.parent for folder in folders if next(folder.rglob("*.png"), None)), None)


def _stems(folder: Path) -> dict[str, Path]:
    """Return relative path without suffix -> file of the images below a folder."""
    if not folder.is_dir():
        return {}
    files = files_below(folder)
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _splits(
    base: Path, masks: Mapping[str, Path]
) -> tuple[dict[tuple[str, str], Path], dict[Path, list[str]]]:
    """Return the pairs (split, stem) of the lists, each with its list, and stems without a mask.

    A list of another kind, such as trainval.txt, adds only stems that no other list has.
    """
    lists = sorted((base / "ImageSets" / "Segmentation").glob("*.txt"))
    pairs: dict[tuple[str, str], Path] = {}
    unmasked: dict[Path, list[str]] = {}
    for path in sorted(lists, key=lambda path: split_of(path.stem) == ""):
        split = split_of(path.stem)
        listed = {stem for _, stem in pairs}
        for line in read_text(path).splitlines():
            stem = line.strip().strip('"')
            if stem and stem not in masks:
                unmasked.setdefault(path, []).append(stem)
            elif stem and (split or stem not in listed):
                pairs.setdefault((split, stem), path)
    if not lists:
        pairs = {("", stem): mask for stem, mask in masks.items()}
    return pairs, unmasked


def _warnings(unmasked: Mapping[Path, list[str]]) -> tuple[str, ...]:
    return tuple(
        f"{one_line(str(path))}: {len(stems)} images without a mask were left out: {some(stems)}"
        for path, stems in unmasked.items()
    )


def _classes(base: Path) -> tuple[tuple[str, ...], Palette | None, Callable[..., IntArray]]:
    """Return class names, their colours, and the reader (mask, height, width) -> ids."""
    path = base / "labelmap.txt"
    if not path.is_file():
        indices = MaskReader(id_table(len(_CLASSES), ignore_ids=[IGNORE_INDEX]), _NO_LABEL_MAP)
        return _CLASSES, None, partial(_index_ids, indices)
    colors = _label_map(path)
    unlabelled = [name for name, color in colors.items() if _is_unlabelled(name, color)]
    names = no_duplicates([name for name in colors if name not in unlabelled], path)
    table = [names.index(name) if name in names else UNLABELLED for name in colors]
    palette = tuple(colors.values())
    if _VOID not in palette:
        palette, table = (*palette, _VOID), [*table, IGNORE_INDEX]
    reader = partial(_color_ids, palette, np.array(table, np.int16))
    return names, tuple(colors[name] for name in names), reader


def _is_unlabelled(name: str, color: tuple[int, int, int]) -> bool:
    return name.lower() == "background" and color == _BLACK


def _label_map(path: Path) -> dict[str, tuple[int, int, int]]:
    """Return name -> RGB colour of labelmap.txt, with lines NAME:R,G,B:PARTS:ACTIONS."""
    colors: dict[str, tuple[int, int, int]] = {}
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = re.match(r"(.+?):\s*(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})\s*(?::|$)", line)
        values = [int(value) for value in match.groups()[1:]] if match else []
        if match is None or max(values) > 255:
            raise fault(path, f"line {number} is {one_line(line)[:60]!r}",
                        "NAME:R,G,B:: with values of 0 to 255")  # fmt: skip
        name, (red, green, blue) = match[1].strip(), values
        twin = next((n for n, c in colors.items() if c == (red, green, blue)), name)
        if name in colors or twin != name:
            raise fault(path, f"line {number}: {one_line(name)!r} repeats the name or the colour "
                        f"of {one_line(twin)!r}", "a colour of its own for each class")  # fmt: skip
        colors[name] = (red, green, blue)
    if not 0 < len(colors) < IGNORE_INDEX:
        raise fault(path, f"the file has {len(colors)} classes", "1 to 254 classes")
    return colors


def _color_ids(palette: Palette, table: IntArray, path: Path, height: int, width: int) -> IntArray:
    return table[read_rgb_mask(path, palette, _UNKNOWN_COLOR)]


def _index_ids(reader: MaskReader, path: Path, height: int, width: int) -> IntArray:
    return reader(path).astype(np.int16)
