import json
from argparse import Namespace

import numpy as np
import pytest
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels

from hrseg.metrics.confusion import ConfusionMatrix, iou, mean_iou, summarize

# Correct pixels: 3 of 4 of class 0, and 2 of 4 of class 1. Class 2 is absent.
HAND = torch.tensor([[3, 1, 0], [2, 2, 0], [0, 0, 0]])


def confusion(pred, target, num_classes=3):
    metric = ConfusionMatrix(num_classes)
    metric.update(torch.as_tensor(pred), torch.as_tensor(target))
    return metric.compute()


def test_rows_are_the_truth_and_counts_are_int64():
    matrix = confusion([[0, 0, 0, 1, 0, 0, 1, 1, 2]], [[0, 0, 0, 0, 1, 1, 1, 1, 255]])
    assert matrix.dtype == torch.int64
    assert torch.equal(matrix, HAND)


def test_scores_equal_a_manual_calculation_and_are_plain_data():
    scores = json.loads(json.dumps(summarize(HAND, ["road", "car", "bus"]), allow_nan=False))
    assert scores["miou"] == pytest.approx((3 / 6 + 2 / 5) / 2)
    assert scores["mean_accuracy"] == pytest.approx((3 / 4 + 2 / 4) / 2)
    assert scores["pixel_accuracy"] == 5 / 8
    assert scores["frequency_weighted_iou"] == pytest.approx((0.5 * 4 + 0.4 * 4) / 8)
    assert scores["absent_classes"] == "skipped"
    assert scores["confusion_matrix"] == HAND.tolist()
    columns = ("name", "iou", "accuracy", "precision", "dice", "pixels")
    assert [tuple(row[column] for column in columns) for row in scores["classes"]] == [
        ("road", 0.5, 0.75, 3 / 5, 2 * 3 / (4 + 5), 4),
        ("car", 0.4, 0.5, 2 / 3, 2 * 2 / (4 + 3), 4),
        ("bus", None, None, None, None, 0),
    ]


def test_absent_classes_are_skipped_or_count_as_zero():
    assert mean_iou(HAND) == pytest.approx((0.5 + 0.4) / 2)
    assert mean_iou(HAND, "zero") == pytest.approx((0.5 + 0.4) / 3)
    assert summarize(HAND, "abc", "zero")["mean_accuracy"] == pytest.approx((0.75 + 0.5) / 3)


def test_a_class_without_true_pixels_has_iou_zero_and_no_accuracy():
    scores = summarize(confusion([0, 2], [0, 0]), "abc")
    row = scores["classes"][2]
    assert (row["iou"], row["accuracy"], row["precision"], row["dice"]) == (0, None, 0, 0)
    assert (scores["miou"], scores["mean_accuracy"]) == (0.25, 0.5)


def test_scores_without_scored_pixels_are_none():
    scores = summarize(torch.zeros(2, 2, dtype=torch.int64), ["a", "b"], "zero")
    names = ("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou")
    assert {scores[name] for name in names} == {None}


@pytest.mark.parametrize("pred_type", [torch.uint8, torch.int16, torch.int64])
@pytest.mark.parametrize("target_type", [torch.uint8, torch.int64])
def test_all_integer_types_give_the_same_counts(pred_type, target_type):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randint(0, 200, (2, 9, 7), generator=generator)
    target = torch.randint(0, 200, (2, 9, 7), generator=generator)
    expected = torch.zeros(200, 200, dtype=torch.int64)
    for p, t in zip(pred.flatten(), target.flatten(), strict=True):
        expected[t, p] += 1
    assert torch.equal(confusion(pred.to(pred_type), target.to(target_type), 200), expected)


@pytest.mark.parametrize("value", [3, 254, -1, 70_000])
def test_an_invalid_id_is_named_and_not_counted(value):
    metric = ConfusionMatrix(3)
    with pytest.raises(ValueError, match=rf"pred contains.*: {value}.\nExpected: 0\.\.2"):
        metric.update(torch.tensor([0, value]), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match=rf"target contains.*: {value}.\nExpected: 0\.\.2, or 255"):
        metric.update(torch.tensor([0, 1, 1]), torch.tensor([1, value, 255]))
    assert metric.compute().sum() == 0


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match=r"pred is \(2,\), but target is \(1,\)"):
        confusion([0, 1], [0])


def test_counts_stay_integers_when_the_parent_module_changes_its_type():
    metrics = torch.nn.ModuleList([ConfusionMatrix(2)])
    metrics[0].matrix += 2**53 + 1
    metrics.half().double()
    with torch.autocast("cpu", torch.bfloat16):
        metrics[0].update(torch.tensor([1]), torch.tensor([1]))
    assert metrics[0].matrix.dtype == torch.int64
    assert metrics[0].compute().tolist() == [[2**53 + 1, 2**53 + 1], [2**53 + 1, 2**53 + 2]]


def test_scores_equal_cityscapesscripts():
    rng = np.random.default_rng(0)
    train_labels = [label for label in labels if 0 <= label.trainId < 255]
    count = len(train_labels)
    matrix = rng.integers(0, 1000, (count, count))
    matrix[:, 5] = matrix[5] = 0
    # cityscapesScripts counts raw ids, including ignored ones.
    size = max(label.id for label in labels) + 1
    raw = np.zeros((size, size), np.int64)
    ids = [label.id for label in train_labels]
    raw[np.ix_(ids, ids)] = matrix
    args = Namespace(evalLabels=[label.id for label in labels if label.id >= 0])
    theirs = {i: official.getIouScoreForLabel(i, raw, args) for i in ids}
    ours = iou(torch.tensor(matrix))
    np.testing.assert_allclose(ours.numpy(), list(theirs.values()), rtol=1e-12)
    assert mean_iou(torch.tensor(matrix)) == pytest.approx(official.getScoreAverage(theirs, args))


def test_an_unknown_rule_for_absent_classes_is_refused():
    with pytest.raises(ValueError, match=r"absent is 'skiped'.\nExpected: 'skipped' or 'zero'"):
        mean_iou(HAND, "skiped")


def test_the_error_for_logits_and_arrays_names_the_conversion():
    metric, mask = ConfusionMatrix(2), torch.zeros(1, 4, 4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"Fix: logits.argmax\(1\)"):
        metric.update(torch.zeros(1, 2, 4, 4), mask)
    with pytest.raises(ValueError, match=r"got a ndarray(.|\n)*Fix: torch.from_numpy\(array\)"):
        metric.update(mask.numpy(), mask)


def test_iou_of_the_metric_equals_a_manual_calculation():
    metric = ConfusionMatrix(2)
    metric.update(torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 1, 1]))
    assert metric.iou().tolist() == pytest.approx([1 / 2, 2 / 3])
