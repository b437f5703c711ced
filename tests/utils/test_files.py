"""Atomic writes of files."""

import errno
import os
from pathlib import Path

import pytest

from hrseg.errors import ConfigError
from hrseg.utils.files import cannot_write, check_output, replacing, write_bytes


def test_an_error_keeps_the_old_file_and_leaves_no_partial_file(tmp_path):
    path = tmp_path / "a.txt"
    write_bytes(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["a.txt"]


def test_an_error_of_the_last_step_keeps_both_old_files(tmp_path, monkeypatch):
    path, previous = tmp_path / "a.txt", tmp_path / "a.previous.txt"
    for text in (b"one", b"two"):
        with replacing(path, previous=previous) as partial:
            partial.write_bytes(text)

    def refused(*_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(PermissionError), replacing(path, previous=previous) as partial:
        partial.write_bytes(b"three")
    assert (path.read_bytes(), previous.read_bytes()) == (b"two", b"one")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_failed_sync_is_an_error(tmp_path, monkeypatch):
    def broken(_):
        raise OSError(errno.EIO, "Input/output error")

    write_bytes(tmp_path / "a.txt", b"old")
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_bytes(tmp_path / "a.txt", b"new", durable=True)
    assert (tmp_path / "a.txt").read_bytes() == b"old"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_reported(tmp_path, code):
    path = tmp_path / "a.txt"
    with pytest.raises(ConfigError, match=r"no space left to write .*a.txt"), replacing(path):
        raise OSError(code, "No space left on device")


def test_with_free_space_a_failed_write_is_not_reported_as_a_full_disk(tmp_path):
    error = cannot_write(tmp_path / "a.mp4", "no encoder.")
    assert str(error) == f"{tmp_path / 'a.mp4'} could not be written: no encoder."


def test_two_processes_that_write_a_file_at_once_do_not_fail(tmp_path):
    path = tmp_path / "a.txt"
    with replacing(path, writer="1-of-2-") as first:
        first.write_text("first")
        write_bytes(path, b"second", writer="2-of-2-")
    assert path.read_text() == "first"
    assert list(tmp_path.iterdir()) == [path]


def test_an_output_replaces_only_a_file_of_its_kind(tmp_path):
    image, own, empty = tmp_path / "img.png", tmp_path / "own.json", tmp_path / "empty"
    image.write_bytes(b"\x89PNG")
    own.write_text('{"miou": 1, "classes": []}')
    empty.touch()
    for path in (own, empty, tmp_path / "new" / "deep.json"):
        check_output("--out", path, ("miou", "classes"))
    for path, keys in ((image, ("miou",)), (own, ("splits",))):
        with pytest.raises(ConfigError, match=r"--out .* of another kind(.|\n)*Fix: --out"):
            check_output("--out", path, keys)
    with pytest.raises(ConfigError, match="is a folder"):
        check_output("--out", tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be written(.|\n)*Fix: --out"):
        check_output("--out", Path("/proc/x.onnx"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "img.png", "own.json"]
