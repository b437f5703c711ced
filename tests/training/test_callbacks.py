import json
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.trainer.states import TrainerFn
from rich import reconfigure

from hrseg.training.callbacks import ClassScores, show_scores

SCORES = {
    "miou": 0.5,
    "pixel_accuracy": 0.75,
    "mean_accuracy": 0.6,
    "classes": [
        {"name": "road", "iou": 0.5, "accuracy": 0.6, "pixels": 300},
        {"name": "[red]sky[/red]", "iou": None, "accuracy": None, "pixels": 0},
    ],
    "protocol": {"name": "plain", "scales": [0.5, 1.0], "flip": True},
}


@pytest.fixture
def rendered(capsys):
    def render(scores):
        show_scores(scores)
        return capsys.readouterr().out

    return render


def test_the_table_shows_percent_per_class_and_a_dash_for_undefined_scores(rendered):
    text = rendered(SCORES)
    road = next(line for line in text.splitlines() if "road" in line)
    assert "50.00" in road
    assert "100.00 %" in road
    sky = next(line for line in text.splitlines() if "sky" in line)
    assert "-" in sky
    assert "mIoU 50.00" in text
    assert "plain: scales 0.5, 1, flip" in text
    assert "[red]sky[/red]" in text


def test_each_of_several_scales_has_columns(rendered):
    row = {
        "miou": 0.4,
        "mean_accuracy": 0.45,
        "pixel_accuracy": 0.8765,
        "classes": [{"iou": 0.4321, "accuracy": 0.5432}, {"iou": None, "accuracy": None}],
    }
    text = rendered({**SCORES, "per_scale": {"0.5": row, "1.0": row}})
    assert text.count("x0.5") == 2
    assert all(number in text for number in ("43.21", "54.32", "45.00", "87.65", "75.00"))
    assert "x1.0" not in rendered({**SCORES, "per_scale": {"1.0": row}})


def test_a_terminal_of_40_columns_shows_only_the_fused_iou_without_truncation(rendered):
    row = {"miou": 0.4, "mean_accuracy": 0.45, "pixel_accuracy": 0.8765}
    row["classes"] = [{"iou": 0.4321, "accuracy": 0.5432}, {"iou": None, "accuracy": None}]
    reconfigure(width=40, force_terminal=True, color_system=None)
    text = rendered({**SCORES, "per_scale": {"0.5": row, "1.0": row}})
    table = text.splitlines()[1:]
    assert all(len(line) <= 40 for line in table) and "…" not in text
    assert "50.00" in text and "43.21" not in text and "[red]sky[/red]" in text


def test_the_rule_for_absent_classes_is_on_the_line_of_the_miou(rendered):
    scores = {key: value for key, value in SCORES.items() if key != "protocol"}
    first = rendered({**scores, "absent_classes": "zero"}).splitlines()[0]
    assert first.endswith("mean with absent classes as 0")


def test_scores_json_belongs_to_the_best_checkpoint_even_after_resume(tmp_path, capsys):
    def validate(callback, miou):
        state = SimpleNamespace(fn=TrainerFn.FITTING)
        trainer = SimpleNamespace(
            sanity_checking=False, is_global_zero=True, state=state, current_epoch=0, global_step=1,
            max_epochs=9,
        )  # fmt: skip
        callback.on_validation_end(trainer, SimpleNamespace(scores={**SCORES, "miou": miou}))
        return json.loads((tmp_path / "scores.json").read_text())["miou"]

    callback = ClassScores(tmp_path)
    assert [validate(callback, miou) for miou in (0.5, 0.4, 0.6)] == [0.5, 0.5, 0.6]
    printed = capsys.readouterr().out
    assert printed.count("mIoU") == 3 and printed.count("all pixels") == 1  # one table
    resumed = ClassScores(tmp_path)
    for stored, miou in ((0.58, 0.59), (None, 0.5)):
        best = ModelCheckpoint(monitor="val/miou", mode="max")
        best.best_model_score = stored if stored is None else torch.tensor(stored)
        resumed.on_train_start(SimpleNamespace(checkpoint_callbacks=[best]), SimpleNamespace())
        assert validate(resumed, miou) == miou
