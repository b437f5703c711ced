"""PASCAL-Context with 59 classes, or 60 with the background."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Literal, Unpack

import numpy as np

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.datasets.ade20k import ADE20K
from hrseg.data.masks import MaskReader, id_table, read_index_mask
from hrseg.data.options import DataOptions
from hrseg.data.pairing import find_files, read_official_list, suggest_root
from hrseg.errors import DataError
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
# Two orders of the classes are common: by name (the authors, Detail, mmsegmentation), and FCN's
# order, which begins with the classes of VOC. The ids of the frequent classes (building, floor,
# grass, road, sky, tree) in one order are rare in the other.
FREQUENT = (11, 26, 29, 41, 47, 53)
FREQUENT_IN_FCN_ORDER = (25, 33, 36, 46, 50, 54)
PREPARE = "Fix: make the masks with scripts/prepare_pascal_context."


class PascalContext(SegmentationDataModule):
    """Photographs of any scene: 4996 for training, 5104 for validation (or 4998 and 5105).

    Layout, in a VOC2010 folder: `JPEGImages/*.jpg`, `SegmentationClassContext/*.png` with ids 0..59
    in the order of the names (0 = background) and `ImageSets/SegmentationContext/{train,val}.txt`,
    a stem per line; `scripts/prepare_pascal_context` writes them. Root may be a parent folder.

    Args:
        root: the VOC2010 folder.
        num_classes: 59 ignores the background, 60 scores it as class 0.
        options: see `DataOptions`.

    Sources: Mottaghi et al., CVPR 2014; order of the classes as in the authors'
    lib/datasets/pascal_ctx.py and in mmsegmentation. Its palette is the first part of ADE20K's.
    """

    # By the Detail annotations; the lists of VOC2010 have a few more images.
    expected_images: ClassVar[Mapping[str, int]] = {"train": 4996, "val": 5104}

    def __init__(
        self,
        root: str,
        num_classes: Literal[59, 60] = 59,
        **options: Unpack[DataOptions],
    ) -> None:
        """Find the VOC2010 folder; files are read later."""
        super().__init__(root, **options)
        first = 60 - num_classes
        self.class_names, self.palette = CLASS_NAMES[first:], ADE20K.palette[first:60]
        below = (self.root / "VOC2010", self.root / "VOCdevkit" / "VOC2010")
        self.root = next((path for path in below if path.is_dir()), self.root)
        self.masks = self.root / "SegmentationClassContext"

    def files(self, split: str) -> Files:
        """Return the pairs in the list of a split.

        Raises:
            DataError: missing files, or masks in the class order of FCN.
        """
        images = self.root / "JPEGImages"
        if split.endswith((".lst", ".txt")):
            folders = ([self.root, images], [self.root, self.masks])
            pairs = read_official_list(self.root, split, *folders)
        else:
            pairs = self._pairs(split, images)
        if not self._check_frequencies([mask for _, mask in pairs if mask]):
            self._check_names()
        return pairs

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..59; the background is ignored unless it is a class."""
        first = 60 - self.num_classes
        ids = {raw: raw - first if raw >= first else IGNORE_INDEX for raw in range(60)}
        ids[IGNORE_INDEX] = IGNORE_INDEX
        return MaskReader(
            id_table(self.num_classes, ids), f"These are the ids of PASCAL-Context. {PREPARE}"
        )

    def shortfall(self, split: str, count: int) -> str | None:
        """Accept also the numbers of images in VOC2010's own lists."""
        if (split, count) in (("train", 4998), ("val", 5105)):
            return None
        return super().shortfall(split, count)

    def _pairs(self, split: str, images: Path) -> list[tuple[Path, Path | None]]:
        for folder in (images, self.masks):
            if not folder.is_dir():
                hint = suggest_root(self.root, lambda path: (path / "JPEGImages").is_dir())
                raise DataError(
                    f"The folder {folder.absolute()} does not exist.\n"
                    f"Expected: JPEGImages and {self.masks.name} in {self.root}.\n{hint or PREPARE}"
                )
        path = self.root / "ImageSets" / "SegmentationContext" / f"{split}.txt"
        stems = path.read_text().split() if path.is_file() else []
        if not stems:
            known = ", ".join(sorted(path.stem for path in path.parent.glob("*.txt")))
            fix = f"Fix: choose one of the splits {known}." if known else PREPARE
            raise DataError(
                f"The list {path.absolute()} is missing or empty.\n"
                f"Expected: a stem per line.\n{fix}"
            )
        image_of, mask_of = find_files(images), find_files(self.masks)
        for kind, files, folder in (("image", image_of, images), ("mask", mask_of, self.masks)):
            if missing := [stem for stem in stems if stem not in files]:
                raise DataError(
                    f"{len(missing)} of {len(stems)} names in {path} have no {kind} in {folder}, "
                    f"e.g. {missing[0]}.\nExpected: the images of VOCtrainval_03-May-2010.tar and "
                    f"a mask for each.\n{PREPARE}"
                )
        return [(image_of[stem], mask_of[stem]) for stem in stems]

    def _check_frequencies(self, masks: Sequence[Path]) -> bool:
        """Refuse masks in the order of FCN; return whether they are certainly in hrseg's order.

        The frequent ids of 64 masks decide. Fewer than 32 masks are inconclusive.
        """
        counts, readable = np.zeros(256, np.int64), 0
        for index in np.unique(np.linspace(0, len(masks) - 1, min(len(masks), 64)).astype(int)):
            with suppress(DataError):  # reported when the mask is read for its item
                counts += np.bincount(read_index_mask(masks[index]).ravel(), minlength=256)
                readable += 1
        theirs = counts[list(FREQUENT_IN_FCN_ORDER)]
        our_sum, their_sum = counts[list(FREQUENT)].sum(), theirs.sum()
        if readable >= 32 and their_sum > 4 * our_sum and np.count_nonzero(theirs) > 3:
            share = f"{their_sum / counts.sum():.0%}"
            raise _other_order(
                f"{share} of the pixels of {readable} masks in {self.masks} have ids"
            )
        return readable >= 32 and bool(our_sum > 4 * their_sum)

    def _check_names(self) -> None:
        """Refuse masks if a file of class names near them has another order."""
        for folder in (self.masks, self.root):
            for name in ("classes.json", "59_labels.txt", "labels.txt", "classes-59.txt"):
                path = folder / name
                text = path.read_text("utf-8-sig", "replace") if path.is_file() else ""
                # JSON, or lines such as `1: aeroplane`.
                words = re.findall(r'(?<=")[a-z]+(?=")|[a-z]+(?=\s*$)', text.split("]")[0], re.M)
                known = [CLASS_NAMES.index(word) for word in words if word in CLASS_NAMES]
                if len(known) > 10:
                    if known != sorted(known):
                        raise _other_order(f"{path} names the classes")
                    return


def _other_order(subject: str) -> DataError:
    return DataError(
        f"{subject} in the order of FCN (aeroplane, bicycle, bird, ...): scores would be wrong.\n"
        "Expected: the order of names (aeroplane, bag, bed, ...), as in the authors' checkpoints.\n"
        f"{PREPARE}"
    )
