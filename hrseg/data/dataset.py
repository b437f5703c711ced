"""Dataset of image and mask files, and the check of its files before training."""

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hrseg.data.cache import Cache
from hrseg.data.checksums import Manifest
from hrseg.data.images import Array, header_size, named, read_image
from hrseg.data.masks import ReadMask
from hrseg.data.workers import at
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

MOST = 0.1  # share of a data set that may be skipped; beyond it the data set is another
Files = Sequence[tuple[Path, Path | None]]
Transform = Callable[[Array, Array, tuple[int, ...], int | None], tuple[Array, Array]]


@dataclass(frozen=True)
class Key:
    """What a sampler asks a data set for.

    Attributes:
        index: which image.
        epoch: selects the random draws, so that any sample of any epoch can be made again.
        repeat: shown only to even out the processes; its mask is all ignore.
        wanted: class that the crop must hold; None leaves it to chance.
        place: of a crop with a wanted class in its epoch, where an image may come several times.
    """

    index: int
    epoch: int = 0
    repeat: bool = False
    wanted: int | None = None
    place: int = 0

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return what decides the random draws of the sample."""
        seeds = (seed, self.epoch, self.index)
        # Not place alone: NumPy takes a 0 at the end for nothing.
        return seeds if self.wanted is None else (*seeds, self.place + 1)


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images and their masks as {"image": (3, h, w) RGB, "mask": (h, w), "name"}, both uint8.

    Masks hold train ids and 255 = ignore; an image without a mask gets one that is all ignore.

    Args:
        files: (image, mask) paths; the mask may be None.
        read_mask: path -> (H, W) train ids.
        transform: (image (H, W, 3), mask (H, W), seeds, wanted class or None) -> image and mask,
            augmented; None leaves both.
        seed: with the key it decides every random draw.

    Attributes:
        cache: where images and masks are taken from instead of their files; None: from these.
        manifest: what the files must be; None: that is not looked at.
        skips: what cannot be read gives a black image, all ignored, with its "fault", instead of an
            error.
    """

    def __init__(
        self,
        files: Files,
        read_mask: ReadMask,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        """Keep the list; nothing is read yet."""
        self.files = list(files)
        self.names = _names([image for image, _ in self.files])
        self.read_mask = read_mask
        self.transform = transform
        self.seed = seed
        self.cache: Cache | None = None
        self.manifest: Manifest | None = None
        self.skips = False

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """Return the item; a bare index means epoch 0.

        Raises:
            DataError: an unreadable file, a mask of another size, an unknown id.
        """
        key = key if isinstance(key, Key) else Key(key)
        fault = ""
        try:
            image, mask = self.read(key.index)
        except DataError as error:
            if not self.skips:
                raise
            fault = "" if key.repeat else str(error)
            image, mask = np.zeros((64, 64, 3), np.uint8), np.full((64, 64), IGNORE_INDEX, np.uint8)
            key = replace(key, wanted=None)
        if key.repeat:
            mask = np.full_like(mask, IGNORE_INDEX)
        if self.transform is not None:
            image, mask = self.transform(image, mask, key.seeds(self.seed), key.wanted)
        elif self.cache is not None:
            image, mask = image.copy(), mask.copy()  # tensors can be written to, the cache cannot
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "mask": torch.from_numpy(mask),
            "name": self.names[key.index],
            "fault": fault,
        }

    def read(self, index: int) -> tuple[Array, Array]:
        """Return image (H, W, 3) and mask (H, W) of one file pair, unchanged.

        Raises:
            DataError: an unreadable file, a mask of another size, an unknown id.
        """
        at(index)
        image_path, mask_path = self.files[index]
        if self.cache is not None:
            return self.cache.read(image_path)
        if self.manifest is not None:
            for path in filter(None, self.files[index]):
                self.manifest.check(path)
        image = read_image(image_path)
        if mask_path is None:
            return image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
        mask = self.read_mask(mask_path)
        _same_size(image_path, image.shape[:2], mask_path, mask.shape)
        return image, mask

    def mask_ids(self, path: Path) -> Array:
        """Return a mask's train ids (H, W); of one that is skipped, a pixel that is ignored."""
        try:
            return self.read_mask(path)
        except DataError:
            if not self.skips:
                raise
            return np.full((1, 1), IGNORE_INDEX, np.uint8)


def check_files(dataset: SegmentationDataset, sample: int = 16) -> None:
    """Compare the sizes of every image and mask by their headers; read an even sample whole.

    A sample without two classes is warned about: nothing can be learned from it.

    Raises:
        DataError: the first file that is unreadable, of another size, or holds an unknown id; of
            a data set that skips, where these are too many.
    """
    faults: dict[int, DataError] = {}
    for index, (image, mask) in enumerate(dataset.files):
        if mask is not None:
            with _kept(faults, index, dataset):
                _same_size(image, header_size(image), mask, header_size(mask))
    seen: set[int] = set()
    for index in np.unique(np.linspace(0, len(dataset) - 1, sample).astype(int)):
        with _kept(faults, index, dataset):
            seen.update(np.unique(dataset.read(int(index))[1]).tolist())
    if faults:
        _check_rest(list(faults.values()), len(dataset))
    if any(mask for _, mask in dataset.files) and len(seen - {IGNORE_INDEX}) < 2:
        warnings.warn(
            f"a sample of masks beside {dataset.files[0][1]} holds only the class ids "
            f"{sorted(seen - {IGNORE_INDEX})} ({IGNORE_INDEX} is ignored). "
            "Do the masks need an id_map?",
            stacklevel=2,
        )


@contextmanager
def _kept(faults: dict[int, DataError], index: int, dataset: SegmentationDataset) -> Iterator[None]:
    """Keep the error of an image, if the data set skips."""
    try:
        yield
    except DataError as error:
        if not dataset.skips:
            raise
        faults[int(index)] = error


def _check_rest(faults: Sequence[DataError], count: int) -> None:
    """Say what will be skipped; too many faults are an error."""
    first = str(faults[0]).partition("\n")[0]
    said = f"{len(faults)} of {count} images cannot be read, the first: {first}"
    if len(faults) > MOST * count:
        raise DataError(
            f"{said}\nThat is more than data.on_error=skip passes over ({100 * MOST:.0f} %). "
            "`hrseg data check` lists them all."
        )
    warnings.warn(f"data.on_error=skip: {said}", stacklevel=3)


def _same_size(
    image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]
) -> None:
    if image_size != mask_size:
        raise DataError(
            f"{named(mask)} is {mask_size[1]}x{mask_size[0]}, its image {named(image)} "
            f"{image_size[1]}x{image_size[0]} (width x height).\n"
            "Expected the same size; export the mask again at the image's size."
        )


def _names(images: Sequence[Path]) -> list[str]:
    """Return the stems, with as many folders in front as it takes to tell the images apart."""
    parts = [path.relative_to(path.anchor).with_suffix("").parts for path in images]
    for depth in range(1, 21):
        # images.json needs UTF-8, which a file name may lack.
        names = [os.fsencode("_".join(part[-depth:])).decode(errors="replace") for part in parts]
        if len(set(names)) == len(set(images)):
            return names
    # a_b/c and a/b_c
    return [f"{names[place]}-{place}" for place in range(len(images))]
