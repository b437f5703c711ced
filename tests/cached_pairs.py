"""Images and masks, and a data set of them from their files and from a cache."""

import numpy as np
from PIL import Image

from hrseg.data.cache import Cache
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.masks import MaskReader, id_table

READER = MaskReader(id_table(5, {9: 0, 1: 1, 2: 2, 3: 3, 4: 4}), "")


def pairs(root, count=5, first=0):
    """Images of odd sizes with masks whose raw id 9 stands for class 0."""
    root.mkdir(exist_ok=True)
    files = []
    for i in range(first, first + count):
        random = np.random.default_rng(i)
        size = (40 + 3 * i, 61 + i)
        image, mask = root / f"{i}.png", root / f"{i}_mask.png"
        Image.fromarray(random.integers(0, 256, (*size, 3), np.uint8)).save(image)
        Image.fromarray(random.choice([9, 1, 2, 3], size).astype(np.uint8)).save(mask)
        files.append((image, mask))
    return files


def datasets(files, folder, root, transform=None):
    """The same images from their files and from the cache."""
    plain = SegmentationDataset(files, READER, transform)
    cached = SegmentationDataset(files, READER, transform)
    cached.cache = Cache(folder, root, READER)
    cached.cache.check(files)
    return plain, cached
