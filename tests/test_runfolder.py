import pytest

from hrseg.errors import ConfigError
from hrseg.runfolder import best_checkpoint, dated_folder, newest_run, point_latest, run_of


def finished(home, name, date):
    run = home / name / date
    (run / "checkpoints").mkdir(parents=True)
    (run / "checkpoints" / "last.ckpt").touch()
    return run


def test_latest_points_to_the_newest_run(tmp_path):
    for _ in range(2):
        run = dated_folder(tmp_path / "camvid")
        point_latest(run)
        assert (tmp_path / "camvid" / "latest").resolve() == run.resolve()


def test_folders_of_one_second_get_a_name_each(tmp_path):
    folders = [dated_folder(tmp_path) for _ in range(4)]
    assert len(set(folders)) == 4
    assert sorted(folders) == folders


def test_further_processes_of_a_run_share_its_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    run = dated_folder(tmp_path / "camvid")
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert dated_folder(tmp_path / "camvid") == run


def test_the_newest_run_with_a_checkpoint_is_found_across_configs(tmp_path):
    finished(tmp_path, "a", "20260101-000000")
    newer = finished(tmp_path, "b", "20260102-000000")
    (tmp_path / "b" / "20260103-000000").mkdir()
    (tmp_path / "b" / "latest").symlink_to("20260103-000000")
    finished(tmp_path, "a", "renamed")
    assert newest_run(tmp_path) == newer
    assert newest_run(tmp_path, "a").parent.name == "a"


def test_no_run_says_where_it_looked_and_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="hrseg fit") as error:
        newest_run(tmp_path, "a")
    assert str(tmp_path / "a") in str(error.value)


def test_best_goes_before_last_and_a_checkpoint_knows_its_run(tmp_path):
    run = finished(tmp_path, "a", "20260101-000000")
    assert best_checkpoint(run).name == "last.ckpt"
    (run / "checkpoints" / "best.ckpt").touch()
    assert best_checkpoint(run).name == "best.ckpt"
    assert run_of(best_checkpoint(run)) is None
    (run / "config.yaml").touch()
    assert run_of(best_checkpoint(run)) == run


def test_a_new_folder_of_one_process_is_not_an_older_one_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HRSEG_RUN", str(tmp_path / "old"))
    assert dated_folder(tmp_path / "validate").parent == tmp_path / "validate"
