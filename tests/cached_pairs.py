"""Images and masks, and data sets of them from files and from a cache."""

import numpy as np

from hrseg.data.cache import Cache
from hrseg.data.cache_writer import write_cache
from hrseg.data.dataset import SegmentationDataset
from hrseg.data.masks import MaskReader, id_table
from tests.conftest import save_image

READER = MaskReader(id_table(5, {9: 0, 1: 1, 2: 2, 3: 3, 4: 4}), "")


def pairs(root, count=5, first=0):
    """Write images of odd sizes, and masks with raw id 9 for class 0; return the files."""
    files = []
    for i in range(first, first + count):
        random = np.random.default_rng(i)
        size = (40 + 3 * i, 61 + i)
        image = save_image(root / f"{i}.png", random.integers(0, 256, (*size, 3), np.uint8))
        mask = random.choice([9, 1, 2, 3], size).astype(np.uint8)
        files.append((image, save_image(root / f"{i}_mask.png", mask)))
    return files


def cache_of(folder, count=5):
    """Write images and masks to `folder`/data and cache them; return files, cache, data."""
    files = pairs(folder / "data", count)
    write_cache(folder / "cache", folder / "data", files, READER)
    return files, folder / "cache", folder / "data"


def datasets(files, folder, root, transform=None):
    plain = SegmentationDataset(files, READER, transform)
    cached = SegmentationDataset(files, READER, transform)
    cached.cache = Cache(folder, root, READER)
    cached.cache.check(files)
    return plain, cached
