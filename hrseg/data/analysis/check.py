"""Check of every file of a data set: contents and faults of each split."""

import hashlib
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from hrseg.data.analysis.leakage import Leakage, Pictures, find_leakage
from hrseg.data.analysis.signatures import Floats, signature
from hrseg.data.bands import read_bands
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files, exif_note, pair_label, size_fix
from hrseg.data.images import header_of, printable_path
from hrseg.data.masks import ReadMask, mask_size
from hrseg.data.workers import WatchedLoader, report_sample
from hrseg.errors import DataError
from hrseg.utils.channels import Channels, as_picture
from hrseg.utils.constants import IGNORE_INDEX

Counts = npt.NDArray[np.int64]
_PREFETCH = 4  # images per worker
_DUPLICATE_FIX = "Expected: different images. Fix: remove it from one of the splits."
_OUTSIDE = "links to files outside data.root, followed"


@dataclass(frozen=True)
class Fault:
    """Faulty file, with the fault and the fix."""

    file: Path
    message: str


def _per_id() -> Counts:
    return np.zeros(256, np.int64)


def _per_channel(count: int = 3) -> Counts:
    return np.zeros(count, np.int64)


@dataclass
class Split:
    """Total contents of the files of a split, or of one pair.

    Counts per id have 256 entries; counts per channel are RGB, or those of other channels.
    """

    name: str = ""
    files: Files = ()
    expected: int | None = None  # the official number of images
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)  # images of (height, width)
    pixels: Counts = field(default_factory=_per_id)
    images: Counts = field(default_factory=_per_id)  # images with the id
    surroundings: Counts = field(default_factory=_per_id)  # pixels of the images with the id
    sums: Counts = field(default_factory=_per_channel)
    squares: Counts = field(default_factory=_per_channel)
    file_notes: dict[str, list[Path]] = field(default_factory=dict)  # note -> files
    digests: dict[Path, str] = field(default_factory=dict)  # sha256 of each file
    signatures: dict[Path, Floats] = field(default_factory=dict)  # of each image, for leakage
    notes: list[str] = field(default_factory=list)  # on the whole split
    faults: list[Fault] = field(default_factory=list)

    def add(self, pair: "Split") -> None:
        """Add the contents of one image and its mask."""
        self.sizes += pair.sizes
        self.pixels += pair.pixels
        self.images += pair.images
        self.surroundings += pair.surroundings
        self.sums += pair.sums
        self.squares += pair.squares
        for note, files in pair.file_notes.items():
            self.note(note, *files)
        self.digests |= pair.digests
        self.signatures |= pair.signatures
        self.faults += pair.faults

    def note(self, note: str, *files: Path) -> None:
        """Add a note on some files."""
        self.file_notes.setdefault(note, []).extend(files)

    def remarks(self, names: Sequence[str]) -> list[str]:
        """Return all notes, one per line, with the first file as an example."""
        lines = list(self.notes)
        if never := [row["name"] for row in self.class_rows(names) if not row["pixels"]]:
            lines.append(f"never seen: {', '.join(never)}")
        for note, files in self.file_notes.items():
            lines.append(
                f"{note}: {f'{len(files):,}, e.g. ' * (len(files) > 1)}{printable_path(files[0])}"
            )
        return lines

    def size_rows(self) -> list[dict[str, int]]:
        """Return the image sizes and their numbers of images, most frequent first."""
        return [
            {"height": height, "width": width, "images": count}
            for (height, width), count in self.sizes.most_common()
        ]

    def class_rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return pixels and images of each class; [] without masks."""
        if not self.pixels.any():
            return []
        return [
            {"name": name, "pixels": int(self.pixels[i]), "images": int(self.images[i])}
            for i, name in enumerate(names)
        ]


def find_split(data: SegmentationDataModule, name: str) -> Split:
    """Pair the files of a split; unpaired files are a fault of a split without files."""
    split = Split(name, expected=data.expected_images.get(name))
    try:
        split.files = data.dataset(name).files
        split.sums, split.squares = _per_channel(data.in_channels), _per_channel(data.in_channels)
        if not split.files:
            raise DataError(f"{data.root} contains no images of split {name}.")
    except DataError as error:
        split.faults.append(Fault(data.root, str(error)))
        return split
    root = Path(os.path.realpath(data.root))
    for file in (file for pair in split.files for file in pair if file):
        outside = not Path(os.path.realpath(file)).is_relative_to(root)
        if outside and file.is_relative_to(data.root):
            split.note(_OUTSIDE, file)
    if note := data.shortfall(name, len(split.files)):
        split.notes.append(note.removeprefix(f"split {name} in {data.root}: "))
    if bare := sum(mask is None for _, mask in split.files):
        split.notes.append(f"{bare:,} images without a mask")
    return split


def check_splits(
    splits: Sequence[Split],
    read_mask: ReadMask,
    workers: int,
    patience: float | None = None,
    track: Callable[[Iterable[Split], int], Iterable[Split]] = lambda pairs, total: pairs,
    channels: Channels | None = None,
) -> None:
    """Read all files of some splits, in order, and add their contents to the splits.

    A duplicate image is a fault if it is in two splits, else a note.

    Args:
        splits: results of `find_split`.
        read_mask: path -> (H, W) train ids; pickled for the workers.
        workers: number of processes; 0: this process.
        patience: maximum of seconds per image; None: no limit.
        track: wraps the pairs and their total, for a progress bar.
        channels: of the images; None: RGB uint8.

    Raises:
        DataError: a worker process was killed or hangs.
    """
    jobs = [(split, image) for split in splits for image, _ in split.files]
    pairs = PairCheck([pair for split in splits for pair in split.files], read_mask, channels)
    prefetch = _PREFETCH if workers else None
    loader = WatchedLoader(
        pairs, patience, batch_size=None, num_workers=workers, prefetch_factor=prefetch
    )
    originals: dict[str, tuple[Split, Path]] = {}
    for pair, (split, image) in zip(track(loader, len(jobs)), jobs, strict=True):
        split.add(pair)
        digest = pair.digests.get(image, "")
        if digest in originals:
            other, original = originals[digest]
            if other is split:
                split.note("duplicate images", image)
                continue
            same = "file" if image.resolve() == original.resolve() else "bytes"
            message = (
                f"the same {same} as {printable_path(original)} of split {other.name}.\n"
                f"{_DUPLICATE_FIX}"
            )
            split.faults.append(Fault(image, message))
        elif digest:
            originals[digest] = split, image


def compare_splits(data: SegmentationDataModule, splits: Sequence[Split]) -> list[Leakage]:
    """Return the near neighbours in training of each other split, after `check_splits`."""
    parts = data.unions.get(data.train_split, (data.train_split,))
    read = [(split.name, split.signatures) for split in splits if split.signatures]
    trains = {path: row for name, rows in read if name in parts for path, row in rows.items()}
    if not trains:
        return []
    train = _pictures(data.root, data.train_split, trains)
    return [
        find_leakage(train, _pictures(data.root, name, rows))
        for name, rows in read
        if name not in parts
    ]


def _pictures(root: Path, split: str, signatures: Mapping[Path, Floats]) -> Pictures:
    return Pictures(root, split, list(signatures), np.stack(list(signatures.values())))


class PairCheck(Dataset[Split]):
    """Dataset of the contents and faults of each pair, for the workers of a DataLoader."""

    def __init__(self, files: Files, read_mask: ReadMask, channels: Channels | None = None) -> None:
        self.files, self.read_mask, self.channels = files, read_mask, channels

    def __len__(self) -> int:
        return len(self.files)

    def label(self, index: int) -> str:
        """Return the files of a pair, for messages."""
        return pair_label(self.files[index])

    def __getitem__(self, index: int) -> Split:
        """Read both files completely; return their contents and faults."""
        report_sample(index)
        image, mask = self.files[index]
        count = self.channels.count if self.channels else 3
        pair = Split(sums=_per_channel(count), squares=_per_channel(count))
        try:
            _add_image(pair, image, mask, self.channels)
        except DataError as error:
            pair.faults.append(Fault(image, str(error)))
        if mask is not None:
            try:
                _add_mask(pair, image, mask, self.read_mask(mask))
            except DataError as error:
                pair.faults.append(Fault(mask, str(error)))
        return pair


def _add_image(pair: Split, path: Path, mask: Path | None, channels: Channels | None) -> None:
    try:
        size = mask_size(mask) if mask else None
    except DataError:  # reported with the mask
        size = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        image, _ = read_bands(path, channels, size)
    for warning in caught:
        pair.note(str(warning.message), path)
    pair.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    pair.signatures[path] = signature(as_picture(image, channels))
    pair.sizes[image.shape[0], image.shape[1]] += 1
    planes = cv2.split(channels.in_8_bits(image) if channels else image)
    # OpenCV returns floats; in some builds the norm is the square of a rounded square root.
    pair.sums += np.rint([cv2.sumElems(plane)[0] for plane in planes]).astype(np.int64)
    squares = [cv2.norm(plane, cv2.NORM_L2SQR) for plane in planes]
    pair.squares += np.rint(squares).astype(np.int64)
    if note := exif_note(*header_of(path, size)[1:]):
        pair.note(note, path)


def _add_mask(pair: Split, image: Path, path: Path, ids: npt.NDArray[np.uint8]) -> None:
    pair.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
    pair.pixels += np.bincount(ids.ravel(), minlength=256)
    pair.images += pair.pixels > 0
    pair.surroundings += pair.images * ids.size
    rows, columns = ids.shape
    if pair.sizes and (rows, columns) not in pair.sizes:
        [(height, width)] = pair.sizes
        wrong = f"{columns}x{rows}, its image {width}x{height} (width x height)."
        pair.faults.append(Fault(path, f"{wrong}\n{size_fix(image)}"))
    if not pair.pixels[:IGNORE_INDEX].any():
        pair.note("masks all ignored", path)
