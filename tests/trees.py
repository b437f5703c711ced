"""Trees in the official layouts, with drawn images, for tests and trials at full size."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hrseg.data.images import Array
from tests.conftest import picture, save_image

Size = tuple[int, int]


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


def make_cityscapes(
    root: Path,
    counts: dict[str, int] | None = None,
    size: Size = (64, 96),
    label: str = "labelIds",
) -> Path:
    """Write leftImg8bit and gtFine (gtCoarse for train_extra) with every id that occurs."""
    ids = list(range(34)) if label == "labelIds" else [*range(19), 255]
    for split, count in (counts or {"train": 3, "val": 2, "test": 1}).items():
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        for index in range(count):
            city = f"{split.replace('_', '')}city{index % 2}"
            stem = f"{city}_{index:06d}_000019"
            seed = (len(split), index)
            save_image(
                root / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", picture(size, seed)
            )
            mask = blocks(size, ids, seed) * (split != "test")
            save_image(root / f"{kind}/{split}/{city}/{stem}_{kind}_{label}.png", mask)
    return root


def make_lip(
    root: Path, counts: dict[str, int] | None = None, size: Size = (90, 60), flat: bool = False
) -> Path:
    """Write TrainVal_images and TrainVal_parsing_annotations (flat: as mmsegmentation has them)."""
    for split, count in (counts or {"train": 3, "val": 2}).items():
        images = root / ("" if flat else "TrainVal_images") / f"{split}_images"
        masks = root / ("" if flat else "TrainVal_parsing_annotations") / f"{split}_segmentations"
        stems = [f"{100 + len(split)}_{index:06d}" for index in range(count)]
        for index, stem in enumerate(stems):
            seed = (20 + len(split), index)
            image = picture(size, seed)
            # Some of LIP's JPEGs are grey.
            save_image(images / f"{stem}.jpg", image[..., 0] if index == 1 else image)
            save_image(masks / f"{stem}.png", blocks(size, list(range(20)), seed))
        if not flat:
            (root / f"TrainVal_images/{split}_id.txt").write_text("\n".join(stems) + "\n")
    return root


def make_pascal_context(
    root: Path, counts: dict[str, int] | None = None, size: Size = (75, 100)
) -> Path:
    """Write JPEGImages, SegmentationClassContext and the lists, as in a VOC2010 folder."""
    for split, count in (counts or {"train": 3, "val": 2}).items():
        stems = [f"2008_{len(split)}{index:05d}" for index in range(count)]
        for index, stem in enumerate(stems):
            seed = (30 + len(split), index)
            save_image(root / f"JPEGImages/{stem}.jpg", picture(size, seed))
            save_image(root / f"SegmentationClassContext/{stem}.png", blocks(size, range(60), seed))
        names = root / f"ImageSets/SegmentationContext/{split}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text("\n".join(stems) + "\n")
    return root


def make_ade20k(root: Path, counts: dict[str, int] | None = None, size: Size = (80, 100)) -> Path:
    """Write images and annotations as in ADEChallengeData2016."""
    folders = {"train": "training", "val": "validation"}
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            name, seed = f"ADE_{split}_{index + 1:08d}", (40 + len(split), index)
            save_image(root / f"images/{folders[split]}/{name}.jpg", picture(size, seed))
            save_image(
                root / f"annotations/{folders[split]}/{name}.png", blocks(size, range(151), seed)
            )
    return root


def make_cocostuff10k(
    root: Path, counts: dict[str, int] | None = None, size: Size = (90, 120)
) -> Path:
    """Write images and annotations as mmsegmentation has them."""
    folders = {"train": "train2014", "val": "test2014"}
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            name, seed = f"COCO_train2014_{index:012d}", (50 + len(split), index)
            save_image(root / f"images/{folders[split]}/{name}.jpg", picture(size, seed))
            mask = blocks(size, range(172), seed)
            save_image(root / f"annotations/{folders[split]}/{name}_labelTrainIds.png", mask)
    return root
