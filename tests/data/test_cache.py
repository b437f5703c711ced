import os

import numpy as np
import pytest
from PIL import Image

from hrseg.data.cache import INDEX, Cache
from hrseg.data.cache_writer import PAGE, write_cache
from hrseg.data.dataset import Key
from hrseg.data.datasets.folder import Folder
from hrseg.data.transforms import TrainTransform
from hrseg.errors import ConfigError, DataError
from tests.cached_pairs import READER, cache_of, datasets, pairs


def test_samples_are_equal_to_the_bit(tmp_path):
    files = pairs(tmp_path / "data")
    assert write_cache(tmp_path / "cache", tmp_path / "data", files, READER, workers=3) == 5
    transform = TrainTransform((32, 48), (0.5, 2.0, 0.1), 64, photometric=0.3)
    for change in (None, transform):
        plain, cached = datasets(files, tmp_path / "cache", tmp_path / "data", change)
        for index in range(5):
            for epoch in range(3):
                one, other = plain[Key(index, epoch)], cached[Key(index, epoch)]
                assert one["image"].equal(other["image"]) and one["mask"].equal(other["mask"])
                other["image"].zero_()  # a tensor of its own


def test_an_image_without_a_mask_is_all_ignore(tmp_path):
    files = [(image, None) for image, _ in pairs(tmp_path / "data", 2)]
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    image, mask = Cache(tmp_path / "cache", tmp_path / "data", READER).read(files[1][0])
    assert mask.shape == image.shape[:2] and (mask == 255).all()


def test_data_set_and_cache_can_move(tmp_path):
    files, folder, root = cache_of(tmp_path, 2)
    root.rename(tmp_path / "moved")
    folder.rename(tmp_path / "elsewhere")
    files = [(tmp_path / "moved" / i.name, tmp_path / "moved" / m.name) for i, m in files]
    cache = Cache(tmp_path / "elsewhere", tmp_path / "moved", READER)
    cache.check(files)
    assert not cache.holds((files[0][0], files[1][1])) and not cache.holds((files[0][0], None))
    assert np.array_equal(cache.read(files[1][0])[0], np.asarray(Image.open(files[1][0])))


@pytest.mark.parametrize("line", ['{"files": 3}', "nonsense", "negative"])
def test_a_damaged_index_is_named(tmp_path, line):
    _, folder, root = cache_of(tmp_path, 2)
    lines = (folder / INDEX).read_text().splitlines()
    if line == "negative":
        line = lines[1].replace('"offset": 0', '"offset": -4096')
    (folder / INDEX).write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(DataError, match="line 2: damaged"):
        Cache(folder, root, READER)
    (folder / INDEX).write_text(line + "\n")
    with pytest.raises(ConfigError, match="not an index of a cache of this hrseg"):
        Cache(folder, root, READER)


def test_a_shard_that_was_cut_off_is_named(tmp_path):
    files, folder, root = cache_of(tmp_path, 2)
    os.truncate(folder / "shard-00000.bin", PAGE)
    with pytest.raises(DataError, match="cut off"):
        Cache(folder, root, READER).check(files)


def test_the_data_module_trains_from_the_cache_and_refuses_a_stale_one(tmp_path):
    root = tmp_path / "data"
    for split, count in (("train", 4), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i, (image, mask) in enumerate(pairs(tmp_path / split, count, first=len(split))):
            image.rename(root / "images" / split / f"{split}{i}.png")
            mask.rename(root / "masks" / split / f"{split}{i}.png")
    names = {"class_names": list("abcd"), "id_map": {9: 0, 1: 1, 2: 2, 3: 3}, "batch_size": 2}

    def data(cache=None, workers=0):
        return Folder(str(root), **names, crop_size=(32, 32), cache=cache, workers=workers)

    with pytest.raises(ConfigError, match="not a cache of decoded images"):
        data(str(tmp_path / "cache")).setup("fit")
    plain = data()
    plain.setup("fit")
    files = [*plain.train_dataset.files, *plain.val_dataset.files]
    write_cache(tmp_path / "cache", root, files, plain.mask_reader())
    for workers in (0, 2):
        cached = data(str(tmp_path / "cache"), workers)
        cached.setup("fit")
        for one, other in (
            (plain.train_dataloader(), cached.train_dataloader()),
            (plain.val_dataloader(), cached.val_dataloader()),
        ):
            for a, b in zip(one, other, strict=True):
                assert a["image"].equal(b["image"]) and a["mask"].equal(b["mask"])
    files[0][1].write_bytes(files[1][1].read_bytes())
    with pytest.raises(DataError, match="as they are now"):
        data(str(tmp_path / "cache")).check("fit")
