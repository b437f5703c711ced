"""LIP (Look Into Person), 20 classes of clothes and body parts."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import ClassVar

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.pairing import find_files, read_official_list, suggest_root
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

# The archives unpack into a folder of their own name or beside it, mmsegmentation has one level.
IMAGE_HOMES = ("TrainVal_images", "TrainVal_images/TrainVal_images", "", "Testing_images",
               "Testing_images/Testing_images")  # fmt: skip
MASK_HOMES = (
    "TrainVal_parsing_annotations",
    "TrainVal_parsing_annotations/TrainVal_parsing_annotations",
    "",
)
_UNPACK = (
    "Unpack TrainVal_images.zip, TrainVal_parsing_annotations.zip and, for the test split, "
    "Testing_images.zip into one folder."
)
_MIRRORED = (
    " The third column of the authors' lists is a mirrored mask: hrseg mirrors masks itself and "
    "swaps left and right."
)


class LIP(SegmentationDataModule):
    """Single persons: 30462 for training, 10000 for validation, 10000 without masks.

    Layout: `TrainVal_images/{train,val}_images/*.jpg`,
    `TrainVal_parsing_annotations/{train,val}_segmentations/*.png` with ids 0..19, and
    `{train,val}_id.txt` (a stem per line; without it all images of the folder); or the same
    folders directly below root, as mmsegmentation has them; or one of the authors' list files, for
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
        """Return the pairs of a split or a list file; the test images have no masks."""
        if split.endswith((".lst", ".txt")):
            return self._listed(split)
        name = {"test": "testing"}.get(split, split)
        folder = self._first([self.root / home / f"{name}_images" for home in IMAGE_HOMES])
        images = find_files(folder)
        if not images:
            raise DataError(f"{folder.absolute()} holds no images; expected *.jpg.\n{_UNPACK}")
        if split == "test":
            return [(image, None) for image in images.values()]
        home = self._first([self.root / home / f"{split}_segmentations" for home in MASK_HOMES])
        masks = find_files(home)
        source, stems = self._stems(split, images)
        for kind, found, where in (("image", images, folder), ("mask", masks, home)):
            missing = [stem for stem in stems if stem not in found]
            if missing:
                raise DataError(
                    f"{len(missing)} of {len(stems)} names of {source} have no {kind} in {where}, "
                    f"e.g. {missing[0]}\n{self._elsewhere(missing[0], kind)}"
                )
        return [(images[stem], masks[stem]) for stem in stems]

    def mask_reader(self) -> MaskReader:
        """Return a reader of ids 0..19; 255, which the download does not have, is ignored."""
        repair = "These are not LIP's masks: unpack TrainVal_parsing_annotations.zip again."
        return MaskReader(id_table(self.num_classes, ignore_ids=[IGNORE_INDEX]), repair)

    def _listed(self, split: str) -> Files:
        images = self._homes(IMAGE_HOMES, "images")
        masks = self._homes(MASK_HOMES, "segmentations")
        return read_official_list(self.root, split, images, masks, _MIRRORED)

    def _homes(self, homes: Iterable[str], kind: str) -> list[Path]:
        """Return the folders that names in a list may be relative to, as far as they exist."""
        names = ("", f"train_{kind}", f"val_{kind}")
        folders = [self.root / home / name for name in names for home in homes]
        return [folder for folder in folders if folder.is_dir()] or [self.root]

    def _stems(self, split: str, images: Iterable[str]) -> tuple[str, list[str]]:
        """Return the names of `<split>_id.txt` and its path; all images where there is none."""
        lists = [self.root / home / f"{split}_id.txt" for home in IMAGE_HOMES]
        path = next((path for path in lists if path.is_file()), None)
        if path is None:
            return f"split {split}", list(images)
        stems = [line.strip() for line in path.read_text("utf-8-sig", "replace").splitlines()]
        return str(path), [stem for stem in stems if stem]

    def _first(self, folders: list[Path]) -> Path:
        """Return the first folder that is there; else say where root should be."""
        for folder in folders:
            if folder.is_dir():
                return folder
        hint = suggest_root(self.root, _holds_lip) or _UNPACK
        raise DataError(
            f"no folder {folders[0].absolute()} (nor {folders[0].name} directly in root).\n{hint}"
        )

    def _elsewhere(self, stem: str, kind: str) -> str:
        """Return how to repair an image or mask that is missing."""
        suffix = "images" if kind == "image" else "segmentations"
        for path in self.root.glob(f"**/*_{suffix}/{stem}.*"):
            return f"It is in another split, {path}: move it, or correct the list."
        return f"{_UNPACK} Or take its line out of the list."


def _holds_lip(folder: Path) -> bool:
    official = ("TrainVal_images", "TrainVal_parsing_annotations")
    flat = [(f"{split}_images", f"{split}_segmentations") for split in ("train", "val")]
    return any(all((folder / name).is_dir() for name in names) for names in (official, *flat))
