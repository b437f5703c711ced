import errno
import os

import pytest
import torch

from hrseg.atomic import PARTIAL
from hrseg.checkpointing import DurableCheckpointIO, RunCheckpoint
from hrseg.errors import ConfigError
from hrseg.seal import SealingFile


def checkpoint(folder):
    return RunCheckpoint(dirpath=folder, filename="best", monitor="val/miou", mode="max")


def test_a_moved_run_remembers_its_best_score_and_where_it_lies_now(tmp_path):
    before = checkpoint(tmp_path / "old")
    best = str(tmp_path / "old" / "best.ckpt")
    before.best_model_path = before.kth_best_model_path = best
    before.best_model_score = torch.tensor(0.5)
    before.best_k_models = {best: torch.tensor(0.5)}
    after = checkpoint(tmp_path / "new")
    after.load_state_dict(before.state_dict())
    assert after.best_model_score == 0.5
    assert after.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert after.best_k_models == {after.best_model_path: torch.tensor(0.5)}


def saved(path, epoch):
    DurableCheckpointIO().save_checkpoint({"epoch": epoch, "state_dict": {}}, path)


def epoch_of(path):
    return DurableCheckpointIO().load_checkpoint(path, weights_only=True)["epoch"]


def test_the_file_before_is_kept_and_read_where_the_new_one_is_damaged(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for epoch in range(3):
        saved(path, epoch)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "last.ckpt",
        "last.previous.ckpt",
    ]
    assert epoch_of(path) == 2
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.warns(UserWarning, match="damaged"):
        assert epoch_of(path) == 1


def test_what_a_killed_process_left_is_swept_away(tmp_path):
    left = tmp_path / f"{PARTIAL}best.ckpt"
    left.write_bytes(b"half")
    saved(tmp_path / "last.ckpt", 0)
    assert not left.exists()


def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    saved(path, 0)

    def full(self, data):
        self.fault = OSError(errno.ENOSPC, "No space left on device")
        raise self.fault

    monkeypatch.setattr(SealingFile, "write", full)
    with pytest.raises(ConfigError, match=r"no space left to write .*last.ckpt"):
        saved(path, 1)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert epoch_of(path) == 0


def test_a_disk_that_gives_back_other_bytes_is_noticed_before_the_old_file_goes(
    tmp_path, monkeypatch
):
    path = tmp_path / "last.ckpt"
    saved(path, 0)
    before = os.fsync

    def rot(handle):
        before(handle)
        if os.fstat(handle).st_size > 200:
            os.pwrite(handle, b"?", 99)

    monkeypatch.setattr(os, "fsync", rot)
    with pytest.raises(ConfigError, match="not what was written"):
        saved(path, 1)
    assert epoch_of(path) == 0
