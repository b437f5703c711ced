"""Layout of an imported data set: class ids, colours and file names, decided before the writing."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hrseg.data.formats.annotations import Annotation, Annotations, fault
from hrseg.data.masks import Palette
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import one_line, some

MOST_CLASSES = 254
_BACKGROUNDS = ("background", "_background_")


@dataclass(frozen=True)
class Classes:
    """Class names and colours of the written masks, and the ids of the annotations' values.

    Attributes:
        names: the position is the id.
        palette: RGB colour of each class.
        table: 257 ids, of the values -1 (unlabelled) to 255 of an annotation.
    """

    names: tuple[str, ...]
    palette: Palette
    table: npt.NDArray[np.uint8]


def check_target(out: Path) -> None:
    """Refuse an output that exists, except for an empty folder.

    Raises:
        ConfigError: a file, a link, or a folder with files.
    """
    if out.is_symlink() or (out.exists() and not (out.is_dir() and not any(out.iterdir()))):
        raise ConfigError(
            f"{one_line(str(out))} exists already. It was not changed.\n"
            "Expected: a new or empty folder for the imported data set. Fix: choose another OUT."
        )


def final_classes(annotations: Annotations, default: Palette, background: bool) -> Classes:
    """Return the classes of the written masks.

    Args:
        annotations: the data set.
        default: at least 254 colours, for classes without a colour of their own.
        background: unlabelled pixels get the class "background", which becomes id 0 if the
            annotations have no such class; else they are ignored.

    Raises:
        DataError: no classes, or more than 254.
    """
    names = annotations.class_names
    existing = next((name for name in names if name.lower() in _BACKGROUNDS), None)
    added = background and existing is None
    final = ("background", *names) if added else names
    if not 0 < len(final) <= MOST_CLASSES:
        raise DataError(
            f"The annotations have {len(final)} classes.\n"
            f"Expected: 1 to {MOST_CLASSES}, with the ids 0 to {MOST_CLASSES - 1} in the masks.\n"
            "Fix: add or merge classes in the annotation tool."
        )
    table = np.full(257, IGNORE_INDEX, np.uint8)
    table[1 : len(names) + 1] = np.arange(added, len(final))
    if background:
        table[0] = 0 if existing is None else names.index(existing)
    colors = annotations.palette or default[: len(names)]
    return Classes(final, ((0, 0, 0), *colors) if added else colors, table)


def output_names(items: Sequence[Annotation], source: Path) -> list[str]:
    """Return the name of each image below images/: its base name, behind its split.

    If base names repeat within a split, the names of this split include their folders.

    Raises:
        DataError: two annotations of one image, or images that differ only in their extension.
    """
    plain = [_below(item.split, item.image.name) for item in items]
    counts = Counter(map(_stem, plain))
    deep = {item.split for item, name in zip(items, plain, strict=True) if counts[_stem(name)] > 1}
    names = [
        _below(item.split, relative(item.image, source)) if item.split in deep else name
        for item, name in zip(items, plain, strict=True)
    ]
    first: dict[str, Annotation] = {}
    for item, name in zip(items, names, strict=True):
        other = first.setdefault(_stem(name), item)
        if other is not item:
            raise _same_name(other, item, source)
    return names


def repeated_images(items: Sequence[Annotation]) -> list[str]:
    """Return a warning for each group of splits that share images."""
    splits: dict[Path, set[str]] = {}
    for item in items:
        splits.setdefault(item.image, set()).add(item.split or "(none)")
    shared = Counter(" and ".join(sorted(names)) for names in splits.values() if len(names) > 1)
    return [
        f"{count} images are in the splits {names}: a score on training images is too high"
        for names, count in shared.items()
    ]


def relative(path: Path, source: Path) -> str:
    """Return a path relative to the source folder if it is inside, with forward slashes."""
    absolute, folder = (Path(os.path.abspath(item)) for item in (path, source))
    inside = absolute.is_relative_to(folder)
    return (absolute.relative_to(folder) if inside else absolute).as_posix()


def _same_name(first: Annotation, second: Annotation, source: Path) -> DataError:
    image, split = one_line(relative(second.image, source)), f"the split {second.split!r}"
    if first.image == second.image:
        message = f"the image {image} has two annotations in {split if second.split else 'the set'}"
        if first.source != second.source:
            message += f", the other one in {one_line(str(first.source))}"
        return fault(second.source, message, "one annotation for each image")
    both = some([relative(item.image, source) for item in (first, second)])
    return fault(second.source, f"the images {both} would have masks of the same name",
                 "names that differ not only in the extension", "rename one of them.")  # fmt: skip


def _below(split: str, name: str) -> str:
    return f"{split}/{name}" if split else name


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].lower()
