import os
import zipfile

import torch

from hrseg.checkpoints.integrity import previous_of, state_of, whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.training.checkpointing import DurableCheckpointIO


def saved(path, value=1.0):
    torch.save(
        {"state_dict": {"a": torch.full((100, 7), value)}, "epoch": 3, "global_step": 7}, path
    )
    return path


def flipped(path, byte, bit=4):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
    return path


def test_a_file_is_whole_and_one_of_old_torch_is_unchecked(tmp_path):
    assert state_of(saved(tmp_path / "a.ckpt")) == "whole"
    torch.save({"a": 1}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert state_of(tmp_path / "old.pth") == "unchecked"


def test_a_flipped_bit_is_damage_or_changes_nothing(tmp_path):
    path = saved(tmp_path / "a.ckpt")
    data, content = path.read_bytes(), torch.load(path)
    directory = data.index(b"PK\1\2")
    states = set()
    for byte in (*range(0, directory, 97), *range(directory, len(data), 3)):
        path.write_bytes(data)
        state = state_of(flipped(path, byte, byte % 8))
        states.add(state)
        if state == "whole":
            read = torch.load(path)
            assert read["state_dict"]["a"].equal(content["state_dict"]["a"])
            assert read["epoch"] == 3
    assert states == {"whole", "damaged"}  # between the records lie bytes that nobody reads


def test_a_record_that_torch_would_take_for_a_folder_is_damage(tmp_path):
    # Its values would be those of fresh memory.
    path = saved(tmp_path / "a.ckpt")
    name = path.read_bytes().rindex(b"a/data/0")
    assert state_of(flipped(path, name - 8)) == "damaged"


def test_a_settled_file_is_read_for_its_checksums_once_per_process(tmp_path, monkeypatch):
    path, read = saved(tmp_path / "a.ckpt"), []
    saved(previous_of(path))
    test = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda file: read.append(1) or test(file))
    os.utime(path, (1000, 1000))
    assert read_checkpoint(whole_checkpoint(path))["epoch"] == 3
    assert DurableCheckpointIO().load_checkpoint(path, weights_only=True)["epoch"] == 3
    assert len(read) == 1
    os.utime(flipped(path, -300), (2000, 2000))
    assert state_of(path) == "damaged"
