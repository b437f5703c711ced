"""PASCAL-Context with 59 classes, or 60 with the background."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Unpack

import numpy as np
import numpy.typing as npt

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table, read_index_mask
from hrseg.data.options import DataOptions
from hrseg.data.pairing import find_files, read_official_list, suggest_root
from hrseg.errors import ConfigError, DataError
from hrseg.utils.constants import IGNORE_INDEX

CLASS_NAMES = (
    "background", "aeroplane", "bag", "bed", "bedclothes", "bench", "bicycle", "bird", "boat",
    "book", "bottle", "building", "bus", "cabinet", "car", "cat", "ceiling", "chair", "cloth",
    "computer", "cow", "cup", "curtain", "dog", "door", "fence", "floor", "flower", "food", "grass",
    "ground", "horse", "keyboard", "light", "motorbike", "mountain", "mouse", "person", "plate",
    "platform", "pottedplant", "road", "rock", "sheep", "shelves", "sidewalk", "sign", "sky",
    "snow", "sofa", "table", "track", "train", "tree", "truck", "tvmonitor", "wall", "water",
    "window", "wood",
)  # fmt: skip
PALETTE = (
    (120, 120, 120), (180, 120, 120), (6, 230, 230), (80, 50, 50), (4, 200, 3), (120, 120, 80),
    (140, 140, 140), (204, 5, 255), (230, 230, 230), (4, 250, 7), (224, 5, 255), (235, 255, 7),
    (150, 5, 61), (120, 120, 70), (8, 255, 51), (255, 6, 82), (143, 255, 140), (204, 255, 4),
    (255, 51, 7), (204, 70, 3), (0, 102, 200), (61, 230, 250), (255, 6, 51), (11, 102, 255),
    (255, 7, 71), (255, 9, 224), (9, 7, 230), (220, 220, 220), (255, 9, 92), (112, 9, 255),
    (8, 255, 214), (7, 255, 224), (255, 184, 6), (10, 255, 71), (255, 41, 10), (7, 255, 255),
    (224, 255, 8), (102, 8, 255), (255, 61, 6), (255, 194, 7), (255, 122, 8), (0, 255, 20),
    (255, 8, 41), (255, 5, 153), (6, 51, 255), (235, 12, 255), (160, 150, 20), (0, 163, 255),
    (140, 140, 140), (250, 10, 15), (20, 255, 0), (31, 255, 0), (255, 31, 0), (255, 224, 0),
    (153, 255, 0), (0, 0, 255), (255, 71, 0), (0, 235, 255), (0, 173, 255), (31, 0, 255),
)  # fmt: skip
# Two orders of the same classes are in use, with the same ids: by name, as the authors, Detail and
# mmsegmentation have them, and that of FCN (Shelhamer), which begins with the classes of VOC. Under
# each of them the frequent classes (building, floor, grass, road, sky, tree) have ids that
# under the other one are rare.
FREQUENT = (11, 26, 29, 41, 47, 53)
FREQUENT_IN_FCN_ORDER = (25, 33, 36, 46, 50, 54)
PREPARE = "Make them with scripts/prepare_pascal_context."


class PascalContext(SegmentationDataModule):
    """Photographs of any scene: 4996 for training, 5104 for validation (or 4998 and 5105).

    Layout, in a VOC2010 folder: `JPEGImages/*.jpg`, `SegmentationClassContext/*.png` with ids 0..59
    in the order of the names (0 = background) and `ImageSets/SegmentationContext/{train,val}.txt`,
    a stem per line; `scripts/prepare_pascal_context` makes them. Root may be a folder above it.

    Args:
        root: the VOC2010 folder.
        num_classes: 59 ignores the background, 60 scores it as class 0.
        options: see `DataOptions`.

    Sources: Mottaghi et al., CVPR 2014; order of the classes as in the authors'
    lib/datasets/pascal_ctx.py and in mmsegmentation.

    Raises:
        ConfigError: another number of classes.
    """

    # Of the Detail annotations; the lists of VOC2010 have a few images more.
    expected_images: ClassVar[Mapping[str, int]] = {"train": 4996, "val": 5104}

    def __init__(
        self,
        root: str,
        num_classes: int = 59,
        **options: Unpack[DataOptions],
    ) -> None:
        """Find the VOC2010 folder; nothing else is read yet."""
        super().__init__(root, **options)
        if num_classes not in (59, 60):
            raise ConfigError(f"data.num_classes is {num_classes}; expected 59 or 60 (background).")
        first = 60 - num_classes
        self.class_names, self.palette = CLASS_NAMES[first:], PALETTE[first:]
        below = (self.root / "VOC2010", self.root / "VOCdevkit" / "VOC2010")
        self.root = next((path for path in below if path.is_dir()), self.root)
        self.masks = self.root / "SegmentationClassContext"

    def files(self, split: str) -> Files:
        """Return the pairs that the split's list names, once the order of the classes is sure."""
        images = self.root / "JPEGImages"
        if split.endswith((".lst", ".txt")):
            homes = ([self.root, images], [self.root, self.masks])
            pairs = read_official_list(self.root, split, *homes)
        else:
            pairs = self._pairs(split, images)
        if not self._check_order([mask for _, mask in pairs if mask]):
            self._check_names()
        return pairs

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..59; the background is ignored unless it is a class."""
        first = 60 - self.num_classes
        ids = {raw: raw - first if raw >= first else IGNORE_INDEX for raw in range(60)}
        ids[IGNORE_INDEX] = IGNORE_INDEX
        return MaskReader(id_table(self.num_classes, ids), f"Ids of PASCAL-Context. {PREPARE}")

    def shortfall(self, split: str, count: int) -> str | None:
        """Take the counts of VOC2010's own lists as well."""
        if (split, count) in (("train", 4998), ("val", 5105)):
            return None
        return super().shortfall(split, count)

    def _pairs(self, split: str, images: Path) -> list[tuple[Path, Path | None]]:
        for folder in (images, self.masks):
            if not folder.is_dir():
                raise DataError(f"no folder {folder.absolute()}\n{self._repair()}")
        path = self.root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        if not path.is_file():
            known = ", ".join(sorted(there.stem for there in path.parent.glob("*.txt")))
            repair = f"The splits here are {known}." if known else PREPARE
            raise DataError(f"no list {path.absolute()}; expected a stem per line.\n{repair}")
        stems = path.read_text().split()
        image_of, mask_of = find_files(images), find_files(self.masks)
        for kind, found, folder in (("image", image_of, images), ("mask", mask_of, self.masks)):
            missing = [stem for stem in stems if stem not in found]
            if missing or not stems:
                raise DataError(
                    f"{len(missing)} of {len(stems)} names in {path} have no {kind} in {folder}"
                    f"{', e.g. ' + missing[0] if missing else ''}.\n"
                    f"Unpack VOCtrainval_03-May-2010.tar. {PREPARE}"
                )
        return [(image_of[stem], mask_of[stem]) for stem in stems]

    def _check_order(self, masks: Sequence[Path]) -> bool:
        """Refuse masks whose ids mean other classes; return whether they surely mean ours.

        An even sample shows which ids are frequent; a few masks give a warning at most.
        """
        counts, seen = self._pixels(masks)
        ours, theirs = counts[list(FREQUENT)], counts[list(FREQUENT_IN_FCN_ORDER)]
        doubtful = theirs.sum() > 4 * ours.sum() and np.count_nonzero(theirs) > 3
        if seen < 32:
            if doubtful:
                warnings.warn(
                    f"most pixels of {seen} masks in {self.masks} have ids that are rare in the "
                    "order of names and frequent in that of FCN: are they in FCN's order? "
                    + PREPARE,
                    stacklevel=2,
                )
            return False
        if not counts[21:IGNORE_INDEX].any():
            raise DataError(
                f"{seen} masks in {self.masks} have ids up to 20 only: these are the 20 classes of "
                f"VOC (SegmentationClass);\nexpected the 59 of PASCAL-Context. {PREPARE}"
            )
        if doubtful:
            share = f"{theirs.sum() / counts.sum():.0%}"
            raise DataError(_other_order(
                f"{share} of the pixels of {seen} masks in {self.masks} have ids that are "
                "frequent only"
            ))  # fmt: skip
        return bool(ours.sum() > 4 * theirs.sum())

    def _pixels(self, masks: Sequence[Path]) -> tuple[npt.NDArray[np.int64], int]:
        """Return the pixels of each id in 64 masks, and how many of those could be read."""
        counts, faults = np.zeros(256, np.int64), []
        chosen = np.unique(np.linspace(0, len(masks) - 1, min(len(masks), 64)).astype(int))
        for index in chosen:
            try:
                counts += np.bincount(read_index_mask(masks[index]).ravel(), minlength=256)
            except DataError as error:  # of a mask or two; who reads them says it again
                faults.append(str(error).splitlines()[0])
        if 0 < len(chosen) == len(faults):
            raise DataError(
                f"{faults[0]}\nNone of {len(chosen)} masks in {self.masks} has ids of the 59 "
                f"classes (the 459 labels of the .mat files have 16 bits). {PREPARE}"
            )
        return counts, len(chosen) - len(faults)

    def _check_names(self) -> None:
        """Refuse masks beside which a file names the classes in another order; the first counts."""
        for folder in (self.masks, self.root):
            for name in ("classes.json", "59_labels.txt", "labels.txt", "classes-59.txt"):
                path = folder / name
                known = [CLASS_NAMES.index(n) for n in _names(path) if n in CLASS_NAMES]
                if len(known) > 10 and known == sorted(known):
                    return
                if len(known) > 10:
                    raise DataError(_other_order(f"{path} names the classes"))

    def _repair(self) -> str:
        """Return where root should be, or what makes the missing folder."""
        wanted = f"expected JPEGImages and SegmentationClassContext in {self.root}. {PREPARE}"
        return suggest_root(self.root, lambda path: (path / "JPEGImages").is_dir()) or wanted


def _other_order(what: str) -> str:
    return (
        f"{what} in the order of FCN (aeroplane, bicycle, bird, ...); expected the order of names "
        "(aeroplane, bag, bed, ...),\nas the authors' checkpoints have it: every score would be "
        f"wrong. {PREPARE}"
    )


def _names(path: Path) -> list[str]:
    """Return the class names that a file lists: JSON, or a line each, `1: aeroplane`."""
    if not path.is_file():
        return []
    text = path.read_text("utf-8-sig", "replace")
    if path.suffix == ".json":
        try:
            return [str(name) for name in json.loads(text)["classes"]]
        except (ValueError, KeyError, TypeError):
            return []
    return [re.sub(r"^\d+\s*[:.]?\s*", "", line).strip() for line in text.splitlines()]
