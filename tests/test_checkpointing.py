import torch

from hrseg.checkpointing import RunCheckpoint


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
