"""Samplers: the order of an epoch, class-balanced sampling, and the share of each process."""

import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from pytorch_lightning.utilities import rank_zero_only
from torch.utils.data import DistributedSampler

from hrseg.data.dataset import Files, Key
from hrseg.data.masks import ReadMask
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


class EpochSampler(DistributedSampler[Key]):
    """This process's share of an epoch, as keys; the base of training and evaluation.

    A DistributedSampler by type, so that Lightning sets its epoch and never replaces it.
    """

    def __init__(self, dataset: Sized, world: int = 1, rank: int = 0, seed: int = 0) -> None:
        """Take the share of process `rank` of `world`."""
        super().__init__(dataset, world, rank, seed=seed)  # type: ignore[arg-type]
        self.size = len(dataset)

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys of this process, in the epoch that `set_epoch` told."""
        return iter(self.keys()[self.rank :: self.num_replicas])

    def __len__(self) -> int:
        """Return the number of keys of this process."""
        return self.num_samples

    def keys(self) -> list[Key]:
        """Return the keys of all processes; equally many for each."""
        raise NotImplementedError


class TrainSampler(EpochSampler):
    """All images in an order that (seed, epoch) decides, cut to a multiple of the global batch.

    Each global batch holds the same samples for any number of processes. A class that is drawn
    takes the place of the image that the order has there; the other places stay as they are.
    """

    def __init__(
        self,
        dataset: Sized,
        world: int = 1,
        rank: int = 0,
        seed: int = 0,
        batch_size: int = 1,
        class_draw: ClassDraw | None = None,
    ) -> None:
        """Cut to a multiple of the global `batch_size`, which `world` divides."""
        super().__init__(dataset, world, rank, seed)
        self.class_draw = class_draw
        self.total_size = self.size // batch_size * batch_size
        self.num_samples = self.total_size // world
        self.resumed: tuple[int, int] | None = None

    def resume(self, epoch: int, done: int) -> None:
        """Begin amid an epoch, after `done` keys of this process; later epochs are whole."""
        self.resumed = epoch, done
        self.set_epoch(epoch)  # workers are given keys before Lightning tells the epoch

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys of this process that are left of the epoch."""
        epoch, done = self.resumed or (self.epoch, 0)
        return islice(super().__iter__(), done if epoch == self.epoch else 0, None)

    def keys(self) -> list[Key]:
        """Return a permutation that is another one in each epoch, some places drawn by class."""
        random = np.random.default_rng((self.seed, self.epoch))
        order = random.permutation(self.size)[: self.total_size].tolist()
        return [self._key(index, place, random) for place, index in enumerate(order)]

    def _key(self, index: int, place: int, random: np.random.Generator) -> Key:
        drawn = self.class_draw.draw(random) if self.class_draw is not None else None
        if drawn is None:
            return Key(index, self.epoch)
        image, wanted = drawn
        return Key(image, self.epoch, wanted=wanted, place=place)


class EvaluationSampler(EpochSampler):
    """All images in their order; repeats that even out the processes are marked, never scored."""

    def keys(self) -> list[Key]:
        """Return every index once, then marked repeats."""
        positions = range(self.num_samples * self.num_replicas)
        return [Key(i % self.size, repeat=i >= self.size) for i in positions]
