"""Check of every file of a data set: contents of each split, and faults."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image
from torch.utils.data import Dataset

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.images import Array, named, read_image
from hrseg.data.masks import read_index_mask
from hrseg.data.workers import WatchedLoader, at
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

Counts = npt.NDArray[np.int64]
Read = Callable[[Path], Array]
Colors = Sequence[tuple[int, int, int]]


@dataclass(frozen=True)
class Fault:
    """What is wrong with a file, and how to repair it."""

    file: Path
    message: str


@dataclass
class Look:
    """What one image and its mask hold.

    Attributes:
        size: (height, width) of the image; None if it cannot be read.
        digests: sha256 of each file that was read; the image comes first.
        sums: sum of each channel's values, RGB.
        squares: sum of their squares.
        counts: pixels of each train id, 256 of them; None without a mask that can be read.
        notes: what is odd but no fault, with the file.
        faults: what is wrong.
    """

    size: tuple[int, int] | None = None
    digests: dict[Path, str] = field(default_factory=dict)
    sums: tuple[int, ...] = (0, 0, 0)
    squares: tuple[int, ...] = (0, 0, 0)
    counts: Counts | None = None
    notes: list[tuple[str, Path]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


class Looks(Dataset[Look]):
    """A look at each file pair; a data set, so that a DataLoader's workers can share the work."""

    def __init__(self, files: Files, read_mask: Read, palette: Colors) -> None:
        """Keep the list; nothing is read yet."""
        self.files, self.read_mask, self.palette = files, read_mask, palette

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.files)

    def __getitem__(self, index: int) -> Look:
        """Read both files whole, and return what they hold; a fault raises nothing."""
        at(index)
        image, mask = self.files[index]
        look = Look()
        _look_at_image(look, image)
        if mask is not None:
            self._look_at_mask(look, mask)
        return look

    def _look_at_mask(self, look: Look, path: Path) -> None:
        try:
            ids = self.read_mask(path)
        except DataError as error:
            message = str(error)
            if "unknown id" in message and _grey_of_colors(path, self.palette):
                message += (
                    "\nThe ids look like the grey values of the palette's colours: "
                    "export the masks as ids again."
                )
            look.faults.append(fault(path, message))
            return
        look.digests[path] = hashlib.sha256(path.read_bytes()).hexdigest()
        look.counts = np.bincount(ids.ravel(), minlength=256)
        if look.size is not None and look.size != ids.shape:
            (height, width), (rows, columns) = look.size, ids.shape
            wrong = f"{columns}x{rows}, its image {width}x{height} (width x height)."
            repair = "Expected the same size; export the mask again at the image's size."
            look.faults.append(Fault(path, f"{wrong}\n{repair}"))
        classes = np.count_nonzero(look.counts[:IGNORE_INDEX])
        if classes < 2:
            look.notes.append((("masks all ignored", "masks of a single class")[classes], path))


def _look_at_image(look: Look, path: Path) -> None:
    try:
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            image = read_image(path)
    except DataError as error:
        look.faults.append(fault(path, str(error)))
        return
    look.notes += [(str(warning.message), path) for warning in said]
    data = path.read_bytes()
    look.digests[path] = hashlib.sha256(data).hexdigest()
    look.size = (image.shape[0], image.shape[1])
    # OpenCV's doubles are whole numbers but for the square of a square root in some builds' norm.
    look.sums = tuple(round(value) for value in cv2.sumElems(image)[:3])
    planes = cv2.split(image)
    look.squares = tuple(round(cv2.norm(plane, cv2.NORM_L2SQR)) for plane in planes)
    if len(set(look.squares)) == 1 and all(np.array_equal(planes[0], p) for p in planes[1:]):
        look.notes.append(("grey images", path))
    if _exif_rotates(data):
        look.notes.append(("images that EXIF would rotate, used as stored", path))


def _exif_rotates(data: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(data)) as opened:
            # Asked for EXIF that it has not met, Pillow decodes a whole PNG to look behind it.
            exif = opened.getexif() if "exif" in opened.info else {}
            return int(exif.get(ExifTags.Base.Orientation, 1)) not in (0, 1)
    except Exception:  # damaged EXIF, of which nothing is used
        return False


def _grey_of_colors(path: Path, palette: Colors) -> bool:
    """Return whether all ids are greys that the palette's colours turn into, and not by chance."""
    found = np.unique(read_index_mask(path))
    colors = np.array([*palette, (0, 0, 0), (255, 255, 255)])
    greys = np.round(colors @ np.array([0.299, 0.587, 0.114]))
    near = {int(grey) + step for grey in greys for step in (-1, 0, 1)}
    chance = (len(near) / 256) ** len(found)
    return near.issuperset(found.tolist()) and chance < 0.01


def fault(file: Path, message: str) -> Fault:
    """Return a fault without the file's name at the head of its message."""
    for head in (f"{named(file)}: ", f"{named(file)} is ", f"{named(file)} "):
        message = message.removeprefix(head)
    return Fault(file, message)


_AHEAD = 4  # images that a worker is given before its results are asked for


@dataclass
class Split:
    """A split's files, and what was seen in them, added up.

    Attributes:
        name: of the split.
        files: (image, mask) paths.
        expected: the official number of images, if there is one.
        sizes: number of images of each (height, width).
        pixels: pixels of each train id, 256 of them.
        images: number of images that each id occurs in.
        surroundings: pixels of the images that each id occurs in.
        sums: sum of each channel over all pixels, RGB.
        squares: sum of their squares.
        odd: what is no fault, and the files that it was seen in.
        digests: sha256 of each file that was read.
        notes: remarks about the split as a whole.
        faults: what is wrong.
    """

    name: str
    files: Files = ()
    expected: int | None = None
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    pixels: Counts = field(default_factory=lambda: np.zeros(256, np.int64))
    images: Counts = field(default_factory=lambda: np.zeros(256, np.int64))
    surroundings: Counts = field(default_factory=lambda: np.zeros(256, np.int64))
    sums: list[int] = field(default_factory=lambda: [0, 0, 0])
    squares: list[int] = field(default_factory=lambda: [0, 0, 0])
    odd: dict[str, list[Path]] = field(default_factory=dict)
    digests: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)

    def add(self, look: Look) -> None:
        """Add what one image and its mask hold."""
        if look.size is not None:
            self.sizes[look.size] += 1
        self.sums = [a + b for a, b in zip(self.sums, look.sums, strict=True)]
        self.squares = [a + b for a, b in zip(self.squares, look.squares, strict=True)]
        if look.counts is not None:
            self.pixels += look.counts
            self.images += look.counts > 0
            self.surroundings += (look.counts > 0) * look.counts.sum()
        for note, file in look.notes:
            self.odd.setdefault(note, []).append(file)
        self.digests |= look.digests
        self.faults += look.faults

    def remarks(self, names: Sequence[str]) -> list[str]:
        """Return what is odd but no fault, a line each, with the first file as the example."""
        lines = list(self.notes)
        if never := [row["name"] for row in self.class_rows(names) if not row["pixels"]]:
            lines.append(f"never seen: {', '.join(never)}")
        for note, files in self.odd.items():
            lines.append(f"{note}: {f'{len(files):,}, e.g. ' * (len(files) > 1)}{named(files[0])}")
        return lines

    def size_rows(self) -> list[dict[str, int]]:
        """Return the sizes and the number of images of each, the most frequent first."""
        return [
            {"height": height, "width": width, "images": count}
            for (height, width), count in self.sizes.most_common()
        ]

    def class_rows(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """Return pixels and images of each class; nothing where no mask was read."""
        if not self.pixels.any():
            return []
        return [
            {"name": name, "pixels": int(self.pixels[i]), "images": int(self.images[i])}
            for i, name in enumerate(names)
        ]


def find_split(data: SegmentationDataModule, name: str) -> Split:
    """Pair the files of a split; files that do not pair are its one fault, and it has no files."""
    split = Split(name, expected=data.expected_images.get(name))
    try:
        split.files = data.dataset(name).files
        if not split.files:
            raise DataError(f"no images of split {name} in {data.root}")
    except DataError as error:
        split.faults.append(fault(data.root, str(error)))
        return split
    if links := [file for pair in split.files for file in pair if file and _leads_out(file, data)]:
        split.odd["links that lead out of data.root, followed"] = links
    if note := data.shortfall(name, len(split.files)):
        split.notes.append(note.removeprefix(f"split {name} in {data.root}: "))
    if bare := sum(mask is None for _, mask in split.files):
        some = f"{bare:,} images without a mask"
        split.notes.append("no masks" if bare == len(split.files) else some)
    return split


def look_through(
    splits: Sequence[Split],
    read_mask: Read,
    palette: Colors,
    workers: int,
    patience: float | None = None,
    track: Callable[[Iterable[Look], int], Iterable[Look]] = lambda looks, total: looks,
) -> None:
    """Look at all files of some splits, in order, and add what they hold to them.

    An image that was met before is a fault if that was in another split, else it is noted.

    Args:
        splits: as `find_split` returns them.
        read_mask: path -> (H, W) train ids; pickled for the workers.
        palette: RGB colour of each class, which masks turned to grey are recognised by.
        workers: processes; 0 for this one alone.
        patience: seconds that one of them may take for an image; None: for ever.
        track: wraps the looks and their total, to show the progress.

    Raises:
        DataError: a worker process was killed, or hangs.
    """
    jobs = [(split, image) for split in splits for image, _ in split.files]
    looks = Looks([pair for split in splits for pair in split.files], read_mask, palette)
    first: dict[str, tuple[Split, Path]] = {}
    ahead = _AHEAD if workers else None
    loader = WatchedLoader(
        looks, patience, batch_size=None, num_workers=workers, prefetch_factor=ahead
    )
    for look, (split, image) in zip(track(loader, len(jobs)), jobs, strict=True):
        split.add(look)
        digest = look.digests.get(image, "")
        if digest in first:
            _note_repeat(split, image, *first[digest])
        elif digest:
            first[digest] = split, image


def _leads_out(file: Path, data: SegmentationDataModule) -> bool:
    """Tell whether a file below the root lies elsewhere, by a link of its own or of a folder."""
    real, root = os.path.realpath(file), os.path.realpath(data.root)
    return file.is_relative_to(data.root) and not Path(real).is_relative_to(root)


def _note_repeat(split: Split, image: Path, other: Split, first: Path) -> None:
    same = "the same file as" if image.resolve() == first.resolve() else "the same bytes as"
    if other is split:
        split.odd.setdefault("images that are there twice", []).append(image)
        return
    split.faults.append(
        Fault(
            image,
            f"{same} {named(first)} of split {other.name}.\n"
            "Scores would be flattering: remove it from one of the two.",
        )
    )
