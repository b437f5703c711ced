"""The command `hrseg data cache`."""

import json

import pytest

from hrseg.cli import main
from hrseg.data.cache import INDEX
from tests.camvid_tree import fit_overrides, make_camvid


@pytest.fixture
def root(tmp_path):
    return make_camvid(tmp_path / "camvid")


def cache(root, *words):
    return main(["data", "cache", "--config", "camvid_w18_small", f"data.root={root}", *words])


def test_the_cache_is_written_to_the_root_and_its_use_is_printed(root, capsys):
    assert cache(root) == 0
    folder = root / ".hrseg_cache"
    printed = capsys.readouterr().out
    assert "6 images and masks, 6 of them written now" in printed
    assert f"data.cache={folder}" in printed
    assert cache(root, "--workers", "1") == 0
    assert "0 of them written now" in capsys.readouterr().out


def test_the_config_sets_the_folder_of_the_cache(root, tmp_path):
    assert cache(root, f"data.cache={tmp_path / 'fast'}") == 0
    assert (tmp_path / "fast" / INDEX).is_file()
    assert not (root / ".hrseg_cache").exists()


def test_verify_exits_with_3_for_a_damaged_cache(root, capsys):
    assert cache(root, "--verify") == 2
    assert "is not a cache" in capsys.readouterr().err
    assert cache(root) == 0
    assert cache(root, "--verify") == 0
    shard = root / ".hrseg_cache" / "shard-00000.bin"
    shard.write_bytes(b"\xff" + shard.read_bytes()[1:])
    assert cache(root, "--verify") == 3
    first = json.loads((root / ".hrseg_cache" / INDEX).read_text().splitlines()[1])
    error = capsys.readouterr().err
    assert "1 damaged images were removed from the cache" in error and "without --verify" in error
    assert first["offset"] > 0  # the damaged entry was removed
    assert cache(root) == 0 and cache(root, "--verify") == 0


def test_a_run_has_an_absolute_cache_path_and_resumes_from_any_folder(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cache(root, "data.cache=fast") == 0
    fit = ["fit", "--config", "camvid_w18_small", *fit_overrides(root), "trainer.max_epochs=1"]
    assert main([*fit, "data.cache=fast", f"runs={tmp_path / 'runs'}"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = tmp_path / "runs" / "camvid_w18_small" / "latest"
    assert f"cache: {tmp_path / 'fast'}\n" in (run / "config.yaml").read_text()
    assert main(["fit", "--resume", str(run), "trainer.max_epochs=2"]) == 0


def test_an_unwritable_folder_is_reported(root, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert cache(root, f"data.cache={tmp_path / 'file' / 'cache'}") == 2
    assert "cannot be written" in capsys.readouterr().err
