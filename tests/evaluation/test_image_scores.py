"""Stored results of each image."""

import numpy as np
import pytest
from PIL import Image

from hrseg.errors import DataError
from hrseg.evaluation.results import ImageRecord, make_record, open_evaluation

PRED = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
TRUTH = np.array([[0, 0, 1], [2, 255, 0]], np.uint8)


def test_a_record_counts_each_pair_of_ids_without_the_ignored_pixels():
    record = make_record("a", PRED, TRUTH)
    assert record == ImageRecord("a", (2, 3), ((0, 0, 2), (0, 1, 1), (1, 1, 1), (2, 2, 1)))
    assert record.matrix(3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_records_of_a_run_fit_its_masks_and_sum_to_its_confusion_matrix(runs):
    evaluation = open_evaluation(runs[1])
    num_classes = len(evaluation.class_names)
    total = sum(record.matrix(num_classes) for record in evaluation.records)
    assert total.tolist() == evaluation.scores["confusion_matrix"]
    matrices = evaluation.matrices()
    assert matrices.shape == (3, num_classes, 3)
    expected = np.stack([total.diagonal(), total.sum(1), total.sum(0)], 1)
    assert matrices.sum(0).tolist() == expected.tolist()
    for record in evaluation.records:
        pred, truth = evaluation.pred(record.name), evaluation.truth(record.name)
        assert make_record(record.name, pred, truth) == record
        with Image.open(evaluation.mask_path(record.name)) as mask:
            colors = np.asarray(mask.convert("RGB"))
        assert (colors == np.array(evaluation.palette, np.uint8)[pred]).all()
        assert evaluation.image(record.name).shape == (*truth.shape, 3)


def test_missing_masks_and_data_sets_raise_an_error(runs, tmp_path):
    evaluation = open_evaluation(runs[1], [f"data.root={tmp_path}", "data.num_val=1"])
    with pytest.raises(DataError, match=r"2 images of .* are not in split val"):
        evaluation.truth(evaluation.records[0].name)
    with pytest.raises(DataError, match=r"other.png is missing or not a readable mask"):
        evaluation.pred("other")


def test_the_pictures_of_the_validation_are_logged_to_tensorboard(runs):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs[1]))
    events.Reload()
    pictures = {path.stem for path in (runs[1] / "predictions").iterdir()}
    assert pictures and pictures == {tag.removeprefix("val/") for tag in events.Tags()["images"]}
