import os
import zipfile

import torch

from hrseg.checkpoints.integrity import previous_of, state_of, whole_checkpoint
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.training.checkpointing import DurableCheckpointIO


def save_checkpoint(path, value=1.0):
    torch.save(
        {"state_dict": {"a": torch.full((100, 7), value)}, "epoch": 3, "global_step": 7}, path
    )
    return path


def flip_bit(path, byte, bit=4):
    data = bytearray(path.read_bytes())
    data[byte] ^= 1 << bit
    path.write_bytes(data)
    return path


def test_a_new_file_is_whole_and_a_file_of_old_torch_is_unchecked(tmp_path):
    assert state_of(save_checkpoint(tmp_path / "a.ckpt")) == "whole"
    torch.save({"a": 1}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert state_of(tmp_path / "old.pth") == "unchecked"


def test_a_flipped_bit_is_detected_or_harmless(tmp_path):
    path = save_checkpoint(tmp_path / "a.ckpt")
    data, content = path.read_bytes(), torch.load(path)
    directory = data.index(b"PK\1\2")
    states = set()
    for byte in (*range(0, directory, 97), *range(directory, len(data), 3)):
        path.write_bytes(data)
        state = state_of(flip_bit(path, byte, byte % 8))
        states.add(state)
        if state == "whole":
            loaded = torch.load(path)
            assert loaded["state_dict"]["a"].equal(content["state_dict"]["a"])
            assert loaded["epoch"] == 3
    assert states == {"whole", "damaged"}  # padding bytes between the records are never read


def test_a_record_marked_as_a_directory_is_damaged(tmp_path):
    # torch would leave its values uninitialised.
    path = save_checkpoint(tmp_path / "a.ckpt")
    name = path.read_bytes().rindex(b"a/data/0")
    assert state_of(flip_bit(path, name - 8)) == "damaged"


def test_checksums_of_an_unchanged_file_are_checked_once_per_process(tmp_path, monkeypatch):
    path, checks = save_checkpoint(tmp_path / "a.ckpt"), []
    save_checkpoint(previous_of(path))
    testzip = zipfile.ZipFile.testzip
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda file: checks.append(1) or testzip(file))
    os.utime(path, (1000, 1000))
    assert read_checkpoint(whole_checkpoint(path))["epoch"] == 3
    assert DurableCheckpointIO().load_checkpoint(path, weights_only=True)["epoch"] == 3
    assert len(checks) == 1
    os.utime(flip_bit(path, -300), (2000, 2000))
    assert state_of(path) == "damaged"
