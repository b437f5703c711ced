"""Trees in the official layouts, with drawn images, for tests and trials at full size."""

import numpy as np

from tests.conftest import picture, save_image

COUNTS = {"train": 3, "val": 2}


def blocks(size, ids, seed):
    """Return a mask (H, W) of rectangles in which each id occurs."""
    height, width = size
    columns = int(np.ceil(np.sqrt(len(ids) * 2)))
    rows = int(np.ceil(len(ids) / columns))
    shuffled = np.random.default_rng(seed).permutation(np.array(ids, np.uint8))
    grid = np.resize(shuffled, (rows, columns))
    return grid[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def make_cityscapes(root, counts=None, size=(64, 96), label="labelIds"):
    """Write leftImg8bit and gtFine (gtCoarse for train_extra) with every id that occurs."""
    ids = list(range(34)) if label == "labelIds" else [*range(19), 255]
    for split, count in (counts or {**COUNTS, "test": 1}).items():
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        for index in range(count):
            city, seed = f"{split.replace('_', '')}city{index % 2}", (len(split), index)
            stem = f"{split}/{city}/{city}_{index:06d}_000019"
            save_image(root / f"leftImg8bit/{stem}_leftImg8bit.png", picture(size, seed))
            mask = blocks(size, ids, seed) * (split != "test")
            save_image(root / f"{kind}/{stem}_{kind}_{label}.png", mask)
    return root


def make_lip(root, flat=False):
    """Write TrainVal_images and TrainVal_parsing_annotations (flat: as mmsegmentation has them)."""
    for split, count in COUNTS.items():
        images = root / ("" if flat else "TrainVal_images") / f"{split}_images"
        masks = root / ("" if flat else "TrainVal_parsing_annotations") / f"{split}_segmentations"
        stems = [f"{100 + len(split)}_{index:06d}" for index in range(count)]
        for index, stem in enumerate(stems):
            seed = (20 + len(split), index)
            image = picture((90, 60), seed)
            # Some of LIP's JPEGs are grey.
            save_image(images / f"{stem}.jpg", image[..., 0] if index == 1 else image)
            save_image(masks / f"{stem}.png", blocks((90, 60), range(20), seed))
        if not flat:
            (root / f"TrainVal_images/{split}_id.txt").write_text("\n".join(stems) + "\n")
    return root


def make_pascal_context(root, counts=None):
    """Write JPEGImages, SegmentationClassContext and the lists, as in a VOC2010 folder."""
    for split, count in (counts or COUNTS).items():
        stems = [f"2008_{len(split)}{index:05d}" for index in range(count)]
        for index, stem in enumerate(stems):
            seed = (30 + len(split), index)
            mask = blocks((75, 100), range(60), seed)
            save_image(root / f"JPEGImages/{stem}.jpg", picture((75, 100), seed))
            save_image(root / f"SegmentationClassContext/{stem}.png", mask)
        names = root / f"ImageSets/SegmentationContext/{split}.txt"
        names.parent.mkdir(parents=True, exist_ok=True)
        names.write_text("\n".join(stems) + "\n")
    return root


def _images_and_annotations(root, folders, name, label, size, classes, first=0):
    for split, count in COUNTS.items():
        for index in range(count):
            seed, stem = (40 + len(split), index), name(split, index + first)
            save_image(root / f"images/{folders[split]}/{stem}.jpg", picture(size, seed))
            mask = root / f"annotations/{folders[split]}/{stem}{label}.png"
            save_image(mask, blocks(size, range(classes), seed))
    return root


def make_ade20k(root):
    """Write images and annotations as in ADEChallengeData2016."""
    folders = {"train": "training", "val": "validation"}
    name = "ADE_{}_{:08d}".format
    return _images_and_annotations(root, folders, name, "", (80, 100), 151, first=1)


def make_cocostuff10k(root):
    """Write images and annotations as mmsegmentation has them."""
    folders, name = {"train": "train2014", "val": "test2014"}, "COCO_train2014_{1:012d}".format
    return _images_and_annotations(root, folders, name, "_labelTrainIds", (90, 120), 172)
