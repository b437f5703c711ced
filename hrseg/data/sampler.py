"""Which images an epoch shows, in which order, and this process's share of them."""

from collections.abc import Iterator, Sized
from itertools import islice

import numpy as np
from torch.utils.data import DistributedSampler

from hrseg.data.dataset import Key
from hrseg.data.presence import ClassDraw


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
