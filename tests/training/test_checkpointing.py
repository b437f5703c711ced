import os
import stat
from pathlib import Path

import pytest
import torch

from hrseg.checkpoints.integrity import previous_of
from hrseg.errors import ConfigError
from hrseg.training.checkpointing import DurableCheckpointIO, RunCheckpoint
from hrseg.utils.files import PARTIAL


def checkpoint(folder, score=None):
    callback = RunCheckpoint(dirpath=folder, filename="best", monitor="val/miou", mode="max")
    if score is not None:
        path = str(folder / "best.ckpt")
        callback.best_model_path = callback.kth_best_model_path = path
        callback.best_model_score = callback.kth_value = torch.tensor(score)
        callback.best_k_models = {path: torch.tensor(score)}
    return callback


def save_best(folder, score):
    """Write best.ckpt with the score in the state of the callback, as in training."""
    callback = checkpoint(folder, score)
    callbacks = {callback.state_key: callback.state_dict()}
    DurableCheckpointIO().save_checkpoint(
        {"state_dict": {}, "epoch": 4, "global_step": 70, "callbacks": callbacks},
        folder / "best.ckpt",
    )


def resumed(folder, state):
    callback = checkpoint(folder)
    callback.load_state_dict(state.state_dict())
    return callback


def test_a_moved_run_keeps_its_best_score_and_updates_the_path(tmp_path):
    save_best(tmp_path / "new", 0.5)
    after = resumed(tmp_path / "new", checkpoint(tmp_path / "old", 0.5))
    assert after.best_model_score == 0.5
    assert after.best_model_path == str(tmp_path / "new" / "best.ckpt")
    assert after.best_k_models == {after.best_model_path: torch.tensor(0.5)}


@pytest.mark.parametrize("known", [None, 0.5])
def test_a_best_checkpoint_newer_than_the_state_is_not_overwritten_by_a_worse_one(tmp_path, known):
    # The process was killed between saving best.ckpt and last.ckpt.
    save_best(tmp_path, 0.6)
    after = resumed(tmp_path, checkpoint(tmp_path, known))
    assert after.best_model_score == after.current_score == torch.tensor(0.6)
    assert after.best_k_models == {str(tmp_path / "best.ckpt"): torch.tensor(0.6)}


def test_with_a_damaged_best_checkpoint_the_previous_score_is_used(tmp_path):
    save_best(tmp_path, 0.4)
    save_best(tmp_path, 0.6)
    cut(tmp_path / "best.ckpt")
    with pytest.warns(UserWarning, match=r"best.previous.ckpt of epoch 5, step 70"):
        after = resumed(tmp_path, checkpoint(tmp_path, 0.6))
    assert after.best_model_score == torch.tensor(0.4)


@pytest.mark.parametrize("missing", [True, False])
def test_without_an_intact_best_checkpoint_the_next_validation_is_best(tmp_path, missing):
    save_best(tmp_path, 0.6)
    if missing:
        (tmp_path / "best.ckpt").unlink()
    else:
        cut(tmp_path / "best.ckpt")
    with pytest.warns(UserWarning, match=r"best.ckpt is missing or damaged"):
        after = resumed(tmp_path, checkpoint(tmp_path, 0.6))
    assert after.best_k_models == {}
    assert after.best_model_score is None


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def saved(path, epoch, writer=None):
    content = {"epoch": epoch, "state_dict": {}}
    (writer or DurableCheckpointIO()).save_checkpoint(content, path)


def epoch_of(path):
    return DurableCheckpointIO().load_checkpoint(path, weights_only=True)["epoch"]


def test_the_previous_file_is_kept_and_read_if_the_new_one_is_damaged(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    for epoch in range(3):
        saved(path, epoch)
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "last.ckpt",
        "last.previous.ckpt",
    ]
    assert epoch_of(path) == 2
    cut(path)
    with pytest.warns(UserWarning, match="damaged"):
        assert epoch_of(path) == 1


def test_a_damaged_file_does_not_replace_the_intact_previous_file(tmp_path):
    path = tmp_path / "last.ckpt"
    for epoch in range(2):
        saved(path, epoch)
    cut(path)
    saved(path, 2)  # by a resumed run
    assert (epoch_of(path), epoch_of(previous_of(path))) == (2, 0)


def test_the_new_file_is_synced_before_names_change_and_the_old_file_is_replaced_last(
    tmp_path, monkeypatch
):
    path, events = tmp_path / "last.ckpt", []
    writer = DurableCheckpointIO()
    for epoch in range(2):
        saved(path, epoch, writer)
    fsync, replace = os.fsync, os.replace

    def synced(handle):
        folder = stat.S_ISDIR(os.fstat(handle).st_mode)
        events.append("sync folder" if folder else "sync file")
        fsync(handle)

    def replaced(source, target):
        events.append(Path(target).name)
        replace(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", replaced)
    saved(path, 2, writer)
    order = [event for event, last in zip(events, [None, *events], strict=False) if event != last]
    assert order == ["sync file", "last.ckpt", "last.previous.ckpt", "sync folder"]


def test_files_of_a_killed_process_are_removed(tmp_path):
    partial = tmp_path / f"{PARTIAL}best.ckpt"
    partial.write_bytes(b"half")
    saved(tmp_path / "last.ckpt", 0)
    assert not partial.exists()


def test_a_disk_that_returns_other_bytes_does_not_replace_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "last.ckpt"
    saved(path, 0)
    before = os.fsync

    def corrupt(handle):
        before(handle)
        if os.fstat(handle).st_size > 200:
            os.pwrite(handle, b"?", 99)  # in the first record

    monkeypatch.setattr(os, "fsync", corrupt)
    with pytest.raises(ConfigError, match="returned other bytes than were written"):
        saved(path, 1)
    assert epoch_of(path) == 0
