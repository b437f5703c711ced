"""Rare classes as often as frequent ones: the images that hold each class, and the draw of both."""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_only

from hrseg.data.base import ReadMask
from hrseg.data.dataset import Files
from hrseg.errors import DataError
from hrseg.utils.console import say

T = TypeVar("T")

_PATIENCE = 2.0  # seconds of silence


@dataclass(frozen=True)
class ClassDraw:
    """The draw of a class, each one as likely, and of an image that holds it.

    Attributes:
        share: of the samples that are drawn so, 0..1.
        images: class -> indices of the images that hold it, as `images_by_class` returns them.
    """

    share: float
    images: Mapping[int, Sequence[int]]

    def draw(self, random: np.random.Generator) -> tuple[int, int] | None:
        """Return (image, class), or None for the other samples."""
        if random.random() >= self.share:
            return None
        classes = list(self.images)
        wanted = classes[int(random.integers(len(classes)))]
        images = self.images[wanted]
        return images[int(random.integers(len(images)))], wanted


def images_by_class(
    files: Files, read_mask: ReadMask, class_names: Sequence[str], workers: int = 0
) -> dict[int, list[int]]:
    """Return class -> indices of the images that hold it; a class in no image is noted, not there.

    Args:
        files: (image, mask) paths; every mask is read.
        read_mask: path -> (H, W) train ids.
        class_names: one per train id.
        workers: threads; decoding lets them run side by side.

    Raises:
        DataError: a mask that cannot be read, or none with a class.
    """

    def classes_of(mask: Path | None) -> list[int]:
        ids = read_mask(mask).ravel() if mask else np.zeros(0, np.uint8)
        return np.flatnonzero(np.bincount(ids, minlength=256)[: len(class_names)]).tolist()

    images: dict[int, list[int]] = {train: [] for train in range(len(class_names))}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        found = pool.map(classes_of, [mask for _, mask in files])
        for index, classes in enumerate(_said_if_slow(found, len(files))):
            for train in classes:
                images[train].append(index)
    _note_absent([class_names[train] for train in images if not images[train]], class_names, files)
    return {train: indices for train, indices in images.items() if indices}


def _note_absent(absent: Sequence[str], class_names: Sequence[str], files: Files) -> None:
    if len(absent) == len(class_names):
        raise DataError(
            f"class_uniform: none of {len(files)} training masks holds a class.\n"
            "Expected ids below 255, which is ignored. Do the masks need an id_map?"
        )
    if absent:
        some = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        warnings.warn(
            f"class_uniform never draws {len(absent)} of {len(class_names)} classes, which no "
            f"training mask holds: {some}",
            stacklevel=3,
        )


def _said_if_slow(items: Iterable[T], count: int) -> Iterator[T]:
    due = time.monotonic() + _PATIENCE
    for item in items:
        if time.monotonic() > due:
            due = float("inf")
            rank_zero_only(say)(
                f"class_uniform: reading {count:,} training masks once, for their classes"
            )
        yield item
