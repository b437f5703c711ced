import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest
from PIL import Image

from hrseg.data import cache as module
from hrseg.data.base import MaskReader, id_table
from hrseg.data.cache import INDEX, PAGE, Cache, verify_cache, write_cache
from hrseg.data.dataset import Key, SegmentationDataset
from hrseg.data.folder import Folder
from hrseg.data.transforms import TrainTransform
from hrseg.errors import ConfigError, DataError

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


def test_pairs_begin_on_pages_and_are_read_from_the_disk_unchanged(tmp_path):
    files = pairs(tmp_path / "data")
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    cache = Cache(tmp_path / "cache", tmp_path / "data", READER)
    assert [entry.offset % PAGE for entry in cache.entries.values()] == [0] * 5
    image, mask = cache.read(files[2][0])
    assert np.array_equal(image, np.asarray(Image.open(files[2][0])))
    assert set(np.unique(mask)) == {0, 1, 2, 3}
    assert not image.flags.writeable and not mask.flags.writeable


def test_an_image_without_a_mask_is_all_ignore(tmp_path):
    files = [(image, None) for image, _ in pairs(tmp_path / "data", 2)]
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    image, mask = Cache(tmp_path / "cache", tmp_path / "data", READER).read(files[1][0])
    assert mask.shape == image.shape[:2] and (mask == 255).all()


def test_only_what_changed_is_decoded_again(tmp_path):
    files = pairs(tmp_path / "data")
    folder = tmp_path / "cache"
    write_cache(folder, tmp_path / "data", files, READER)
    assert write_cache(folder, tmp_path / "data", files, READER) == 0
    os.utime(files[0][0], ns=(1, 1))  # another time, the same content: still held
    assert Cache(folder, tmp_path / "data", READER).holds(files[0])
    image, _ = files[1]
    Image.fromarray(np.zeros((43, 62, 3), np.uint8)).save(image)
    with pytest.raises(DataError, match=r"1 of 5 images .*1\.png \(changed since\)"):
        Cache(folder, tmp_path / "data", READER).check(files)
    more = pairs(tmp_path / "data", 1, first=5)
    assert write_cache(folder, tmp_path / "data", files + more, READER) == 2
    plain, cached = datasets(files + more, folder, tmp_path / "data")
    assert all(plain[i]["image"].equal(cached[i]["image"]) for i in range(6))
    assert (cached[1]["image"] == 0).all()


def test_another_mask_or_no_mask_is_another_pair(tmp_path):
    files = pairs(tmp_path / "data", 2)
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    cache = Cache(tmp_path / "cache", tmp_path / "data", READER)
    assert not cache.holds((files[0][0], files[1][1]))
    assert not cache.holds((files[0][0], None))


def test_masks_that_were_read_otherwise_are_refused(tmp_path):
    files = pairs(tmp_path / "data", 1)
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    other = MaskReader(id_table(5, {9: 1, 1: 0, 2: 2, 3: 3, 4: 4}), "")
    for work in (
        lambda: Cache(tmp_path / "cache", tmp_path / "data", other),
        lambda: write_cache(tmp_path / "cache", tmp_path / "data", files, other),
    ):
        with pytest.raises(ConfigError, match="other classes, ids or colours"):
            work()
    with pytest.raises(ConfigError, match="identity"):
        write_cache(tmp_path / "new", tmp_path / "data", files, lambda path: None)


def test_data_set_and_cache_can_move(tmp_path):
    files = pairs(tmp_path / "data", 2)
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    (tmp_path / "data").rename(tmp_path / "moved")
    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    files = [(tmp_path / "moved" / i.name, tmp_path / "moved" / m.name) for i, m in files]
    Cache(tmp_path / "elsewhere", tmp_path / "moved", READER).check(files)


def test_a_file_that_cannot_be_read_is_named_and_what_is_done_stays(tmp_path):
    files = pairs(tmp_path / "data")
    files[3][0].write_bytes(files[3][0].read_bytes()[:-40])
    with pytest.raises(DataError, match=r"3\.png"):
        write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    files[3] = pairs(tmp_path / "data", 1, first=3)[0]
    assert write_cache(tmp_path / "cache", tmp_path / "data", files, READER) == 2


def test_a_mask_of_another_size_is_named(tmp_path):
    files = pairs(tmp_path / "data", 2)
    with pytest.raises(DataError, match=r"1_mask\.png is 62x43 .* expected 61x40"):
        pair = [(files[0][0], files[1][1])]
        write_cache(tmp_path / "cache", tmp_path / "data", pair, READER)


def test_a_torn_last_line_is_dropped(tmp_path):
    files = pairs(tmp_path / "data")
    folder = tmp_path / "cache"
    write_cache(folder, tmp_path / "data", files, READER)
    index = folder / INDEX
    index.write_bytes(index.read_bytes()[:-25])
    assert write_cache(folder, tmp_path / "data", files, READER) == 1
    datasets(files, folder, tmp_path / "data")


@pytest.mark.parametrize("line", ["{}", '{"files": 3}', "nonsense", "[]"])
def test_a_damaged_index_is_named(tmp_path, line):
    files = pairs(tmp_path / "data", 2)
    folder = tmp_path / "cache"
    write_cache(folder, tmp_path / "data", files, READER)
    lines = (folder / INDEX).read_text().splitlines()
    (folder / INDEX).write_text("\n".join([lines[0], line, *lines[1:]]) + "\n")
    with pytest.raises(DataError, match="line 2: damaged"):
        Cache(folder, tmp_path / "data", READER)
    (folder / INDEX).write_text(line + "\n")
    with pytest.raises(ConfigError, match="no index of a cache of this version"):
        Cache(folder, tmp_path / "data", READER)


def test_a_shard_that_was_cut_off_is_named(tmp_path):
    files = pairs(tmp_path / "data", 2)
    folder = tmp_path / "cache"
    write_cache(folder, tmp_path / "data", files, READER)
    os.truncate(folder / "shard-00000.bin", PAGE)
    with pytest.raises(DataError, match="cut off"):
        Cache(folder, tmp_path / "data", READER).check(files)


def test_verify_takes_damaged_pairs_out_and_the_next_run_decodes_them(tmp_path):
    files = pairs(tmp_path / "data")
    folder = tmp_path / "cache"
    write_cache(folder, tmp_path / "data", files, READER)
    assert verify_cache(folder, tmp_path / "data", READER) == []
    entry = list(Cache(folder, tmp_path / "data", READER).entries.values())[2]
    with (folder / "shard-00000.bin").open("r+b") as shard:
        shard.seek(entry.offset + 100)
        byte = shard.read(1)[0]
        shard.seek(entry.offset + 100)
        shard.write(bytes([byte ^ 1]))
    assert [e.files[0] for e in verify_cache(folder, tmp_path / "data", READER)] == ["2.png"]
    assert write_cache(folder, tmp_path / "data", files, READER) == 1
    assert verify_cache(folder, tmp_path / "data", READER) == []


def test_shards_are_of_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 3 * PAGE)
    files = pairs(tmp_path / "data")
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER, workers=2)
    plain, cached = datasets(files, tmp_path / "cache", tmp_path / "data")
    assert len(list((tmp_path / "cache").glob("shard-*.bin"))) == 5
    assert all(plain[i]["mask"].equal(cached[i]["mask"]) for i in range(5))


def test_a_disk_without_room_is_said_before_anything_is_decoded(tmp_path, monkeypatch):
    files = pairs(tmp_path / "data")
    usage = module.shutil.disk_usage(tmp_path)._replace(free=10_000)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ConfigError, match="GiB more"):
        write_cache(tmp_path / "cache", tmp_path / "data", files, READER)


def test_a_second_writer_is_refused(tmp_path):
    files = pairs(tmp_path / "data", 1)
    (tmp_path / "cache").mkdir()
    with module._alone(tmp_path / "cache"), pytest.raises(ConfigError, match="another process"):
        write_cache(tmp_path / "cache", tmp_path / "data", files, READER)


def test_a_writer_that_is_killed_at_any_moment_can_go_on(tmp_path):
    files = pairs(tmp_path / "data", 40)
    folder = tmp_path / "cache"
    code = textwrap.dedent("""
        import sys
        from pathlib import Path
        from tests.test_cache import READER, write_cache
        root = Path(sys.argv[1]) / "data"
        files = [(root / f"{i}.png", root / f"{i}_mask.png") for i in range(40)]
        print("go", flush=True)
        write_cache(Path(sys.argv[1]) / "cache", root, files, READER)
    """)
    for delay in (0.0, 0.01, 0.03):
        command = [sys.executable, "-c", code, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
    write_cache(folder, tmp_path / "data", files, READER)
    assert verify_cache(folder, tmp_path / "data", READER) == []
    plain, cached = datasets(files, folder, tmp_path / "data")
    assert all(plain[i]["image"].equal(cached[i]["image"]) for i in range(40))


def test_open_shards_stay_behind_when_a_worker_is_started(tmp_path):
    files = pairs(tmp_path / "data", 2)
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    cache = Cache(tmp_path / "cache", tmp_path / "data", READER)
    before, _ = cache.read(files[0][0])
    assert np.array_equal(pickle.loads(pickle.dumps(cache)).read(files[0][0])[0], before)


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

    with pytest.raises(ConfigError, match="no cache of decoded images"):
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


def test_the_index_says_what_is_needed_to_check_it_by_hand(tmp_path):
    files = pairs(tmp_path / "data", 1)
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    head, line = map(json.loads, (tmp_path / "cache" / INDEX).read_text().splitlines())
    assert head["hrseg_cache"] == 1
    assert line["files"] == ["0.png", "0_mask.png"] and line["size"] == [40, 61]
