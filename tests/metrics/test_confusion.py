import json
import math
import os
from argparse import Namespace
from typing import get_args

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as official
from cityscapesscripts.helpers.labels import labels
from hypothesis import given, settings
from hypothesis import strategies as st
from pytorch_lightning.callbacks import EMAWeightAveraging
from torch.utils.data import DataLoader

from hrseg.config.protocols import Average, Protocol, ScoresAt
from hrseg.errors import ConfigError
from hrseg.inference.evaluator import Evaluator
from hrseg.metrics.confusion import (
    ConfusionMatrix,
    accuracy,
    dice,
    frequency_weighted_iou,
    iou,
    mean_accuracy,
    mean_iou,
    pixel_accuracy,
    summarize,
)
from hrseg.models.normalize import Normalize
from tests.conftest import batch_of, noise, silent_trainer, tiny_task
from tests.faults.test_metrics import Looked, whole

# Class 0: 3 of 4 pixels found, class 1: 2 of 4, class 2: nowhere.
HAND = torch.tensor([[3, 1, 0], [2, 2, 0], [0, 0, 0]])


def confusion(pred, target, num_classes=3, **options):
    metric = ConfusionMatrix(num_classes, **options)
    metric.update(torch.as_tensor(pred), torch.as_tensor(target))
    return metric.compute()


def test_rows_are_the_truth_and_counts_are_int64():
    matrix = confusion([[0, 0, 0, 1, 0, 0, 1, 1]], [[0, 0, 0, 0, 1, 1, 1, 1]])
    assert matrix.dtype == torch.int64
    assert torch.equal(matrix, HAND)


def test_one_class_is_scored():
    matrix = confusion([[0, 0, 0]], [[0, 0, 255]], num_classes=1)
    assert iou(matrix).tolist() == [1.0]
    assert summarize(matrix, ["road"])["confusion_matrix"] == [[2]]


def test_scores_of_a_hand_worked_case():
    assert iou(HAND)[:2].tolist() == [3 / 6, 2 / 5]
    assert accuracy(HAND)[:2].tolist() == [3 / 4, 2 / 4]
    assert dice(HAND)[:2].tolist() == pytest.approx([6 / 9, 4 / 7])
    assert iou(HAND)[2].isnan() and accuracy(HAND)[2].isnan() and dice(HAND)[2].isnan()
    assert pixel_accuracy(HAND) == 5 / 8
    assert frequency_weighted_iou(HAND) == pytest.approx((0.5 * 4 + 0.4 * 4) / 8)
    assert iou(HAND).dtype == torch.float64


def test_absent_classes_are_skipped_or_count_as_zero():
    assert mean_iou(HAND) == pytest.approx((0.5 + 0.4) / 2)
    assert mean_iou(HAND, "zero") == pytest.approx((0.5 + 0.4) / 3)
    assert mean_accuracy(HAND) == pytest.approx((0.75 + 0.5) / 2)
    assert mean_accuracy(HAND, "zero") == pytest.approx((0.75 + 0.5) / 3)
    with pytest.raises(ConfigError, match=r"'skiped'.*skipped"):
        mean_iou(HAND, "skiped")


def test_a_class_that_is_only_predicted_has_iou_zero_and_no_accuracy():
    matrix = confusion([0, 2], [0, 0])
    assert iou(matrix)[2] == 0
    assert accuracy(matrix)[2].isnan()
    assert mean_iou(matrix) == pytest.approx((0.5 + 0) / 2)
    assert mean_accuracy(matrix) == 0.5


@pytest.mark.parametrize("ignore", [255, 254, 0, -1, -100, 1000])
def test_any_id_can_be_the_ignored_one(ignore):
    target = torch.tensor([1, 2, ignore, 1])
    matrix = confusion([1, 1, 1, 2], target, ignore_index=ignore)
    assert matrix.tolist() == [[0, 0, 0], [0, 1, 1], [0, 1, 0]]


@pytest.mark.parametrize("pred_type", [torch.uint8, torch.int16, torch.int32, torch.int64])
@pytest.mark.parametrize("target_type", [torch.uint8, torch.int32, torch.int64])
def test_integer_types_do_not_matter(pred_type, target_type):
    generator = torch.Generator().manual_seed(0)
    pred = torch.randint(0, 200, (2, 9, 7), generator=generator)
    target = torch.randint(0, 200, (2, 9, 7), generator=generator)
    expected = torch.zeros(200, 200, dtype=torch.int64)
    for p, t in zip(pred.flatten(), target.flatten(), strict=True):
        expected[t, p] += 1
    assert torch.equal(confusion(pred.to(pred_type), target.to(target_type), 200), expected)


@pytest.mark.parametrize("value", [3, 200, 255, 256, -1, 70_000])
def test_a_wrong_prediction_is_refused_by_its_value(value):
    with pytest.raises(ValueError, match=rf"predicted id {value} .*expected 0\.\.2"):
        confusion([0, value], [1, 1])


@pytest.mark.parametrize("value", [3, 254, 256, -1, 70_000])
def test_a_wrong_target_is_refused_by_its_value(value):
    with pytest.raises(ValueError, match=rf"true id {value} .*expected 0\.\.2 or 255"):
        confusion([0, 1, 1], [1, value, 255])


def test_a_refused_update_leaves_the_counts_as_they_were():
    metric = ConfusionMatrix(3)
    metric.update(torch.tensor([1]), torch.tensor([1]))
    with pytest.raises(ValueError, match="predicted id 9"):
        metric.update(torch.tensor([1, 9]), torch.tensor([1, 1]))
    assert metric.compute().sum() == 1


def test_other_shapes_floats_and_class_counts_are_refused():
    with pytest.raises(ValueError, match=r"pred is \(2,\), target is \(1,\)"):
        confusion([0, 1], [0])
    with pytest.raises(ValueError, match="integer"):
        confusion([0.5], [0])
    with pytest.raises(ValueError, match="num_classes is 0"):
        ConfusionMatrix(0)


side = st.integers(32, 70)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1), size=st.tuples(side, side), window=st.tuples(side, side),
    parts=st.tuples(st.integers(1, 6), st.integers(1, 6)), border=st.sampled_from(["shift", "pad"]),
    flip=st.booleans(), average=st.sampled_from(get_args(Average)), batch=st.integers(1, 5),
    scores_at=st.sampled_from(get_args(ScoresAt)),
    scales=st.sampled_from([(1.0,), (1.0,), (0.75, 1.0), (1.5,)]),
)  # fmt: skip
def test_equal_logits_give_equal_classes_in_any_windows(
    seed, size, window, parts, border, flip, average, batch, scores_at, scales
):
    model, random = Looked(seed), np.random.default_rng(seed)
    image = random.integers(0, 256, (*size, 3), np.uint8) // 8 * 8
    stride = tuple(-(-length // part) for length, part in zip(window, parts, strict=True))
    protocol = Protocol(
        scales=scales, flip=flip, average=average, scores_at=scores_at,
        window=window, stride=stride, window_border=border,
    )  # fmt: skip
    evaluate = Evaluator(lambda x: model.outputs(x)["out"], Normalize(), protocol, batch=batch)
    ids = evaluate(batch_of(image)).pred.numpy()
    np.testing.assert_array_equal(ids, whole(model, protocol, image))
    if scales == (1.0,):
        np.testing.assert_array_equal(ids, np.asarray(model.table)[image[..., 0]].argmax(-1))


@pytest.mark.parametrize(
    "change", [torch.nn.Module.half, torch.nn.Module.bfloat16, torch.nn.Module.double]
)
def test_counts_stay_integers_when_the_model_around_them_changes_its_type(change):
    metrics = torch.nn.ModuleList([ConfusionMatrix(2)])
    metrics[0].matrix += 2**53 + 1
    change(metrics)
    metrics.to(torch.float16)
    with torch.autocast("cpu", torch.bfloat16):
        metrics[0].update(torch.tensor([1]), torch.tensor([1]))
    assert metrics[0].matrix.dtype == torch.int64
    assert metrics[0].compute().tolist() == [[2**53 + 1, 2**53 + 1], [2**53 + 1, 2**53 + 2]]


def summed_by(rank, folder):
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=3
    )
    metric = ConfusionMatrix(2)
    metric.matrix += 2**53 + rank
    (folder / f"{rank}").write_text(str(metric.compute().tolist()))


def test_counts_of_processes_are_summed_as_integers(tmp_path, monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    children = []
    for rank in range(3):
        children.append(os.fork())
        if not children[-1]:
            try:
                summed_by(rank, tmp_path)
            finally:
                os._exit(0)
    for child in children:
        os.waitpid(child, 0)
    each = 3 * 2**53 + 3
    for rank in range(3):
        assert (tmp_path / f"{rank}").read_text() == str([[each, each], [each, each]])


class Seen(pl.Callback):
    """Count what is predicted once more, with NumPy."""

    def __init__(self):
        self.matrix = np.zeros((2, 2), np.int64)

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        truth, pred = batch["mask"][0].numpy(), outputs["pred"].numpy()
        np.add.at(self.matrix, (truth[truth != 255], pred[truth != 255]), 1)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_an_epoch_with_averaged_weights_counts_what_was_predicted(tmp_path, precision):
    items, task, seen = noise(2, (32, 48)), tiny_task(), Seen()
    callbacks = [EMAWeightAveraging(decay=0.5), seen]
    options = {"precision": precision, "num_sanity_val_steps": 0}
    trainer = silent_trainer(tmp_path, **options, callbacks=callbacks)
    trainer.fit(task, DataLoader(items, 2), DataLoader(items, 1))
    assert task.scores["confusion_matrix"] == seen.matrix.tolist()
    assert seen.matrix.sum() == sum(int((item["mask"] != 255).sum()) for item in items)


def test_nothing_scored_gives_nulls_and_no_crash():
    scores = summarize(torch.zeros(2, 2, dtype=torch.int64), ["a", "b"], "zero")
    assert scores["miou"] is scores["pixel_accuracy"] is scores["mean_accuracy"] is None
    assert scores["frequency_weighted_iou"] is None
    assert scores["classes"][0] == {"name": "a", "iou": None, "accuracy": None, "pixels": 0}
    assert math.isnan(mean_iou(torch.zeros(2, 2, dtype=torch.int64)))


def test_summary_is_plain_data_with_ratios_and_integer_counts():
    scores = json.loads(json.dumps(summarize(HAND, ["road", "car", "bus"]), allow_nan=False))
    assert scores["miou"] == pytest.approx(0.45)
    assert scores["absent_classes"] == "skipped"
    assert scores["confusion_matrix"] == HAND.tolist()
    assert scores["classes"][1] == {"name": "car", "iou": 0.4, "accuracy": 0.5, "pixels": 4}
    assert scores["classes"][2] == {"name": "bus", "iou": None, "accuracy": None, "pixels": 0}


def test_scores_equal_those_of_cityscapesscripts():
    rng = np.random.default_rng(0)
    train_labels = [label for label in labels if 0 <= label.trainId < 255]
    count = len(train_labels)
    matrix = rng.integers(0, 1000, (count, count))
    matrix[:, 5] = matrix[5] = 0
    # cityscapesScripts counts raw ids, void ones among them.
    size = max(label.id for label in labels) + 1
    raw = np.zeros((size, size), np.int64)
    ids = [label.id for label in train_labels]
    raw[np.ix_(ids, ids)] = matrix
    args = Namespace(evalLabels=[label.id for label in labels if label.id >= 0])
    theirs = {i: official.getIouScoreForLabel(i, raw, args) for i in ids}
    ours = iou(torch.tensor(matrix))
    np.testing.assert_allclose(ours.numpy(), list(theirs.values()), rtol=1e-12)
    assert mean_iou(torch.tensor(matrix)) == pytest.approx(official.getScoreAverage(theirs, args))
