"""Precision, recall, Dice and the threshold curve of two classes."""

import numpy as np
import pytest
import torch

from hrseg.metrics.binary import (
    THRESHOLDS,
    ThresholdCounts,
    binary_summary,
    foreground_id,
    threshold_curve,
)

# 6 pixels of the foreground, of which 4 are found; 3 false positives.
MATRIX = torch.tensor([[7, 3], [2, 4]])


def pixels(count=500, seed=0):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 255], count, p=[0.6, 0.3, 0.1]).astype(np.uint8)
    probability = (rng.random(count) * 0.6 + 0.4 * (truth == 1)).astype(np.float32)
    probability[: len(THRESHOLDS)] = THRESHOLDS  # pixels exactly on each threshold
    return probability, truth


@pytest.mark.parametrize("foreground", [0, 1])
def test_the_curve_equals_a_count_of_the_pixels_at_each_threshold(foreground):
    probability, truth = pixels()
    counts = ThresholdCounts(foreground)
    counts.update(torch.from_numpy(probability), torch.from_numpy(truth))
    scored = truth != 255
    for row in threshold_curve(counts.compute()):
        predicted = (probability >= np.float32(row["threshold"]))[scored]
        true = (truth == foreground)[scored]
        hits = (predicted & true).sum()
        assert row["precision"] == pytest.approx(hits / predicted.sum())
        assert row["recall"] == pytest.approx(hits / true.sum())
        assert row["dice"] == pytest.approx(2 * hits / (predicted.sum() + true.sum()))
        assert row["iou"] == pytest.approx(hits / (predicted | true).sum())


def test_the_scores_of_the_mask_equal_a_calculation_by_hand():
    counts = torch.zeros(2, 20, dtype=torch.int64)
    scores = binary_summary(MATRIX, counts, ["rest", "crack"], None)
    assert (scores["foreground"], scores["threshold"]) == ("crack", 0.5)
    assert scores["precision"] == pytest.approx(4 / 7)
    assert scores["recall"] == pytest.approx(4 / 6)
    assert scores["dice"] == pytest.approx(8 / 13)
    assert scores["iou"] == pytest.approx(4 / 9)


def test_the_class_that_is_not_the_background_is_the_foreground():
    assert foreground_id(["background", "crack"]) == foreground_id(["road", "crack"]) == 1
    assert foreground_id(["crack", "Background"]) == 0
    scores = binary_summary(MATRIX, torch.zeros(2, 20, dtype=torch.int64), ["crack", "bg"], 0.3)
    assert (scores["foreground"], scores["threshold"]) == ("crack", 0.3)
    assert scores["precision"] == pytest.approx(7 / 9)
    assert scores["recall"] == pytest.approx(7 / 10)


def test_the_best_threshold_has_the_highest_dice():
    counts = ThresholdCounts()
    probability = torch.tensor([0.1, 0.32, 0.33, 0.34, 0.36, 0.9])
    counts.update(probability, torch.tensor([0, 0, 0, 0, 1, 1]))
    best = binary_summary(MATRIX, counts.compute(), "ab", None)["best"]
    assert (best["threshold"], best["dice"]) == (0.35, 1.0)


def test_scores_without_pixels_are_none():
    empty = ThresholdCounts().counts
    scores = binary_summary(torch.zeros(2, 2, dtype=torch.int64), empty, "ab", None)
    assert scores["dice"] is scores["precision"] is scores["best"] is None
    assert {row["dice"] for row in scores["curve"]} == {None}
