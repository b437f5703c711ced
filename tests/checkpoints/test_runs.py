import pytest
import torch

from hrseg.checkpoints.runs import (
    best_checkpoint,
    checkpoint_at,
    dated_folder,
    has_state,
    is_first_process,
    newest_run,
    newest_state,
    point_latest,
    refuse_links,
    requeued_run,
    run_of,
)
from hrseg.errors import ConfigError


def create_run(home, name, date):
    run = home / name / date
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    return run


def test_latest_points_to_the_newest_run(tmp_path):
    for _ in range(2):
        run = dated_folder(tmp_path / "camvid")
        point_latest(run)
        assert (tmp_path / "camvid" / "latest").resolve() == run.resolve()


def test_the_newest_run_with_a_checkpoint_is_found_across_configs(tmp_path):
    create_run(tmp_path, "a", "20260101-000000")
    newer = create_run(tmp_path, "b", "20260102-000000")
    (tmp_path / "b" / "20260103-000000").mkdir()
    (tmp_path / "b" / "latest").symlink_to("20260103-000000")
    create_run(tmp_path, "a", "renamed")
    assert newest_run(tmp_path) == newer
    assert newest_run(tmp_path, "a").parent.name == "a"


def test_a_missing_run_is_an_error_with_its_folder_and_the_fix(tmp_path):
    with pytest.raises(ConfigError, match="hrseg fit") as error:
        newest_run(tmp_path, "a")
    assert str(tmp_path / "a") in str(error.value)


def test_best_takes_precedence_over_last_and_run_of_returns_the_run(tmp_path):
    run = create_run(tmp_path, "a", "20260101-000000")
    assert best_checkpoint(run).name == "last.ckpt"
    (run / "checkpoints" / "best.ckpt").touch()
    assert best_checkpoint(run).name == "best.ckpt"
    assert run_of(best_checkpoint(run)) is None
    (run / "config.yaml").touch()
    assert run_of(best_checkpoint(run)) == run


@pytest.mark.parametrize("name", ["LOCAL_RANK", "RANK", "SLURM_PROCID"])
def test_only_the_first_process_of_a_run_prints(monkeypatch, name):
    monkeypatch.setenv("LOCAL_RANK", "0")  # as on the second machine of torchrun, with RANK 1
    monkeypatch.setenv(name, "1")
    assert not is_first_process()
    monkeypatch.setenv(name, "0")
    assert is_first_process()


def test_a_requeued_job_resumes_its_own_run(tmp_path, monkeypatch):
    for name, value in (("JOB_ID", "12"), ("STEP_ID", "0")):
        monkeypatch.setenv(f"SLURM_{name}", value)
    run = dated_folder(tmp_path / "a")
    assert requeued_run(tmp_path / "a") is None
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert requeued_run(tmp_path / "a") is None  # the run has no checkpoint
    (run / "checkpoints").mkdir()
    (run / "checkpoints" / "last.ckpt").touch()
    assert requeued_run(tmp_path / "a") == run
    monkeypatch.setenv("SLURM_STEP_ID", "1")  # the next command of the batch script
    assert requeued_run(tmp_path / "a") is None
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert requeued_run(tmp_path / "b") is None


def test_a_run_with_only_a_previous_checkpoint_can_be_resumed(tmp_path):
    run = create_run(tmp_path, "a", "20260101-000000")
    last = run / "checkpoints" / "last.ckpt"
    assert has_state(run)
    last.unlink()
    assert not has_state(run)
    torch.save({"epoch": 3, "global_step": 40}, last.with_name("last.previous.ckpt"))
    assert has_state(run)
    assert newest_run(tmp_path) == run
    message = r"last.ckpt is missing. .* last.previous.ckpt of epoch 4, step 40"
    for choose in (newest_state, best_checkpoint, lambda run: checkpoint_at(last)):
        with pytest.warns(UserWarning, match=message):
            assert choose(run).name == "last.previous.ckpt"


def test_links_out_of_a_run_are_refused_and_links_inside_are_accepted(tmp_path):
    run = tmp_path / "runs" / "a"
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "best.ckpt").write_bytes(b"x")
    (run / "checkpoints" / "link.ckpt").symlink_to("best.ckpt")
    (tmp_path / "other").symlink_to(run)
    refuse_links(run)
    refuse_links(tmp_path / "other")
    for name, target in (("report.html", "/etc/passwd"), ("masks", tmp_path), ("x", "../../y")):
        (run / name).symlink_to(target)
        with pytest.raises(ConfigError, match=f"{name} leads out of its run folder"):
            refuse_links(run)
        (run / name).unlink()
