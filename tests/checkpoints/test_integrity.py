"""The seal of a checkpoint, and what is taken where it is broken."""

import hashlib
import zipfile

import pytest
import torch

from hrseg.checkpoints.integrity import (
    SealingFile,
    previous_of,
    state_of,
    whole_checkpoint,
    whole_ones_beside,
)


def sealed(path, value=1.0):
    with path.open("wb+") as file:
        sealing = SealingFile(file)
        torch.save({"state_dict": {"a": torch.full((100, 7), value)}, "epoch": 3}, sealing)
        sealing.seal()
    return path


def flipped(path, where):
    data = bytearray(path.read_bytes())
    data[where] ^= 16
    path.write_bytes(data)


def test_torch_and_zip_readers_take_a_sealed_file_as_it_is(tmp_path):
    path = sealed(tmp_path / "a.ckpt")
    for mmap in (False, True):
        content = torch.load(path, weights_only=True, mmap=mmap)
        assert content["epoch"] == 3
        assert content["state_dict"]["a"].eq(1).all()
    assert zipfile.ZipFile(path).testzip() is None


def test_the_seal_is_the_sha256_of_what_torch_wrote(tmp_path):
    path = sealed(tmp_path / "a.ckpt")
    comment = zipfile.ZipFile(path).comment
    written = path.read_bytes()[: -2 - len(comment)]
    assert comment == b"hrseg sha256 " + hashlib.sha256(written).hexdigest().encode()
    assert state_of(path) == "whole"


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.999])
def test_a_flipped_bit_anywhere_is_damage(tmp_path, share):
    path = sealed(tmp_path / "a.ckpt")
    flipped(path, int(share * path.stat().st_size))
    assert state_of(path) == "damaged"


def test_a_flipped_bit_in_any_byte_of_the_end_is_damage(tmp_path):
    data = sealed(tmp_path / "a.ckpt").read_bytes()
    for where in range(len(data) - 200, len(data)):
        (tmp_path / "b.ckpt").write_bytes(data)
        flipped(tmp_path / "b.ckpt", where)
        assert state_of(tmp_path / "b.ckpt") == "damaged"


def test_a_file_that_lost_its_seal_alone_is_damaged(tmp_path):
    data = sealed(tmp_path / "a.ckpt").read_bytes()
    (tmp_path / "a.ckpt").write_bytes(data[: -len(zipfile.ZipFile(tmp_path / "a.ckpt").comment)])
    assert state_of(tmp_path / "a.ckpt") == "damaged"


@pytest.mark.parametrize("kept", [0, 1, 4, 100, 0.5, 0.99])
def test_a_file_without_its_end_is_damaged(tmp_path, kept):
    path = sealed(tmp_path / "a.ckpt")
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data)) if isinstance(kept, float) else kept])
    assert state_of(path) == "damaged"


def test_a_file_of_others_has_no_seal(tmp_path):
    torch.save({"a": 1}, tmp_path / "new.pth")
    torch.save({"a": 1}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert state_of(tmp_path / "new.pth") == state_of(tmp_path / "old.pth") == "unsealed"


def test_of_a_damaged_file_the_one_before_is_taken_with_a_word(tmp_path):
    path = sealed(tmp_path / "last.ckpt")
    previous = sealed(previous_of(path), 2.0)
    assert previous.name == "last.previous.ckpt"
    assert whole_checkpoint(path) == path
    flipped(path, 300)
    with pytest.warns(UserWarning, match=r"last.ckpt is damaged: .*last.previous.ckpt"):
        assert whole_checkpoint(path) == previous
    path.unlink()
    with pytest.warns(UserWarning, match="last.ckpt is not there"):
        assert whole_checkpoint(path) == previous


def test_the_whole_ones_beside_a_damaged_one_are_named(tmp_path):
    path, best = sealed(tmp_path / "last.ckpt"), sealed(tmp_path / "best.ckpt")
    flipped(sealed(previous_of(path)), 300)
    assert whole_ones_beside(path) == [best]


def test_where_both_are_damaged_the_reader_speaks_of_the_one_that_was_asked_for(tmp_path):
    path = sealed(tmp_path / "last.ckpt")
    flipped(sealed(previous_of(path)), 300)
    flipped(path, 300)
    assert whole_checkpoint(path) == path


def test_single_bytes_are_hashed_as_long_writes_are(tmp_path):
    data = bytes(range(40)) + b"PK\5\6" + bytes(18)
    for size in (1, 2, 3, 62):
        with (tmp_path / "a").open("wb+") as file:
            sealing = SealingFile(file)
            for start in range(0, len(data), size):
                sealing.write(data[start : start + size])
            sealing.seal()
        assert state_of(tmp_path / "a") == "whole"
