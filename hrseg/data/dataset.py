"""Dataset of image and mask files, and the check of the files before training."""

import os
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from hrseg.data.bands import check_bands, image_header, read_bands
from hrseg.data.cache import Cache
from hrseg.data.checksums import Manifest, digest_of
from hrseg.data.images import Array, header_of, printable_path
from hrseg.data.masks import ReadMask, mask_size
from hrseg.data.workers import report_sample
from hrseg.errors import DataError
from hrseg.utils.channels import Channels, Pixels
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.text import one_line

MAX_SKIPPED = 0.1  # share of the images of a split
Files = Sequence[tuple[Path, Path | None]]
Transform = Callable[[Pixels, Array, tuple[int, ...], int | None], tuple[Pixels, Array]]


@dataclass(frozen=True)
class Key:
    """Sample of an epoch: the image `index` with the random draws of `epoch`.

    A `repeat` only evens out the processes; its mask is all ignored. If `wanted` is a class, the
    crop contains it. Such an image may be drawn several times: `position` is its index in the
    epoch.
    """

    index: int
    epoch: int = 0
    repeat: bool = False
    wanted: int | None = None
    position: int = 0

    def seeds(self, seed: int) -> tuple[int, ...]:
        """Return the seeds of the sample's random draws."""
        seeds = (seed, self.epoch, self.index)
        # NumPy ignores a 0 at the end.
        return seeds if self.wanted is None else (*seeds, self.position + 1)


class SegmentationDataset(Dataset[dict[str, Any]]):
    """Images and masks as {"image": (3, h, w) RGB, "mask": (h, w), "name", "fault"}, uint8.

    With `channels`, images are (N, h, w) of their data type.

    Args:
        files: (image, mask) paths. If a mask is None, the item's mask is all ignored.
        read_mask: path -> train ids (H, W), 255 = ignore.
        transform: called with image (H, W, 3), mask (H, W), seeds and the wanted class, or None;
            returns the crops of both. None: whole images.
        seed: with the key it decides every random draw.
    """

    def __init__(
        self,
        files: Files,
        read_mask: ReadMask,
        transform: Transform | None = None,
        seed: int = 0,
    ) -> None:
        self.files = list(files)
        self.names = _names([image for image, _ in self.files])
        self.read_mask, self.transform, self.seed = read_mask, transform, seed
        self.cache: Cache | None = None  # read instead of the files
        self.manifest: Manifest | None = None  # expected checksums of the files
        self.channels: Channels | None = None  # None: RGB uint8
        self.skips = (
            False  # if true, an unreadable pair is a black image, all ignored, with a "fault"
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, key: int | Key) -> dict[str, Any]:
        """Return the item; a plain index means epoch 0. Errors as `read`."""
        key = key if isinstance(key, Key) else Key(key)
        fault = ""
        try:
            image, mask = self.read(key.index)
        except DataError as error:
            if not self.skips:
                raise
            fault = "" if key.repeat else str(error)
            image, mask = self._black(), np.full((64, 64), IGNORE_INDEX, np.uint8)
            key = replace(key, wanted=None)
        if key.repeat:
            mask = np.full_like(mask, IGNORE_INDEX)
        if self.transform is not None:
            image, mask = self.transform(image, mask, key.seeds(self.seed), key.wanted)
        elif self.cache is not None:
            image, mask = image.copy(), mask.copy()  # the cache is read-only; tensors are writable
        return {
            "image": torch.from_numpy(image).permute(2, 0, 1),
            "mask": torch.from_numpy(mask),
            "name": self.names[key.index],
            "fault": fault,
        }

    def _black(self) -> Pixels:
        if self.channels is None:
            return np.zeros((64, 64, 3), np.uint8)
        return np.zeros((64, 64, self.channels.count), self.channels.dtype)

    def read(self, index: int) -> tuple[Pixels, Array]:
        """Return image (H, W, N) and mask (H, W) of a pair; DataError: unreadable files."""
        report_sample(index)
        if self.cache is not None:
            return self.cache.read(self.files[index][0])
        if self.manifest is not None:
            for path in filter(None, self.files[index]):
                self.manifest.compare(path, digest_of(path))
        return read_pair(self.files[index], self.read_mask, self.channels)

    def label(self, index: int) -> str:
        """Return the files of an item, for messages."""
        return pair_label(self.files[index])

    def check_header(self, index: int) -> str:
        """Compare the sizes of image and mask by their headers; return an EXIF note, or "".

        With `channels` also check the number of bands and the data type.
        """
        image, mask = self.files[index]
        if self.channels is not None:
            check_bands(image, image_header(image), self.channels)
        if mask is None:
            return ""
        expected = mask_size(mask)
        size, *orientations = header_of(image, expected)
        _check_same_size(image, size, mask, expected)
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
    """Return the files of a pair, for messages."""
    return f"{pair[0]}, mask {pair[1]}" if pair[1] else str(pair[0])


def read_pair(
    pair: tuple[Path, Path | None], read_mask: ReadMask, channels: Channels | None = None
) -> tuple[Pixels, Array]:
    """Return image (H, W, N) and mask (H, W); without a mask file all is ignored.

    Transparent pixels and pixels without a value (nodata) are ignored.

    Raises:
        DataError: a file is unreadable, or the mask's size is neither the stored size of the image
            nor the size after its EXIF orientation is applied.
    """
    if pair[1] is None:
        image, _ = read_bands(pair[0], channels)
        return image, np.full(image.shape[:2], IGNORE_INDEX, np.uint8)
    mask = read_mask(pair[1])
    image, valid = read_bands(pair[0], channels, (mask.shape[0], mask.shape[1]))
    _check_same_size(pair[0], image.shape[:2], pair[1], mask.shape)
    if valid is not None and pair[1] != pair[0]:  # with mask_format alpha the image is the mask
        mask = np.where(valid, mask, np.uint8(IGNORE_INDEX))
    return image, mask


def check_files(dataset: SegmentationDataset, sample: int = 16) -> set[int]:
    """Compare the sizes of every image and mask by their headers; decode an even sample.

    Warn if the sample has fewer than two classes, since nothing can be learned from it.

    Args:
        dataset: dataset to check.
        sample: number of decoded pairs.

    Returns:
        The train ids of the sample.

    Raises:
        DataError: the first unreadable pair; if the dataset skips them: too many of them.
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
        if len(faults) > MAX_SKIPPED * count:
            raise DataError(
                f"{message}\nExpected: at most {100 * MAX_SKIPPED:.0f} % with data.on_error=skip.\n"
                "Fix: repair or remove the files; `hrseg data check` lists them."
            )
        warnings.warn(f"data.on_error=skip: {message}", stacklevel=2)
    for note, turned in notes.items():
        example = one_line(dataset.label(turned[0]))
        warnings.warn(f"{len(turned)} {note}, e.g. {example}", stacklevel=2)
    if any(mask for _, mask in dataset.files) and len(ids - {IGNORE_INDEX}) < 2:
        warnings.warn(
            f"a sample of the masks, such as {dataset.files[0][1]}, contains only the class ids "
            f"{sorted(ids - {IGNORE_INDEX})} ({IGNORE_INDEX} is ignored). "
            "Do the masks need an id_map?",
            stacklevel=2,
        )
    return ids


def exif_note(orientation: int, applied: int) -> str:
    """Return the effect of an EXIF orientation, for a note; "" for an upright image."""
    if orientation == 1:
        return ""
    if applied == 1:
        return "images used as stored, the size of their masks; EXIF orientation not applied"
    return "images turned upright by their EXIF orientation, as annotation tools do"


def size_fix(image: Path) -> str:
    """Return the expected size of a mask of another size than `image`, and the fix."""
    _, orientation, _ = header_of(image)
    if orientation < 5:
        return "Expected: the same size. Fix: export the mask again at the image's size."
    return (
        f"Expected: the same size, or height and width swapped (EXIF orientation {orientation}).\n"
        "Fix: export the mask again from the photo at its full size."
    )


def _check_same_size(
    image: Path, image_size: tuple[int, ...], mask: Path, mask_size: tuple[int, ...]
) -> None:
    if image_size != mask_size:
        raise DataError(
            f"{printable_path(mask)} is {mask_size[1]}x{mask_size[0]}, "
            f"its image {printable_path(image)} {image_size[1]}x{image_size[0]} (width x height).\n"
            f"{size_fix(image)}"
        )


def _names(images: Sequence[Path]) -> list[str]:
    """Return unique names: the stems, after as many parent folders as needed."""
    parts = [path.relative_to(path.anchor).with_suffix("").parts for path in images]
    for depth in range(1, 21):
        # images.json needs UTF-8; a file name may be other bytes.
        names = [os.fsencode("_".join(part[-depth:])).decode(errors="replace") for part in parts]
        if len(set(names)) == len(set(images)):
            return names
    return [f"{name}-{index}" for index, name in enumerate(names)]  # a_b/c and a/b_c
