"""Trees in the official layouts, with drawn images, for tests and trials at full size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hrseg.data.images import Array
from tests.conftest import picture, save_image

Size = tuple[int, int]
Counts = dict[str, int] | None  # images of each split


def blocks(size: Size, ids: Sequence[int], seed: Sequence[int]) -> Array:
    """Return a mask (H, W) of rectangles in which each id occurs."""
    height, width = size
    columns = int(np.ceil(np.sqrt(len(ids) * 2)))
    rows = int(np.ceil(len(ids) / columns))
    cells = np.resize(
        np.random.default_rng(seed).permutation(np.array(ids, np.uint8)), rows * columns
    )
    grid = cells.reshape(rows, columns)
    return grid[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def save_pair(image: Path, mask: Path, size: Size, ids: Sequence[int], seed: Sequence[int]) -> None:
    save_image(image, picture(size, seed))
    save_image(mask, blocks(size, ids, seed))


def make_cityscapes(
    root: Path, counts: Counts = None, size: Size = (64, 96), label: str = "labelIds"
) -> Path:
    """Write leftImg8bit and gtFine (gtCoarse for train_extra) with every id that occurs."""
    ids = list(range(34)) if label == "labelIds" else [*range(19), 255]
    for split, count in (counts or {"train": 3, "val": 2, "test": 1}).items():
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        for index in range(count):
            city = f"{split.replace('_', '')}city{index % 2}"
            stem = f"{split}/{city}/{city}_{index:06d}_000019"
            image = root / f"leftImg8bit/{stem}_leftImg8bit.png"
            mask = root / f"{kind}/{stem}_{kind}_{label}.png"
            save_pair(image, mask, size, [0] if split == "test" else ids, (len(split), index))
    return root


def make_lip(root: Path, counts: Counts = None, size: Size = (90, 60), flat: bool = False) -> Path:
    """Write TrainVal_images and TrainVal_parsing_annotations (flat: as mmsegmentation has them)."""
    homes = ("", "") if flat else ("TrainVal_images", "TrainVal_parsing_annotations")
    for split, count in (counts or {"train": 3, "val": 2}).items():
        images = root / homes[0] / f"{split}_images"
        masks = root / homes[1] / f"{split}_segmentations"
        stems = [f"{100 + len(split)}_{index:06d}" for index in range(count)]
        for index, stem in enumerate(stems):
            image, seed = images / f"{stem}.jpg", (20 + len(split), index)
            save_pair(image, masks / f"{stem}.png", size, range(20), seed)
            if index == 1:  # some of LIP's JPEGs are grey
                save_image(image, picture(size, seed)[..., 0])
        if not flat:
            (images.parent / f"{split}_id.txt").write_text("\n".join(stems) + "\n")
    return root


def make_pascal_context(root: Path, counts: Counts = None, size: Size = (75, 100)) -> Path:
    """Write JPEGImages, SegmentationClassContext and the lists, as in a VOC2010 folder."""
    lists = root / "ImageSets/SegmentationContext"
    lists.mkdir(parents=True, exist_ok=True)
    for split, count in (counts or {"train": 3, "val": 2}).items():
        stems = [f"2008_{len(split)}{index:05d}" for index in range(count)]
        for index, stem in enumerate(stems):
            image = root / f"JPEGImages/{stem}.jpg"
            mask = root / f"SegmentationClassContext/{stem}.png"
            save_pair(image, mask, size, range(60), (30 + len(split), index))
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return root


def make_ade20k(root: Path, counts: Counts = None, size: Size = (80, 100)) -> Path:
    """Write images and annotations as in ADEChallengeData2016."""
    folders = {"train": "training", "val": "validation"}
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            stem = f"{folders[split]}/ADE_{split}_{index + 1:08d}"
            image, mask = root / f"images/{stem}.jpg", root / f"annotations/{stem}.png"
            save_pair(image, mask, size, range(151), (40 + len(split), index))
    return root


def make_cocostuff10k(root: Path, counts: Counts = None, size: Size = (90, 120)) -> Path:
    """Write images and annotations as mmsegmentation has them."""
    folders = {"train": "train2014", "val": "test2014"}
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            stem = f"{folders[split]}/COCO_train2014_{index:012d}"
            mask = root / f"annotations/{stem}_labelTrainIds.png"
            seed = (50 + len(split), index)
            save_pair(root / f"images/{stem}.jpg", mask, size, range(172), seed)
    return root
