"""Leakage between splits: near-duplicate images, and frames of one recording on both sides."""

import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hrseg.data.analysis.signatures import (
    RADIUS,
    SIMILARITY,
    Floats,
    hashes,
    mirrored,
    signature,
)
from hrseg.data.bands import read_bands
from hrseg.errors import DataError
from hrseg.utils.channels import Channels, as_picture
from hrseg.utils.system import processors
from hrseg.utils.text import one_line

FRAMES = 150  # largest difference of frame numbers of neighbours: 5 s of a video
_NUMBER = re.compile(r"\d+(?![0-9A-Za-z])")
_CELLS = 2_500_000  # pairs of a block of comparisons: 20 MiB of hashes
_SURE = 9  # frames whose comparisons are evidence: by chance all are alike once in 512 times
_EXAMPLES = 5
Numbers = npt.NDArray[np.int64]
Frames = dict[tuple[str, str], list[tuple[int, int]]]  # recording -> (frame number, image)


@dataclass(frozen=True)
class Pictures:
    """Images of one side of a split.

    Attributes:
        root: folder of the data set.
        split: name of the split.
        paths: the images.
        signatures: one for each image, (N, 64).
    """

    root: Path
    split: str
    paths: Sequence[Path]
    signatures: Floats

    def name(self, index: int) -> str:
        """Return the path of an image below the root."""
        path = self.paths[index]
        return (path.relative_to(self.root) if path.is_relative_to(self.root) else path).as_posix()

    def frames(self) -> Frames:
        """Return the frames of each recording, by their number.

        A recording is a folder, without the name of the split, and the name before the number.
        """
        frames: Frames = defaultdict(list)
        word = PurePath(self.split).stem
        for index, path in enumerate(self.paths):
            if numbers := list(_NUMBER.finditer(path.stem)):
                folder = PurePath(self.name(index)).parent.as_posix()
                recording = folder.replace(word, ""), path.stem[: numbers[-1].start()]
                frames[recording].append((int(numbers[-1][0][:18]), index))
        return frames


@dataclass(frozen=True)
class Neighbour:
    """Image of the other split, its near neighbour in training, and the kind of neighbourhood."""

    image: str  # path below the root
    train: str
    kind: Literal["picture", "frame"]


@dataclass(frozen=True)
class Leakage:
    """Near neighbours in training of the images of another split.

    Attributes:
        split: name of the other split.
        total: number of its images.
        neighbours: of each image with one; a similar picture precedes a frame.
    """

    split: str
    total: int
    neighbours: Sequence[Neighbour]

    @property
    def share(self) -> float:
        """Share of the images with a near neighbour, 0..1."""
        return len(self.neighbours) / max(1, self.total)

    def summary(self) -> dict[str, Any]:
        """Return the counts, at most five examples, and the message, for a JSON file."""
        chosen = self.neighbours[:: max(1, len(self.neighbours) // _EXAMPLES)][:_EXAMPLES]
        return {
            "split": self.split,
            "images": self.total,
            "near_neighbours": len(self.neighbours),
            "similar_pictures": self._count("picture"),
            "frames": self._count("frame"),
            "examples": [
                {"image": pair.image, "train": pair.train, "kind": pair.kind} for pair in chosen
            ],
            "message": self.message(),
        }

    def message(self) -> str:
        """Return a warning for the terminal and the report; "" without neighbours."""
        if not self.neighbours:
            return ""
        pictures, frames = self._count("picture"), self._count("frame")
        kinds = [_many(pictures, "near-duplicate")] * bool(pictures)
        near = f"within {FRAMES} numbers of a training frame"
        kinds += [f"{_many(frames, 'frame')} {near}"] * bool(frames)
        first = self.neighbours[0]
        count = len(self.neighbours)
        return (
            f"{count:,} of {self.total:,} images of split {self.split} "
            f"({100 * self.share:.1f} %) have a near neighbour in training: "
            f"{' and '.join(kinds)}, e.g. {one_line(first.image)} and {one_line(first.train)}.\n"
            "Scores on this split are too high for new images. "
            "Fix: keep each recording on one side, with data.group_by or other split folders."
        )

    def _count(self, kind: str) -> int:
        return sum(pair.kind == kind for pair in self.neighbours)


def read_pictures(
    root: Path, split: str, paths: Sequence[Path], channels: Channels | None = None
) -> Pictures:
    """Read images with a thread per processor; an unreadable image resembles no other."""
    with warnings.catch_warnings(), ThreadPoolExecutor(processors()) as pool:
        warnings.simplefilter("ignore")  # filters of several threads disturb each other
        signatures = list(pool.map(partial(_read_signature, channels), paths))
    return Pictures(root, split, paths, np.array(signatures, np.float32).reshape(-1, 64))


def _read_signature(channels: Channels | None, path: Path) -> Floats:
    try:
        return signature(as_picture(read_bands(path, channels)[0], channels))
    except DataError:
        return np.zeros(64, np.float32)


def find_leakage(train: Pictures, other: Pictures) -> Leakage:
    """Return the near neighbours in training of the images of another split.

    A similar picture differs in at most `RADIUS` bits of the hash and has a correlation of
    `SIMILARITY` or more, mirrored or not. A frame counts if the pictures confirm the recording.
    """
    frames, pictures = dict(_frame_neighbours(train, other)), dict(_similar_pictures(train, other))
    neighbours = [
        Neighbour(
            other.name(index),
            train.name(pictures.get(index, frames.get(index, 0))),
            "picture" if index in pictures else "frame",
        )
        for index in sorted({*frames, *pictures})
    ]
    return Leakage(other.split, len(other.paths), neighbours)


def _similar_pictures(train: Pictures, other: Pictures) -> Iterator[tuple[int, int]]:
    """Yield the index of each image with a similar training picture, and the most similar one."""
    if not len(train.paths):
        return
    columns = hashes(train.signatures)
    height = max(1, _CELLS // len(columns))
    for start in range(0, len(other.paths), height):
        block = other.signatures[start : start + height]
        best = np.zeros((len(block), len(columns)), np.float32)
        for rows in (block, mirrored(block)):
            bits = np.bitwise_count(hashes(rows)[:, None] ^ columns)
            np.maximum(best, np.where(bits <= RADIUS, rows @ train.signatures.T, 0), out=best)
        for row, match in enumerate(best.argmax(1).tolist()):
            if best[row, match] >= SIMILARITY:
                yield start + row, match


def _frame_neighbours(train: Pictures, other: Pictures) -> Iterator[tuple[int, int]]:
    """Yield the index of each frame near a training frame of its recording, and that frame.

    File names do not prove a recording, as cameras number unrelated photos. A recording counts if
    three quarters of its frames resemble the nearest training frame more than the median training
    frame. Chance makes this half; the second limit is 2.5 standard deviations above. Recordings
    with few frames are judged together.
    """
    groups: dict[tuple[str, str], list[tuple[int, int, bool]]] = defaultdict(list)
    of_train = train.frames()
    for recording, frames in other.frames().items():
        if len(of_train.get(recording, ())) < 3:
            continue
        near = _nearest_frames(train, other, sorted(of_train[recording]), frames)
        groups[recording if len(near) >= _SURE else ("", "")] += near
    for near in groups.values():
        alike, count = sum(is_alike for *_, is_alike in near), len(near)
        if count >= _SURE and alike >= max(0.75 * count, 0.5 * count + 1.25 * count**0.5):
            yield from ((index, match) for index, match, _ in near)


def _nearest_frames(
    train: Pictures, other: Pictures, of_train: list[tuple[int, int]], frames: list[tuple[int, int]]
) -> list[tuple[int, int, bool]]:
    """Return each frame near a training frame: index, that frame, and whether they are alike.

    Args:
        train: pictures of the training split.
        other: pictures of the other split.
        of_train: sorted frame numbers of the recording in training, with the images.
        frames: its frame numbers in the other split, with the images.
    """
    numbers, images = np.array(of_train, np.int64).T
    near = []
    for number, index in frames:
        place = int(np.abs(numbers - number).argmin())
        if abs(int(numbers[place]) - number) <= FRAMES:
            alike = train.signatures[images] @ other.signatures[index]
            near.append((index, int(images[place]), bool(alike[place] > np.median(alike))))
    return near


def _many(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
