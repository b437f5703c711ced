"""Cityscapes with 19 classes, in the layout of its own download."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, MaskReaderBySuffix, ReadMask, id_table
from hrseg.data.pairing import read_official_list, suggest_root
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

LABEL_KINDS = ("labelIds", "labelTrainIds")
_ARCHIVES = {
    "gtFine": ("leftImg8bit_trainvaltest.zip", "gtFine_trainvaltest.zip"),
    "gtCoarse": ("leftImg8bit_trainextra.zip", "gtCoarse.zip"),
}


class Cityscapes(SegmentationDataModule):
    """Street scenes of 2048x1024: 2975 for training, 500 for validation, 1525 without masks.

    Layout: `leftImg8bit/<split>/<city>/*_leftImg8bit.png` and, beside it,
    `gtFine/<split>/<city>/*_gtFine_labelIds.png` or `*_gtFine_labelTrainIds.png`, whichever
    exists. Splits are train, val, test, trainval, train_extra (masks of `gtCoarse`), train_coarse
    (train with the masks of `gtCoarse`), train_all (train and train_extra), or one of the authors'
    list files, for example `data.train_split=train.lst`. Older downloads of train_extra have one
    black image, troisdorf_000000_000073.

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
    image_suffix = "_leftImg8bit"
    mask_suffix = "_gtFine_labelIds"
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
            return read_official_list(self.root, split)
        folder = "train" if split == "train_coarse" else split
        kind = "gtCoarse" if split in ("train_extra", "train_coarse") else "gtFine"
        images = self._find("leftImg8bit", folder, [f"{self.image_suffix}.png"], kind)
        if split == "test":
            # The download has test masks, but their pixels are all void.
            return [(image, None) for image in images.values()]
        masks = self._find(kind, folder, [f"_{kind}_{label}.png" for label in LABEL_KINDS], kind)
        for files, partners, lacks, home in (
            (images, masks, "mask", kind),
            (masks, images, "image", "leftImg8bit"),
        ):
            if unpaired := [path for name, path in files.items() if name not in partners]:
                raise DataError(
                    f"{len(unpaired)} of {len(files)} files have no {lacks} of the same split and "
                    f"city, e.g. {unpaired[0]}\n"
                    f"expected one for each below {self.root / home}. {_unpack(kind)}"
                )
        return [(image, masks[name]) for name, image in images.items()]

    def mask_reader(self) -> ReadMask:
        """Return a reader of labelIds and labelTrainIds, which the file names distinguish."""
        ids = {raw: train for train, raw in enumerate(self.submission_ids)}
        # Ids 0 to 33 exist; 255 is how some tools write the license plate's -1.
        by_id = id_table(self.num_classes, ids, [*range(34), IGNORE_INDEX])
        by_train_id = id_table(self.num_classes, ignore_ids=[IGNORE_INDEX])
        label_ids, train_ids = (
            MaskReader(table, f"This is not a {kind} file of Cityscapes: {_unpack('gtFine')}")
            for kind, table in zip(LABEL_KINDS, (by_id, by_train_id), strict=True)
        )
        return MaskReaderBySuffix(LABEL_KINDS[1], train_ids, label_ids)

    def _find(self, folder: str, split: str, suffixes: Sequence[str], kind: str) -> dict[str, Path]:
        """Return files as `<city>/<stem without suffix>`, sorted; the first suffix wins."""
        base = self.root / folder / split
        if not base.is_dir():
            raise DataError(f"no folder {base.absolute()}\n{self._repair(folder, kind)}")
        files: dict[str, Path] = {}
        for suffix in suffixes:
            for path in sorted(base.glob(f"*/[!.]*{suffix}")):
                files.setdefault(f"{path.parent.name}/{path.name.removesuffix(suffix)}", path)
        if not files:
            others = sorted({path.name.rsplit("_", 1)[-1] for path in base.glob("*/*")})
            make = " Or make them: csCreateTrainIdLabelImgs of cityscapesscripts."
            raise DataError(
                f"{base.absolute()} holds no <city>/*{' and no *'.join(suffixes)}"
                f"{', only ' + ', '.join(others[:4]) if others else ''}.\n"
                f"{_unpack(kind)}{make if folder == kind else ''}"
            )
        return files

    def _repair(self, folder: str, kind: str) -> str:
        """Return the fix for a root that lacks a folder, or a folder that lacks a split."""
        if (self.root / folder).is_dir():
            splits = ", ".join(sorted(path.name for path in (self.root / folder).glob("*/")))
            return f"There are: {splits or 'none'}. {_unpack(kind)}"
        wanted = f"expected leftImg8bit and {kind} side by side in {self.root}. {_unpack(kind)}"
        return suggest_root(self.root, lambda path: _holds(path, kind)) or wanted


def _holds(path: Path, kind: str) -> bool:
    return (path / "leftImg8bit").is_dir() and (path / kind).is_dir()


def _unpack(kind: str) -> str:
    return f"Unpack {' and '.join(_ARCHIVES[kind])} into one folder."
