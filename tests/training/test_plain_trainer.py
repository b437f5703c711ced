"""SegmentationTask and DataModule with a plain Trainer: guards and written files."""

import pytest
import torch

import hrseg
from hrseg.errors import VerificationError
from tests.camvid_tree import make_camvid
from tests.conftest import silent_trainer, tiny_task


def train(folder, **options):
    root = make_camvid(folder / "camvid", train=12, val=11)
    (root / "train" / "003.png").write_bytes(b"damaged")
    data = hrseg.data.CamVid(
        str(root), batch_size=2, crop_size=(48, 64), workers=0, on_error="skip"
    )
    task = tiny_task(data.class_names, palette=data.palette, **options)
    home = folder / "home"
    trainer = silent_trainer(home, callbacks=[hrseg.ClassScores()])
    try:
        trainer.fit(task, data)
    finally:
        written = sorted(str(path.relative_to(home)) for path in home.rglob("*"))
    return trainer, written


def test_only_scores_json_is_written(tmp_path, capsys):
    trainer, written = train(tmp_path)
    assert written == ["scores.json"]
    assert [type(callback).__name__ for callback in trainer.callbacks] == [
        "ClassScores",
        "LossGuard",
        "SkippedFiles",
    ]
    assert "unreadable images skipped: 1\n" in capsys.readouterr().out


def test_the_guard_against_nan_losses_is_active_and_writes_no_files(tmp_path, monkeypatch):
    nan = lambda self, batch, index: self.model.head.last_layer[0].weight.sum() * torch.nan  # noqa: E731
    monkeypatch.setattr(hrseg.SegmentationTask, "training_step", nan)
    with pytest.raises(VerificationError, match="The loss is nan"):
        train(tmp_path)
    assert not (tmp_path / "home" / "bad_batches").exists()
