"""Dataset of image and mask files, and the check of its files before training."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hrseg.data.cache import Cache
from hrseg.data.checksums import Manifest, digest_of
from hrseg.data.images import Array, header_of, header_size, named, read_image
from hrseg.data.masks import ReadMask
from hrseg.data.workers import at
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import one_line

MOST = 0.1  # share of a data set that may be skipped
Files = Sequence[tuple[Path, Path | None]]
Transform = Callable[[Array, Array, tuple[int, ...], int | None], tuple[Array, Array]]


@dataclass(frozen=True)
class Key:
    """Request of a sampler for the image `index` with the random draws of `epoch`.

    A `repeat` only evens out the processes; its mask is all ignore. The crop contains the class
    `wanted`. As such an image may be drawn several times, `position` is its index in the epoch.
    """

    index: int
    epoch: int = 0
    repeat: bool = False
    wanted: int | None = None
    position: int = 0

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seeds of the sample's random draws."""
        seeds = (seed, self.epoch, self.index)
        # Plus 1: NumPy ignores a 0 at the end.
        return seeds if self.wanted is None else (*seeds, self.position + 1)


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images and their masks as {"image": (3, h, w) RGB, "mask": (h, w), "name"}, both uint8.

    `files` are (image, mask) paths; the mask of an image without one is all ignore. `read_mask`
    returns train ids (H, W), 255 = ignore. `transform` gets image (H, W, 3), mask (H, W), seeds and
    the wanted class; None: whole images. `seed` and the key decide every random draw.
    """

    def __init__(
        self,
        files: Files,
        read_mask: ReadMask,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        """Keep the arguments; nothing is read yet."""
        self.files = list(files)
        self.names = _names([image for image, _ in self.files])
        self.read_mask, self.transform, self.seed = read_mask, transform, seed
        self.cache: Cache | None = None  # instead of the files
        self.manifest: Manifest | None = None  # checksums that the files must have
        self.skips = False  # an unreadable pair is a black image, all ignored, with its "fault"

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """Return the item; a bare index means epoch 0. Errors as `read`."""
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
        """Return image (H, W, 3) and mask (H, W) of a pair; DataError for unreadable files."""
        at(index)
        if self.cache is not None:
            return self.cache.read(self.files[index][0])
        if self.manifest is not None:
            for path in filter(None, self.files[index]):
                self.manifest.compare(path, digest_of(path))
        return read_pair(self.files[index], self.read_mask)

    def label(self, index: int) -> str:
        """Return the name of an item in messages: its files."""
        return pair_label(self.files[index])

    def check_header(self, index: int) -> str:
        """Compare the sizes of image and mask by their headers; return a note on EXIF, or ""."""
        image, mask = self.files[index]
        if mask is None:
            return ""
        mask_size = header_size(mask)
        size, *orientations = header_of(image, mask_size)
        _same_size(image, size, mask, mask_size)
        return exif_note(*orientations)

    def mask_ids(self, path: Path) -> Array:
        """Return a mask's train ids (H, W); one ignored pixel for a skipped mask."""
        try:
            return self.read_mask(path)
        except DataError:
            if not self.skips:
                raise
            return np.full((1, 1), IGNORE_INDEX, np.uint8)


def pair_label(pair: tuple[Path, Path | None]) -> str:
    """Return the files of a pair for a message."""
    return f"{pair[0]}, mask {pair[1]}" if pair[1] else str(pair[0])


def read_pair(pair: tuple[Path, Path | None], read_mask: ReadMask) -> tuple[Array, Array]:
    """Return image (H, W, 3) and mask (H, W), all ignored without a mask; errors as their readers.

    A mask of another size than the image, stored or turned by its EXIF orientation, is a DataError.
    """
    if pair[1] is None:
        image = read_image(pair[0])
        return image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
    mask = read_mask(pair[1])
    image = read_image(pair[0], (mask.shape[0], mask.shape[1]))
    _same_size(pair[0], image.shape[:2], pair[1], mask.shape)
    return image, mask


def check_files(dataset: SegmentationDataset, sample: int = 16) -> set[int]:
    """Compare the sizes of every image and mask by their headers; read an even sample whole.

    Return the train ids of the sample.

    DataError: the first unreadable pair; for a data set that skips: too many of them. A sample
    without two classes is a warning: nothing can be learned from it.
    """
    faults: list[str] = []
    notes: dict[str, list[int]] = {}
    ids: set[int] = set()
    count = len(dataset)
    decoded = set(np.linspace(0, count - 1, min(sample, count)).astype(int).tolist())
    for index in range(count):
        try:
            if note := dataset.check_header(index):
                notes.setdefault(note, []).append(index)
            if index in decoded:
                ids.update(np.unique(dataset.read(index)[1]).tolist())
        except DataError as error:
            if not dataset.skips:
                raise
            faults.append(str(error).partition("\n")[0])
    if faults:
        message = f"{len(faults)} of {count} images cannot be read, the first: {faults[0]}"
        if len(faults) > MOST * count:
            raise DataError(
                f"{message}\nThat is more than data.on_error=skip passes over "
                f"({100 * MOST:.0f} %). `hrseg data check` lists them all."
            )
        warnings.warn(f"data.on_error=skip: {message}", stacklevel=2)
    for note, turned in notes.items():
        example = one_line(dataset.label(turned[0]))
        warnings.warn(f"{len(turned)} {note}, e.g. {example}", stacklevel=2)
    if any(mask for _, mask in dataset.files) and len(ids - {IGNORE_INDEX}) < 2:
        warnings.warn(
            f"a sample of masks beside {dataset.files[0][1]} holds only the class ids "
            f"{sorted(ids - {IGNORE_INDEX})} ({IGNORE_INDEX} is ignored). "
            "Do the masks need an id_map?",
            stacklevel=2,
        )
    return ids


def exif_note(orientation: int, applied: int) -> str:
    """Return how the EXIF orientation of an image is treated; "" for an upright image."""
    if orientation == 1:
        return ""
    if applied == 1:
        return "images used as stored, the size of their masks, without their EXIF orientation"
    return "images turned upright by their EXIF orientation, as annotation tools do"


def size_repair(image: Path) -> str:
    """Return the expected size of a mask that differs from `image`, and the fix."""
    _, orientation, _ = header_of(image)
    if orientation < 5:
        return "Expected the same size; export the mask again at the image's size."
    return (
        f"Expected the same size, or height and width exchanged (EXIF orientation {orientation}).\n"
        "Fix: export the mask again from the photo in its full size."
    )


def _same_size(
    image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]
) -> None:
    if image_size != mask_size:
        raise DataError(
            f"{named(mask)} is {mask_size[1]}x{mask_size[0]}, its image {named(image)} "
            f"{image_size[1]}x{image_size[0]} (width x height).\n{size_repair(image)}"
        )


def _names(images: Sequence[Path]) -> list[str]:
    """Return the stems, with as many folders in front as unique names need."""
    parts = [path.relative_to(path.anchor).with_suffix("").parts for path in images]
    for depth in range(1, 21):
        # images.json needs UTF-8, which a file name may lack.
        names = [os.fsencode("_".join(part[-depth:])).decode(errors="replace") for part in parts]
        if len(set(names)) == len(set(images)):
            return names
    return [f"{name}-{index}" for index, name in enumerate(names)]  # a_b/c and a/b_c
