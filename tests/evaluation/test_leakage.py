"""Near neighbours in training, in scores.json and on the report."""

import html
import json

import numpy as np
import pytest

from hrseg.evaluation.leakage import write_leakage
from hrseg.evaluation.report import report_run, write_report
from hrseg.evaluation.results import make_record, open_evaluation
from tests.conftest import picture, save_image
from tests.evaluations import write_evaluation

TRUTH = np.zeros((48, 64), np.uint8)


@pytest.fixture
def run(tmp_path):
    """A run whose validation image a is a copy of the training image b; c has no copy."""
    images = {"train/b": 1, "train/d": 2, "val/a": 1, "val/c": 3}
    for name, seed in images.items():
        save_image(tmp_path / f"data/{name}.png", picture((48, 64), seed))
        save_image(tmp_path / f"data/{name.replace('/', 'annot/')}.png", TRUTH)
    records = [make_record(name, TRUTH, TRUTH) for name in ("a", "c")]
    return write_evaluation(tmp_path / "run", records, ["sky", "road"], tmp_path / "data")


def scores(run):
    return json.loads((run / "scores.json").read_text())


def test_the_share_is_written_once_and_shown_on_the_page(run, capsys):
    before = scores(run)
    report_run(run, details=False)
    after = scores(run)
    assert (after["leakage"]["near_neighbours"], after["leakage"]["images"]) == (1, 2)
    assert {key: value for key, value in after.items() if key != "leakage"} == before
    message = after["leakage"]["message"]
    assert message.startswith("1 of 2 images of split val (50.0 %) have a near neighbour")
    assert message in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert f"<p>{html.escape(message)}</p>" in page
    (run.parent / "data/train/b.png").unlink()
    report_run(run, details=False)
    assert scores(run) == after


def test_a_validation_has_the_finding_of_its_run_for_the_same_data(run):
    report_run(run, details=False)
    records = [make_record("c", TRUTH, TRUTH)]
    for number, root in enumerate((run.parent / "data", run.parent / "other")):
        folder = run / f"validate/{number}"
        write_evaluation(folder, records, ["sky", "road"], root)
        report_run(folder, details=False)
    assert scores(run / "validate/0")["leakage"] == scores(run)["leakage"]
    assert "leakage" not in scores(run / "validate/1")


def test_a_message_in_scores_json_is_escaped(run):
    name = "<img src=x onerror=alert(1)>"
    content = {**scores(run), "leakage": {"message": name}}
    (run / "scores.json").write_text(json.dumps(content))
    assert name not in write_report(run).read_text()


@pytest.mark.parametrize("case", ["official", "same split", "no data", "too many"])
def test_nothing_is_searched(run, case, monkeypatch, capsys):
    evaluation = open_evaluation(run, {"same split": ["data.train_split=val"],
                                       "no data": ["data.root=missing"]}.get(case, []))  # fmt: skip
    if case == "official":
        official = {"val": 2}
        monkeypatch.setattr("hrseg.data.datasets.camvid.CamVid.expected_images", official)
    if case == "too many":
        monkeypatch.setattr("hrseg.evaluation.leakage.LARGEST", 3)
    write_leakage(evaluation)
    assert "leakage" not in scores(run)
    assert ("are searched in at most" in capsys.readouterr().out) == (case == "too many")


def test_a_missing_training_split_is_a_note(run, capsys):
    write_leakage(open_evaluation(run, ["data.train_split=other"]))
    assert "leakage" not in scores(run)
    assert "near neighbours in training were not searched: " in capsys.readouterr().out
