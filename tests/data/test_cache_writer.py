"""Writer of the cache: updates, verification, locks, and kills at any moment."""

import os
import time
from multiprocessing import get_context

import numpy as np
import pytest
from PIL import Image

from hrseg.data import cache_writer as module
from hrseg.data.cache import INDEX, Cache
from hrseg.data.cache_writer import PAGE, verify_cache, write_cache
from hrseg.data.masks import MaskReader, id_table
from hrseg.errors import ConfigError, DataError
from tests.cached_pairs import READER, cache_of, datasets, pairs


def test_only_changed_pairs_are_decoded_again(tmp_path):
    files, folder, root = cache_of(tmp_path)
    assert write_cache(folder, root, files, READER) == 0
    os.utime(files[0][0], ns=(1, 1))  # another time, equal content: still in the cache
    assert Cache(folder, root, READER).contains(files[0])
    image, _ = files[1]
    Image.fromarray(np.zeros((43, 62, 3), np.uint8)).save(image)
    with pytest.raises(DataError, match=r"1 of 5 images .*1\.png \(changed since\)"):
        Cache(folder, root, READER).check(files)
    more = pairs(root, 1, first=5)
    assert write_cache(folder, root, files + more, READER) == 3  # 0 is compared
    assert Cache(folder, root, READER).contains(files[0], exactly=True)
    plain, cached = datasets(files + more, folder, root)
    assert all(plain[i]["image"].equal(cached[i]["image"]) for i in range(6))
    assert (cached[1]["image"] == 0).all()


def test_masks_with_other_ids_are_refused(tmp_path):
    files, folder, root = cache_of(tmp_path, 1)
    other = MaskReader(id_table(5, {9: 1, 1: 0, 2: 2, 3: 3, 4: 4}), "")
    for function in (
        lambda: Cache(folder, root, other),
        lambda: write_cache(folder, root, files, other),
    ):
        with pytest.raises(ConfigError, match="the same classes, ids and colours"):
            function()
    with pytest.raises(ConfigError, match="identity"):
        write_cache(tmp_path / "new", root, files, lambda path: None)


def test_an_unreadable_file_is_an_error_and_finished_pairs_are_kept(tmp_path):
    files = pairs(tmp_path / "data")
    files[3][0].write_bytes(files[3][0].read_bytes()[:-40])
    with pytest.raises(DataError, match=r"3\.png"):
        write_cache(tmp_path / "cache", tmp_path / "data", files, READER)
    files[3] = pairs(tmp_path / "data", 1, first=3)[0]
    assert write_cache(tmp_path / "cache", tmp_path / "data", files, READER) == 2


def test_an_incomplete_last_line_is_dropped(tmp_path):
    files, folder, root = cache_of(tmp_path)
    index = folder / INDEX
    index.write_bytes(index.read_bytes()[:-25])
    assert write_cache(folder, root, files, READER) == 1
    datasets(files, folder, root)


def test_verify_removes_damaged_pairs_and_the_next_run_decodes_them(tmp_path):
    files, folder, root = cache_of(tmp_path)
    assert verify_cache(folder, root, READER) == []
    entry = list(Cache(folder, root, READER).entries.values())[2]
    with (folder / "shard-00000.bin").open("r+b") as shard:
        shard.seek(entry.offset + 100)
        byte = shard.read(1)[0]
        shard.seek(entry.offset + 100)
        shard.write(bytes([byte ^ 1]))
    assert [e.files[0] for e in verify_cache(folder, root, READER)] == ["2.png"]
    assert write_cache(folder, root, files, READER) == 1
    assert verify_cache(folder, root, READER) == []


def test_shards_have_a_bounded_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 3 * PAGE)
    files = pairs(tmp_path / "data")
    write_cache(tmp_path / "cache", tmp_path / "data", files, READER, workers=2)
    plain, cached = datasets(files, tmp_path / "cache", tmp_path / "data")
    assert len(list((tmp_path / "cache").glob("shard-*.bin"))) == 5
    assert all(plain[i]["mask"].equal(cached[i]["mask"]) for i in range(5))


def test_a_second_writer_is_refused(tmp_path):
    files = pairs(tmp_path / "data", 1)
    (tmp_path / "cache").mkdir()
    with module._locked(tmp_path / "cache"), pytest.raises(ConfigError, match="Another process"):
        write_cache(tmp_path / "cache", tmp_path / "data", files, READER)


def test_a_writer_killed_at_any_moment_can_resume(tmp_path):
    files = pairs(tmp_path / "data", 40)
    folder = tmp_path / "cache"
    arguments = (folder, tmp_path / "data", files, READER)
    for delay in (0.01, 0.03, 0.06):
        process = get_context("fork").Process(target=write_cache, args=arguments)
        process.start()
        time.sleep(delay)
        process.kill()
        process.join()
    write_cache(folder, tmp_path / "data", files, READER)
    assert verify_cache(folder, tmp_path / "data", READER) == []
    plain, cached = datasets(files, folder, tmp_path / "data")
    assert all(plain[i]["image"].equal(cached[i]["image"]) for i in range(40))
