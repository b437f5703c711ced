"""COCO-Stuff-10K with 171 classes."""

from collections.abc import Mapping
from typing import ClassVar

from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.dataset import Files
from hrseg.data.masks import MaskReader, MaskReaderBySuffix, ReadMask, id_table
from hrseg.data.pairing import Names, find_files, pair_files, read_official_list, suggest_root
from hrseg.errors import DataError
from hrseg.utils.constants import IGNORE_INDEX

_FOLDERS = {"train": "train2014", "val": "test2014"}
# COCO's category number of each class, in the order of the classes.
CATEGORIES = tuple(
    raw for raw in range(1, 183) if raw not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83, 91)
)
_PREPARE = "Fix: make the masks with scripts/prepare_cocostuff10k."
_OTHER = "Masks with id 255 are of COCO-Stuff 164k, whose ids are one lower."


class COCOStuff10K(SegmentationDataModule):
    """Photographs of any scene: 9000 for training, 1000 for validation (its test set).

    Layout of mmsegmentation, written by `scripts/prepare_cocostuff10k`:
    `images/{train,test}2014/*.jpg` and `annotations/{train,test}2014/*_labelTrainIds.png`
    (0 = unlabelled, ignored; 1..171). Or the authors' layout, `{train,val}/{image,label}/` with
    the ids of COCO (0 = unlabelled, 1..182), or one of their list files.

    Sources: Caesar et al., CVPR 2018; mmsegmentation (mmseg/datasets/coco_stuff.py); the list of
    categories from the authors' lib/datasets/cocostuff.py.
    """

    class_names = (
        "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train", "truck", "boat",
        "traffic light", "fire hydrant", "stop sign", "parking meter", "bench", "bird", "cat",
        "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "backpack",
        "umbrella", "handbag", "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball",
        "kite", "baseball bat", "baseball glove", "skateboard", "surfboard", "tennis racket",
        "bottle", "wine glass", "cup", "fork", "knife", "spoon", "bowl", "banana", "apple",
        "sandwich", "orange", "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair",
        "couch", "potted plant", "bed", "dining table", "toilet", "tv", "laptop", "mouse", "remote",
        "keyboard", "cell phone", "microwave", "oven", "toaster", "sink", "refrigerator", "book",
        "clock", "vase", "scissors", "teddy bear", "hair drier", "toothbrush", "banner", "blanket",
        "branch", "bridge", "building-other", "bush", "cabinet", "cage", "cardboard", "carpet",
        "ceiling-other", "ceiling-tile", "cloth", "clothes", "clouds", "counter", "cupboard",
        "curtain", "desk-stuff", "dirt", "door-stuff", "fence", "floor-marble", "floor-other",
        "floor-stone", "floor-tile", "floor-wood", "flower", "fog", "food-other", "fruit",
        "furniture-other", "grass", "gravel", "ground-other", "hill", "house", "leaves", "light",
        "mat", "metal", "mirror-stuff", "moss", "mountain", "mud", "napkin", "net", "paper",
        "pavement", "pillow", "plant-other", "plastic", "platform", "playingfield", "railing",
        "railroad", "river", "road", "rock", "roof", "rug", "salad", "sand", "sea", "shelf",
        "sky-other", "skyscraper", "snow", "solid-other", "stairs", "stone", "straw",
        "structural-other", "table", "tent", "textile-other", "towel", "tree", "vegetable",
        "wall-brick", "wall-concrete", "wall-other", "wall-panel", "wall-stone", "wall-tile",
        "wall-wood", "water-other", "waterdrops", "window-blind", "window-other", "wood",
    )  # fmt: skip
    palette = (
        (0, 192, 64), (0, 192, 64), (0, 64, 96), (128, 192, 192), (0, 64, 64), (0, 192, 224),
        (0, 192, 192), (128, 192, 64), (0, 192, 96), (128, 192, 64), (128, 32, 192), (0, 0, 224),
        (0, 0, 64), (0, 160, 192), (128, 0, 96), (128, 0, 192), (0, 32, 192), (128, 128, 224),
        (0, 0, 192), (128, 160, 192), (128, 128, 0), (128, 0, 32), (128, 32, 0), (128, 0, 128),
        (64, 128, 32), (0, 160, 0), (0, 0, 0), (192, 128, 160), (0, 32, 0), (0, 128, 128),
        (64, 128, 160), (128, 160, 0), (0, 128, 0), (192, 128, 32), (128, 96, 128), (0, 0, 128),
        (64, 0, 32), (0, 224, 128), (128, 0, 0), (192, 0, 160), (0, 96, 128), (128, 128, 128),
        (64, 0, 160), (128, 224, 128), (128, 128, 64), (192, 0, 32), (128, 96, 0), (128, 0, 192),
        (0, 128, 32), (64, 224, 0), (0, 0, 64), (128, 128, 160), (64, 96, 0), (0, 128, 192),
        (0, 128, 160), (192, 224, 0), (0, 128, 64), (128, 128, 32), (192, 32, 128), (0, 64, 192),
        (0, 0, 32), (64, 160, 128), (128, 64, 64), (128, 0, 160), (64, 32, 128), (128, 192, 192),
        (0, 0, 160), (192, 160, 128), (128, 192, 0), (128, 0, 96), (192, 32, 0), (128, 64, 128),
        (64, 128, 96), (64, 160, 0), (0, 64, 0), (192, 128, 224), (64, 32, 0), (0, 192, 128),
        (64, 128, 224), (192, 160, 0), (0, 192, 0), (192, 128, 96), (192, 96, 128), (0, 64, 128),
        (64, 0, 96), (64, 224, 128), (128, 64, 0), (192, 0, 224), (64, 96, 128), (128, 192, 128),
        (64, 0, 224), (192, 224, 128), (128, 192, 64), (192, 0, 96), (192, 96, 0), (128, 64, 192),
        (0, 128, 96), (0, 224, 0), (64, 64, 64), (128, 128, 224), (0, 96, 0), (64, 192, 192),
        (0, 128, 224), (128, 224, 0), (64, 192, 64), (128, 128, 96), (128, 32, 128), (64, 0, 192),
        (0, 64, 96), (0, 160, 128), (192, 0, 64), (128, 64, 224), (0, 32, 128), (192, 128, 192),
        (0, 64, 224), (128, 160, 128), (192, 128, 0), (128, 64, 32), (128, 32, 64), (192, 0, 128),
        (64, 192, 32), (0, 160, 64), (64, 0, 0), (192, 192, 160), (0, 32, 64), (64, 128, 128),
        (64, 192, 160), (128, 160, 64), (64, 128, 0), (192, 192, 32), (128, 96, 192), (64, 0, 128),
        (64, 64, 32), (0, 224, 192), (192, 0, 0), (192, 64, 160), (0, 96, 192), (192, 128, 128),
        (64, 64, 160), (128, 224, 192), (192, 128, 64), (192, 64, 32), (128, 96, 64), (192, 0, 192),
        (0, 192, 32), (64, 224, 64), (64, 0, 64), (128, 192, 160), (64, 96, 64), (64, 128, 192),
        (0, 192, 160), (192, 224, 64), (64, 128, 64), (128, 192, 32), (192, 32, 192), (64, 64, 192),
        (0, 64, 32), (64, 160, 192), (192, 64, 64), (128, 64, 160), (64, 32, 192), (192, 192, 192),
        (0, 64, 160), (192, 160, 192), (192, 192, 0), (128, 64, 96), (192, 32, 64), (192, 64, 128),
        (64, 192, 96), (64, 160, 64), (64, 64, 0),
    )  # fmt: skip
    mask_suffix = "_labelTrainIds"
    expected_images: ClassVar[Mapping[str, int]] = {"train": 9000, "val": 1000}

    def files(self, split: str) -> Files:
        """Return the pairs of a split or list file."""
        if split.endswith((".lst", ".txt")):
            return read_official_list(self.root, split)
        if (self.root / split / "image").is_dir():
            return pair_files(self.root / split / "image", self.root / split / "label")
        folder = _FOLDERS.get(split, split)
        images, masks = self.root / "images" / folder, self.root / "annotations" / folder
        if not masks.is_dir():
            hint = suggest_root(self.root, lambda path: (path / "annotations" / folder).is_dir())
            raise DataError(
                f"The folder {masks.absolute()} does not exist.\n"
                f"Expected: images/ and annotations/ of the splits train, val.\n{hint or _PREPARE}"
            )
        if not find_files(masks, self.mask_suffix):
            raise DataError(
                f"{masks.absolute()} contains no masks.\n"
                f"Expected: *{self.mask_suffix}.png files.\n{_PREPARE}"
            )
        return pair_files(images, masks, Names(mask_suffix=self.mask_suffix))

    def mask_reader(self) -> ReadMask:
        """Return a reader of both kinds of ids, distinguished by file name.

        It refuses id 255: only masks of COCO-Stuff 164k have it, whose ids are one lower.
        """
        ids = {0: IGNORE_INDEX}
        by_category = ids | {raw: train for train, raw in enumerate(CATEGORIES)}
        by_train_id = ids | {raw: raw - 1 for raw in range(1, 172)}
        fix = f"A {self.mask_suffix} file has ids 0 (ignored) and 1..171. {_PREPARE}"
        return MaskReaderBySuffix(
            self.mask_suffix,
            MaskReader(id_table(self.num_classes, by_train_id), f"{fix} {_OTHER}"),
            MaskReader(
                id_table(self.num_classes, by_category),
                f"These are the ids of COCO. {_PREPARE} {_OTHER}",
            ),
        )
