"""Run, checkpoint and config of a command's arguments, without torch."""

import argparse

import pytest

from hrseg.cli import main
from hrseg.commands._shared import (
    check_root,
    checkpoint_to_score,
    config_of,
    run_of_arguments,
)
from hrseg.commands.fit import check_weights, run_to_resume
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError, DataError

RUNS = "runs/synthetic_tiny"


def namespace(**values):
    defaults = {"config": None, "checkpoint": None, "resume": "", "overrides": []}
    return argparse.Namespace(**{**defaults, **values})


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Two runs of one config, the newer one with an exported file."""
    monkeypatch.chdir(tmp_path)
    for date in ("20260101-000000", "20260202-000000"):
        run = tmp_path / "runs" / "synthetic_tiny" / date
        (run / "checkpoints").mkdir(parents=True)
        (run / "checkpoints" / "best.ckpt").write_bytes(b"")
        (run / "checkpoints" / "last.ckpt").write_bytes(b"")
        (run / "config.yaml").write_text(_yaml())
    (run / "exported").mkdir()
    (run / "exported" / "w.onnx").write_bytes(b"")
    return tmp_path / "runs" / "synthetic_tiny"


def _yaml():
    from hrseg.config.loader import to_yaml

    return to_yaml(load_config("synthetic_tiny", ["trainer.limit_val_batches=2"]))


def test_the_default_is_the_best_checkpoint_of_the_newest_run(runs):
    config, checkpoint, home = checkpoint_to_score(namespace())
    assert home.resolve() == runs / "20260202-000000"
    assert checkpoint.resolve() == home.resolve() / "checkpoints" / "best.ckpt"
    assert config.name == "synthetic_tiny"
    # Limits of the training do not apply to the validation.
    assert "limit_val_batches" not in config.trainer


def test_an_exported_file_belongs_to_the_run_of_its_folder(runs):
    file = runs / "20260202-000000" / "exported" / "w.onnx"
    _, checkpoint, home = checkpoint_to_score(namespace(checkpoint=str(file)))
    assert checkpoint == file and home == runs / "20260202-000000"


def test_a_file_outside_of_a_run_needs_a_config(runs, tmp_path):
    (tmp_path / "w.ckpt").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is not in a run folder(.|\n)*Fix: --config"):
        checkpoint_to_score(namespace(checkpoint="w.ckpt"))
    arguments = namespace(checkpoint="w.ckpt", config="synthetic_tiny")
    assert checkpoint_to_score(arguments)[2].name == "synthetic_tiny"


def test_resume_selects_the_given_or_the_newest_run(runs):
    old = runs / "20260101-000000"
    assert run_to_resume(namespace(resume=str(old))) == old
    assert run_to_resume(namespace()).name == "20260202-000000"
    assert run_of_arguments(namespace(overrides=["name=synthetic_tiny"])).name == "20260202-000000"
    with pytest.raises(ConfigError, match="is not a run folder"):
        run_to_resume(namespace(resume=str(runs)))


def test_missing_inputs_are_reported_before_heavy_imports(tmp_path):
    with pytest.raises(ConfigError, match="No config was given"):
        config_of(namespace())
    config = load_config("camvid_w18", ["data.root=/nowhere", "model.weights=no.pth"])
    with pytest.raises(DataError, match=r"data.root: /nowhere does not exist"):
        check_root(config)
    with pytest.raises(ConfigError, match=r"model.weights: no file .*no\.pth"):
        check_weights(config, [])


@pytest.mark.parametrize(
    ("root", "expected"),
    [("$HOME/data", "contains a shell variable"), (r"C:\data\d", "in WSL /mnt/c/data/d")],
)
def test_a_path_of_a_shell_or_of_windows_is_reported(root, expected):
    config = load_config("folder", [f"data.root='{root}'"])
    with pytest.raises(DataError) as error:
        check_root(config)
    assert expected in str(error.value)


def test_validate_accepts_a_run_folder(runs):
    for name in ("20260101-000000", "20260202-000000"):
        _, checkpoint, home = checkpoint_to_score(namespace(checkpoint=str(runs / name)))
        assert checkpoint == runs / name / "checkpoints" / "best.ckpt"
        assert home == runs / name


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["validate", "--checkpoint", "img.png"], ["img.png is not a checkpoint", ".ckpt"]),
        (["validate", "--checkpoint", "nope.ckpt"], ["nope.ckpt does not exist"]),
        (["validate", "--checkpoint", "empty"], ["empty is a folder without a checkpoint"]),
        (
            ["validate", "--config", "w.ckpt", "--checkpoint", "a.yaml"],
            ["Fix: --checkpoint w.ckpt"],
        ),
        (["validate", "w.ckpt"], ["not accept the argument 'w.ckpt'", "--checkpoint w.ckpt"]),
        (["predict", "img.png", "--checkpoint", RUNS], ["2 runs", f"{RUNS}/20260202-000000"]),
        (["export", RUNS], ["2 runs", f"Fix: name {RUNS}/20260202-000000"]),
        (["report", "w.ckpt"], ["w.ckpt is a file", "Fix: `hrseg validate --checkpoint w.ckpt`"]),
        (["fit", "--config", f"{RUNS}/20260101-000000"], ["is a run folder", "config.yaml"]),
    ],
)
def test_a_file_of_another_kind_is_reported_with_a_fix(runs, tmp_path, capsys, arguments, expected):
    (tmp_path / "empty").mkdir()
    for name in ("img.png", "w.ckpt", "a.yaml"):
        (tmp_path / name).touch()
    assert main(arguments) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message
    assert len(message.splitlines()) <= 4
