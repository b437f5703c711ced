import json

import pytest

from hrseg.config.protocols import Protocol
from hrseg.errors import ConfigError
from hrseg.evaluation.results import ImageRecord, read_records, read_scores

CLASS = {"name": "road", "iou": 0.5, "accuracy": None, "pixels": 7}
SCORES = {
    "miou": 0.5,
    "pixel_accuracy": 1.0,
    "mean_accuracy": None,
    "classes": [CLASS, {**CLASS, "name": "sky"}],
    "confusion_matrix": [[1, 2], [0, 4]],
    "absent_classes": "skipped",
    "protocol": Protocol().to_dict(),
    "checkpoint": "/runs/a/checkpoints/best.ckpt",
    "per_scale": {"1.0": {}},
}
ROW = {"name": "a b\x1b道", "size": [3, 4], "counts": [[0, 1, 5], [1, 1, 7]]}


def put(folder, content):
    path = folder / "x.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_scores_and_records_keep_unknown_keys(tmp_path):
    assert read_scores(put(tmp_path, SCORES)) == SCORES
    record = ImageRecord(ROW["name"], (3, 4), ((0, 1, 5), (1, 1, 7)))
    assert read_records(put(tmp_path, [ROW | {"later": 1}]), 2) == [record]


@pytest.mark.parametrize("text", ["{", "[" * 10**6, "[]"])
def test_a_file_without_scores_raises_an_error(text, tmp_path):
    with pytest.raises(ConfigError, match=r"x\.json is damaged"):
        read_scores(put(tmp_path, text))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("miou", float("nan")),
        ("classes", [{**CLASS, "name": "a\x1b[2J"}]),
        ("classes", [{**CLASS, "iou": "<b>"}, CLASS]),
        ("confusion_matrix", [[1]]),
        ("confusion_matrix", [[1, 2], [3, -4]]),
        ("protocol", {"unknown": 1}),
        ("binary", {"foreground": "a\x1b[2J"}),
        ("calibration", {"ece": 2, "bins": []}),
    ],
)
def test_the_error_for_an_invalid_score_contains_its_key(key, value, tmp_path):
    with pytest.raises(ConfigError, match=rf"damaged: {key}"):
        read_scores(put(tmp_path, {**SCORES, key: value}))


@pytest.mark.parametrize(
    "row",
    [{}, {**ROW, "name": "a" * 10**6}, {**ROW, "counts": [[0, 2, 5]]}],
)
def test_the_error_for_an_invalid_record_contains_its_number(row, tmp_path):
    with pytest.raises(ConfigError, match=r"damaged: 1\b"):
        read_records(put(tmp_path, [ROW, row]), 2)
