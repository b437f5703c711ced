"""Outputs of commands: a file of another kind is never overwritten."""

import hashlib
import json

import numpy as np
import pytest

from hrseg.cli import main
from tests.conftest import save_image
from tests.untrained import save_untrained

DATA = ["data.class_names=[a,b]", "data.root=set"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("img.png", "set/masks/0.png", "set/masks/1.png"):
        save_image(tmp_path / name, np.zeros((40, 40), np.uint8))
    (tmp_path / "own.yaml").write_text("name: own\n")
    (tmp_path / "other.json").write_text(json.dumps({"classes": []}))


def sums(folder):
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("file", ["img.png", "own.yaml", "other.json"])
@pytest.mark.parametrize(
    "command",
    [
        ["data", "check", "--config", "folder", *DATA, "--json"],
        ["data", "stats", "--config", "folder", *DATA, "--json"],
        ["benchmark", "data", "--config", "folder", *DATA, "--json"],
        ["score", "--truth", "set", "--prediction", "set", "--config", "folder", *DATA, "--out"],
        ["init", "set", "--out"],
    ],
)
def test_a_file_of_another_kind_is_not_overwritten(tmp_path, capsys, command, file):
    before = sums(tmp_path)
    assert main([*command, file]) == 2
    message = capsys.readouterr().err
    assert file in message and ("--out" in message or "--json" in message)
    assert len(message.splitlines()) <= 4
    assert sums(tmp_path) == before


def test_scores_of_an_earlier_call_are_replaced(tmp_path):
    masks = ["--truth", "set/masks", "--prediction", "set/masks"]
    for _ in range(2):
        assert main(["score", *masks, "--config", "folder", *DATA, "--out", "scores.json"]) == 0


def test_export_replaces_only_files_with_a_proof(tmp_path, capsys):
    checkpoint = save_untrained(tmp_path / "w.ckpt")
    command = ["export", str(checkpoint), "--format", "safetensors", "--out"]
    (tmp_path / "mine.safetensors").write_bytes(b"of another program")
    assert main([*command, "mine.safetensors"]) == 2
    assert "mine.safetensors exists and is a file of another kind" in capsys.readouterr().err
    assert (tmp_path / "mine.safetensors").read_bytes() == b"of another program"
    for _ in range(2):
        assert main([*command, "new.safetensors"]) == 0
    assert main([*command, "/proc/x.safetensors"]) == 2
    assert "Fix: --out" in capsys.readouterr().err
