"""Data sets in their official layouts, with generated images."""

import numpy as np
from PIL import Image

from tests.conftest import picture, save_image


def blocks(size, ids, seed):
    """Return a mask (H, W) of rectangles that contains each id."""
    height, width = size
    columns = int(np.ceil(np.sqrt(len(ids) * 2)))
    rows = int(np.ceil(len(ids) / columns))
    order = np.random.default_rng(seed).permutation(np.array(ids, np.uint8))
    grid = np.resize(order, (rows, columns))
    return grid[np.arange(height) * rows // height][:, np.arange(width) * columns // width]


def save_pairs(root, counts, size, ids, seed, image, mask, **folders):
    """Write pairs to the patterns `image` and `mask`; `folders` rename splits."""
    for split, count in (counts or {"train": 3, "val": 2}).items():
        for index in range(count):
            draw = (seed + len(split), index)
            names = {"split": split, "folder": folders.get(split), "n": len(split),
                     "index": index, "number": index + 1}  # fmt: skip
            save_image(root / image.format(**names), picture(size, draw))
            save_image(root / mask.format(**names), blocks(size, ids, draw))
    return root


def make_cityscapes(root, counts=None, size=(64, 96), label="labelIds"):
    """Write leftImg8bit and gtFine (gtCoarse for train_extra) with all ids."""
    ids = list(range(34)) if label == "labelIds" else [*range(19), 255]
    for split, count in (counts or {"train": 3, "val": 2, "test": 1}).items():
        kind = "gtCoarse" if split == "train_extra" else "gtFine"
        for index in range(count):
            city = f"{split.replace('_', '')}city{index % 2}"
            stem = f"{split}/{city}/{city}_{index:06d}_000019"
            image, mask = f"leftImg8bit/{stem}_leftImg8bit.png", f"{kind}/{stem}_{kind}_{label}.png"
            draw = (len(split), index)
            save_image(root / image, picture(size, draw))
            save_image(root / mask, blocks(size, [0] if split == "test" else ids, draw))
    return root


def make_lip(root, counts=None, size=(90, 60), flat=False):
    """Write TrainVal_images and TrainVal_parsing_annotations (flat: layout of mmsegmentation)."""
    folders = ("", "") if flat else ("TrainVal_images/", "TrainVal_parsing_annotations/")
    image = f"{folders[0]}{{split}}_images/10{{n}}_{{index:06d}}.jpg"
    mask = f"{folders[1]}{{split}}_segmentations/10{{n}}_{{index:06d}}.png"
    save_pairs(root, counts, size, range(20), 20, image, mask)
    for images in root.glob(f"{folders[0]}*_images"):
        paths = sorted(images.iterdir())
        Image.open(paths[1]).convert("L").save(paths[1])  # some of LIP's JPEGs are grey
        if not flat:
            names = images.with_name(images.name.replace("images", "id.txt"))
            names.write_text("".join(f"{path.stem}\n" for path in paths))
    return root


def make_pascal_context(root, counts=None, size=(75, 100)):
    """Write JPEGImages, SegmentationClassContext and the lists, as in a VOC2010 folder."""
    lists, stem = root / "ImageSets/SegmentationContext", "2008_{n}{index:05d}"
    lists.mkdir(parents=True, exist_ok=True)
    for split, count in (counts or {"train": 3, "val": 2}).items():
        stems = [stem.format(n=len(split), index=index) for index in range(count)]
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    masks = f"SegmentationClassContext/{stem}.png"
    return save_pairs(root, counts, size, range(60), 30, f"JPEGImages/{stem}.jpg", masks)


def make_ade20k(root, counts=None, size=(80, 100)):
    """Write images and annotations in the layout of ADEChallengeData2016."""
    stem = "{folder}/ADE_{split}_{number:08d}"
    return save_pairs(root, counts, size, range(151), 40, f"images/{stem}.jpg",
                      f"annotations/{stem}.png", train="training", val="validation")  # fmt: skip


def make_cocostuff10k(root, counts=None, size=(90, 120)):
    """Write images and annotations in the layout of mmsegmentation."""
    stem = "{folder}/COCO_train2014_{index:012d}"
    return save_pairs(
        root, counts, size, range(172), 50, f"images/{stem}.jpg",
        f"annotations/{stem}_labelTrainIds.png", train="train2014", val="test2014",
    )  # fmt: skip
