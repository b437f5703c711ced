"""The command `hrseg push`, to a server on this machine, and the download of the model."""

import json
import re

import pytest
import yaml

import hrseg
from hrseg.cli import main
from hrseg.evaluation.hub_model import _cell

TINY = (
    "data.num_train=4 data.num_val=3 data.batch_size=4 data.workers=0 trainer.max_epochs=1 "
    "trainer.check_val_every_n_epoch=1 loggers=[] schedule.warmup_steps=0"
).split()
LICENCE = ["--license", "cc-by-nc-4.0"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a run on generated scenes."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        assert main(["fit", "--config", "synthetic_tiny", f"data.root={home}/scenes", *TINY]) == 0
    return home


@pytest.fixture
def run(home, monkeypatch):
    monkeypatch.chdir(home)
    return "runs/synthetic_tiny/latest"


def card(folder):
    """Return front matter and text of a model card."""
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(front), text


def test_a_published_model_has_the_same_confusion_matrix_after_its_download(
    hub, run, home, tmp_path, monkeypatch
):
    hub.tokens["me"] = "hf_mine"
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert main(["push", run, "me/scenes", *LICENCE]) == 0
    assert hub.repos["me/scenes"].keys() >= {
        "model.safetensors", "config.yaml", "scores.json", "README.md",
    }  # fmt: skip
    predictor = hrseg.load("hf:me/scenes")
    assert predictor.class_names == hrseg.load(run).class_names
    config = ["--config", "synthetic_tiny", f"data.root={home}/scenes", *TINY[:2]]
    arguments = [*config, f"runs={tmp_path}", "--checkpoint", "hf:me/scenes"]
    assert main(["validate", *arguments]) == 0
    (scores,) = tmp_path.rglob("scores.json")
    expected = json.loads((home / run / "scores.json").read_text())
    assert json.loads(scores.read_text())["confusion_matrix"] == expected["confusion_matrix"]


def test_a_dry_run_writes_the_folder_and_uploads_nothing(hub, run, home, capsys):
    assert main(["push", run, "me/scenes", *LICENCE, "--dry-run"]) == 0
    assert hub.requests == [] and "nothing was uploaded" in capsys.readouterr().out
    front, text = card(home / run / "hub")
    assert front["license"] == "cc-by-nc-4.0" and front["library_name"] == "hrseg"
    scores = json.loads((home / run / "scores.json").read_text())
    value = front["model-index"][0]["results"][0]["metrics"][0]["value"]
    assert value == scores["miou"]
    for row in scores["classes"]:
        assert f"| {_cell(row['name'])} | {100 * row['iou']:.2f} |" in text
    assert "95 % confidence interval" in text and "--checkpoint hf:me/scenes" in text


def test_no_path_of_this_machine_is_published(run, home):
    assert main(["push", run, "me/scenes", *LICENCE, "--dry-run"]) == 0
    for file in (home / run / "hub").iterdir():
        assert str(home).encode() not in file.read_bytes(), file.name


def test_list_files_of_splits_are_published_without_their_folder(run, home):
    lists = [f"data.{split}_split=/home/me/lists/{split}.txt" for split in ("train", "val", "test")]
    assert main(["push", run, "me/scenes", *lists, *LICENCE, "--dry-run"]) == 0
    config = yaml.safe_load((home / run / "hub" / "config.yaml").read_text())
    for split in ("train", "val", "test"):
        assert config["data"][f"{split}_split"] == f"{split}.txt"
    for file in (home / run / "hub").iterdir():
        assert b"/home/me" not in file.read_bytes(), file.name


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"checkpoint": "/elsewhere/last.ckpt"}, "has the scores of last.ckpt"),
        ({"miou": None}, "has no mIoU"),
    ],
)
def test_scores_of_another_checkpoint_are_refused(run, home, capsys, change, fault):
    path = home / run / "scores.json"
    scores = path.read_text()
    path.write_text(json.dumps(json.loads(scores) | change))
    try:
        assert main(["push", run, "me/scenes", *LICENCE, "--dry-run"]) == 2
    finally:
        path.write_text(scores)
    error = capsys.readouterr().err
    assert fault in error and "best.ckpt is published" in error and "fit --resume" in error


def test_pictures_are_published_on_request_only(run, home):
    assert main(["push", run, "me/scenes", *LICENCE, "--dry-run"]) == 0
    assert not (home / run / "hub" / "pictures").exists()
    assert main(["push", run, "me/scenes", *LICENCE, "--dry-run", "--pictures"]) == 0
    assert len(list((home / run / "hub" / "pictures").iterdir())) == 3
    assert main(["push", run, "me/scenes", *LICENCE, "--dry-run"]) == 0
    assert not (home / run / "hub" / "pictures").exists()


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["me/scenes"], r"--license is missing\.\nExpected: .*apache-2.0.*\nFix: `hrseg push"),
        (["scenes", *LICENCE], r"scenes is not the name of a repository\.\nExpected: USER/NAME"),
        (["me/scenes", "--license", "No Licence!"], r"--license is No Licence!"),
    ],
)
def test_invalid_arguments_are_reported_before_the_work(run, capsys, words, expected):
    assert main(["push", run, *words]) == 2
    assert re.search(expected, capsys.readouterr().err)


def test_an_upload_without_a_token_or_a_connection_keeps_the_folder(hub, run, home, capsys):
    hub.tokens["me"] = "hf_mine"
    assert main(["push", run, "me/scenes", *LICENCE]) == 2
    error = capsys.readouterr().err
    assert "HF_TOKEN" in error and len(error.splitlines()) <= 4
    hub.close()
    assert main(["push", run, "me/scenes", *LICENCE]) == 2
    error = capsys.readouterr().err
    assert "could not be reached" in error and "stays" in error and len(error.splitlines()) <= 4
    assert (home / run / "hub" / "model.safetensors").is_file()


def test_class_names_are_escaped_in_the_card():
    assert _cell("a|b <script>") == r"a\|b \<script\>"
