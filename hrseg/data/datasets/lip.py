"""LIP (Look Into Person) with 20 classes of clothes and body parts."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.pairing import find_files, read_official_list, suggest_root
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

# Archives unpack with or without a folder of their name; mmsegmentation's layout is flat.
IMAGE_FOLDERS = ("TrainVal_images", "TrainVal_images/TrainVal_images", "", "Testing_images",
               "Testing_images/Testing_images")  # fmt: skip
MASK_FOLDERS = (
    "TrainVal_parsing_annotations",
    "TrainVal_parsing_annotations/TrainVal_parsing_annotations",
    "",
)
_UNPACK = (
    "Fix: unpack TrainVal_images.zip, TrainVal_parsing_annotations.zip and, for the test split, "
    "Testing_images.zip into one folder."
)
_MIRRORED = "mirrored masks; hrseg mirrors masks itself and swaps left and right"


class LIP(SegmentationDataModule):
    """Single persons: 30462 for training, 10000 for validation, 10000 without masks.

    Layout: `TrainVal_images/{train,val}_images/*.jpg`,
    `TrainVal_parsing_annotations/{train,val}_segmentations/*.png` with ids 0..19, and
    `{train,val}_id.txt` (a stem per line; without it all images of the folder); or the same
    folders directly below root, as in mmsegmentation; or one of the authors' list files, for
    example `data.val_split=valList.txt`. Background is a class.

    Sources: Gong et al., arXiv 1703.05446; mmsegmentation (mmseg/datasets/lip.py); pairs of left
    and right from the authors' lib/datasets/lip.py.
    """

    class_names = (
        "Background", "Hat", "Hair", "Glove", "Sunglasses", "UpperClothes", "Dress", "Coat",
        "Socks", "Pants", "Jumpsuits", "Scarf", "Skirt", "Face", "Left-arm", "Right-arm",
        "Left-leg", "Right-leg", "Left-shoe", "Right-shoe",
    )  # fmt: skip
    palette = (
        (0, 0, 0), (128, 0, 0), (255, 0, 0), (0, 85, 0), (170, 0, 51), (255, 85, 0), (0, 0, 85),
        (0, 119, 221), (85, 85, 0), (0, 85, 85), (85, 51, 0), (52, 86, 128), (0, 128, 0),
        (0, 0, 255), (51, 170, 221), (0, 255, 255), (85, 255, 170), (170, 255, 85),
        (255, 255, 0), (255, 170, 0),
    )  # fmt: skip
    flip_pairs = ((14, 15), (16, 17), (18, 19))
    expected_images: ClassVar[Mapping[str, int]] = {"train": 30462, "val": 10000, "test": 10000}
    submission_ids = tuple(range(20))

    def files(self, split: str) -> Files:
        """Return the pairs of a split or list file; the test images have no masks."""
        if split.endswith((".lst", ".txt")):
            images, masks = (
                [folder for name in ("", f"train_{kind}", f"val_{kind}")
                 for folder in _existing(self.root, parents, name)]
                for parents, kind in ((IMAGE_FOLDERS, "images"), (MASK_FOLDERS, "segmentations"))
            )  # fmt: skip
            return read_official_list(self.root, split, images, masks, _MIRRORED)
        folder = self._folder(IMAGE_FOLDERS, f"{'testing' if split == 'test' else split}_images")
        image_of = find_files(folder)
        if not image_of:
            raise DataError(
                f"{folder.absolute()} contains no images.\nExpected: *.jpg files.\n{_UNPACK}"
            )
        if split == "test":
            return [(image, None) for image in image_of.values()]
        mask_folder = self._folder(MASK_FOLDERS, f"{split}_segmentations")
        mask_of = find_files(mask_folder)
        lists = [self.root / name / f"{split}_id.txt" for name in IMAGE_FOLDERS]
        source = next((path for path in lists if path.is_file()), folder)
        stems = list(image_of)
        if source != folder:
            stems = source.read_text("utf-8-sig", "replace").split()
        for kind, files, path in (("image", image_of, folder), ("mask", mask_of, mask_folder)):
            if missing := [stem for stem in stems if stem not in files]:
                raise DataError(
                    f"{len(missing)} of {len(stems)} names of {source} have no {kind} in {path}, "
                    f"e.g. {missing[0]}.\nExpected: a file for each.\n{_UNPACK}"
                )
        return [(image_of[stem], mask_of[stem]) for stem in stems]

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..19; 255, absent from the official masks, is ignored."""
        fix = "Fix: unpack LIP's masks, TrainVal_parsing_annotations.zip, again."
        return MaskReader(id_table(self.num_classes, ignore_ids=[IGNORE_INDEX]), fix)

    def _folder(self, parents: Sequence[str], name: str) -> Path:
        if folders := _existing(self.root, parents, name):
            return folders[0]
        hint = suggest_root(self.root, _is_lip) or _UNPACK
        raise DataError(
            f"The folder {self.root.absolute() / parents[0] / name} does not exist.\n"
            f"Expected: this folder, or {name} directly in data.root.\n{hint}"
        )


def _existing(root: Path, parents: Sequence[str], name: str) -> list[Path]:
    return [folder for parent in parents if (folder := root / parent / name).is_dir()]


def _is_lip(root: Path) -> bool:
    masks = _existing(root, MASK_FOLDERS, "val_segmentations")
    return bool(masks and _existing(root, IMAGE_FOLDERS, "val_images"))
