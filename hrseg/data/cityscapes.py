"""Cityscapes with 19 classes, in the layout of its own download."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hrseg.data.base import IGNORE, MaskReader, MaskReaderBySuffix, ReadMask, id_table
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.listfile import read_official_list
from hrseg.errors import DataError

IMAGE_SUFFIX = "_leftImg8bit"
LABEL_KINDS = ("labelIds", "labelTrainIds")
_UNPACK = "Unpack leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip into one folder."


class Cityscapes(SegmentationDataModule):
    """Street scenes of 2048x1024: 2975 for training, 500 for validation, 1525 without masks.

    Layout: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and, beside it,
    `gtFine/<split>/<city>/*_gtFine_labelIds.png` or `*_gtFine_labelTrainIds.png`, whichever is
    there. Splits are train, val, test, trainval, train_extra (masks of `gtCoarse`), train_coarse
    (train with the masks of `gtCoarse`), train_all (train and train_extra), or one of the authors'
    list files, for example `data.train_split=train.lst`.

    Sources: Cordts et al., arXiv 1604.01685; github.com/mcordts/cityscapesScripts
    (helpers/labels.py); class weights from the authors' lib/datasets/cityscapes.py.
    """

    class_names = (
        "road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign",
        "vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train",
        "motorcycle", "bicycle",
    )  # fmt: skip
    palette = (
        (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
        (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
        (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
        (0, 80, 100), (0, 0, 230), (119, 11, 32),
    )  # fmt: skip
    class_weights = (
        0.8373, 0.918, 0.866, 1.0345, 1.0166, 0.9969, 0.9754, 1.0489, 0.8786, 1.0023, 0.9539,
        0.9843, 1.1116, 0.9037, 1.0865, 1.0955, 1.0865, 1.1529, 1.0507,
    )  # fmt: skip
    submission_ids = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
    expected_images: ClassVar[Mapping[str, int]] = {
        "train": 2975, "val": 500, "test": 1525, "trainval": 3475, "train_coarse": 2975,
        "train_extra": 19998, "train_all": 22973,
    }  # fmt: skip
    unions: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "trainval": ("train", "val"),
        "train_all": ("train", "train_extra"),
    }

    def files(self, split: str) -> Files:
        """Return the images of a split or a list file, with their masks unless it is test."""
        if split.endswith((".lst", ".txt")):
            path = Path(split) if Path(split).is_file() else self.root / split
            return read_official_list(path, [self.root], [self.root])
        folder, kind = split, "gtFine"
        if split in ("train_extra", "train_coarse"):
            folder, kind = split.replace("train_coarse", "train"), "gtCoarse"
        images = self._find(f"leftImg8bit/{folder}", f"{IMAGE_SUFFIX}.png")
        if split == "test":
            # The download has test masks, but their pixels are all void.
            return [(image, None) for image in images.values()]
        masks, home = self._find_masks(folder, kind), self.root / kind / folder
        lonely = [image for stem, image in images.items() if stem not in masks]
        if lonely:
            raise DataError(
                f"{len(lonely)} of {len(images)} images of {split} have no mask in {home}, e.g. "
                f"{lonely[0].name}\n{self._elsewhere(lonely[0], kind)}"
            )
        others = [mask for stem, mask in masks.items() if stem not in images]
        if others:
            raise DataError(
                f"{len(others)} of {len(masks)} masks in {home} have no image, e.g. "
                f"{others[0].name}\nexpected it in {self.root / 'leftImg8bit' / folder}. {_UNPACK}"
            )
        return [(image, masks[stem]) for stem, image in images.items()]

    def mask_reader(self) -> ReadMask:
        """Return a reader of labelIds and labelTrainIds, which it tells apart by the file name."""
        of_ids, of_train_ids = (self._reader(kind) for kind in LABEL_KINDS)
        return MaskReaderBySuffix(LABEL_KINDS[1], of_train_ids, of_ids)

    def _reader(self, kind: str) -> MaskReader:
        repair = f"This is no {kind} file of Cityscapes: unpack gtFine_trainvaltest.zip again."
        if kind == "labelTrainIds":
            return MaskReader(id_table(self.num_classes, ignore_ids=[IGNORE]), repair)
        ids = {raw: train for train, raw in enumerate(self.submission_ids)}
        # Ids 0 to 33 exist; 255 is how some tools write the license plate's -1.
        return MaskReader(id_table(self.num_classes, ids, [*range(34), IGNORE]), repair)

    def _find_masks(self, folder: str, kind: str) -> dict[str, Path]:
        suffixes = [f"_{kind}_{label}.png" for label in LABEL_KINDS]
        found = [self._find(f"{kind}/{folder}", suffix, may_lack=True) for suffix in suffixes]
        if any(found):
            return found[0] or found[1]
        others = sorted(
            {path.name.split("_")[-1] for path in (self.root / kind / folder).rglob("*.*")}
        )
        raise DataError(
            f"{self.root / kind / folder} holds no *{suffixes[0]} and no *{suffixes[1]}"
            f"{', only ' + ', '.join(others[:4]) if others else ''}.\n"
            "Unpack gtFine_trainvaltest.zip again, or make them: csCreateTrainIdLabelImgs of "
            "cityscapesscripts."
        )

    def _find(self, folder: str, suffix: str, may_lack: bool = False) -> dict[str, Path]:
        """Return the files below a folder by `<city>/<stem>` without the suffix, sorted."""
        base = self.root / folder
        if not base.is_dir():
            raise DataError(f"no folder {base.absolute()}\n{self._where_root_is()}")
        found = {}
        for city in sorted(entry.name for entry in os.scandir(base) if entry.is_dir()):
            names = sorted(name for name in os.listdir(base / city) if name.endswith(suffix))
            found.update({name.removesuffix(suffix): base / city / name for name in names})
        if not found and not may_lack:
            raise DataError(
                f"{base.absolute()} holds no <city>/*{suffix} files.\n"
                f"expected the layout of the download. {_UNPACK}"
            )
        return found

    def _where_root_is(self) -> str:
        """Return how to repair a root that lacks a folder."""
        if (self.root / "leftImg8bit").is_dir() or (self.root / "gtFine").is_dir():
            return f"expected leftImg8bit and gtFine side by side in {self.root}. {_UNPACK}"
        for near in (self.root.parent, self.root.parent.parent, *sorted(self.root.glob("*"))):
            if (near / "leftImg8bit").is_dir():
                return f"Did you mean data.root={near}?"
        return f"data.root is {self.root}; expected leftImg8bit and gtFine in it. {_UNPACK}"

    def _elsewhere(self, image: Path, kind: str) -> str:
        """Return where the mask of an image lies, if it lies in another split."""
        stem = image.name.removesuffix(f"{IMAGE_SUFFIX}.png")
        for found in (self.root / kind).glob(f"*/*/{stem}_{kind}_label*Ids.png"):
            return f"Its mask is in another split, {found}: move one of the two."
        return f"expected {stem}_{kind}_labelIds.png there. {_UNPACK}"
