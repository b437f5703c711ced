"""Samplers: the order of an epoch, class-balanced sampling, and the share of each process."""

import warnings
from collections.abc import Iterator, Mapping, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from torch.utils.data import DistributedSampler

from hrseg.data.dataset import Files, Key
from hrseg.data.masks import ReadMask
from hrseg.errors import DataError
from hrseg.utils.console import track
from hrseg.utils.text import some


@dataclass(frozen=True)
class ClassDraw:
    """Draw of a class, all with the same probability, and of an image with that class.

    `share` of the samples, 0..1, are drawn so; `images` is a result of `images_by_class`.
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
    """Return class -> indices of the images with it; warn about classes in no image.

    All masks are read, in as many threads as `workers`. DataError: an unreadable mask, or no mask
    with a class.
    """

    def classes_of(mask: Path | None) -> list[int]:
        ids = read_mask(mask).ravel() if mask else np.zeros(0, np.uint8)
        return np.flatnonzero(np.bincount(ids, minlength=256)[: len(class_names)]).tolist()

    images: dict[int, list[int]] = {}
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        classes = pool.map(classes_of, [mask for _, mask in files])
        for index, ids in enumerate(track(classes, len(files), "classes of the training masks")):
            for train in ids:
                images.setdefault(train, []).append(index)
    absent = [name for train, name in enumerate(class_names) if train not in images]
    if not images:
        raise DataError(
            f"class_uniform: none of {len(files)} training masks holds a class.\n"
            "Expected ids below 255, which is ignored. Do the masks need an id_map?"
        )
    if absent:
        warnings.warn(
            f"class_uniform never draws {len(absent)} of {len(class_names)} classes, which no "
            f"training mask holds: {some(absent, 5)}",
            stacklevel=2,
        )
    return dict(sorted(images.items()))


class EpochSampler(DistributedSampler[Key]):
    """This process's share of an epoch, as keys; the base of training and evaluation.

    A DistributedSampler by type, so that Lightning sets its epoch and never replaces it.
    """

    def __init__(self, dataset: Sized, world: int = 1, rank: int = 0, seed: int = 0) -> None:
        """Select the share of process `rank` of `world`."""
        super().__init__(dataset, world, rank, seed=seed)  # type: ignore[arg-type]
        self.size = len(dataset)

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys of this process in the epoch of `set_epoch`."""
        return iter(self.keys()[self.rank :: self.num_replicas])

    def keys(self) -> list[Key]:
        """Return the keys of all processes, equally many for each."""
        raise NotImplementedError


class TrainSampler(EpochSampler):
    """All images in an order that (seed, epoch) decides, cut to a multiple of the global batch.

    Each global batch has the same samples for any number of processes. An image drawn by class
    replaces the image at its position; the other positions stay as they are.
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
        """Begin inside an epoch, after `done` keys of this process; later epochs are whole."""
        self.resumed = epoch, done
        self.set_epoch(epoch)  # workers are given keys before Lightning sets the epoch

    def __iter__(self) -> Iterator[Key]:
        """Yield the remaining keys of the epoch for this process."""
        epoch, done = self.resumed or (self.epoch, 0)
        return islice(super().__iter__(), done if epoch == self.epoch else 0, None)

    def keys(self) -> list[Key]:
        """Return a permutation that differs in each epoch, some positions drawn by class."""
        random = np.random.default_rng((self.seed, self.epoch))
        keys = []
        for position, index in enumerate(random.permutation(self.size)[: self.total_size].tolist()):
            drawn = self.class_draw.draw(random) if self.class_draw is not None else None
            image, wanted = drawn or (index, None)
            keys.append(Key(image, self.epoch, wanted=wanted, position=position if drawn else 0))
        return keys


class EvaluationSampler(EpochSampler):
    """All images in their order; repeats that even out the processes are marked, never scored."""

    def keys(self) -> list[Key]:
        """Return every index once, then marked repeats."""
        positions = range(self.num_samples * self.num_replicas)
        return [Key(i % self.size, repeat=i >= self.size) for i in positions]
