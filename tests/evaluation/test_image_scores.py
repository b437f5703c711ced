"""Stored results of each image, and reading them back."""

import numpy as np
import pytest
from PIL import Image

from hrseg.errors import DataError
from hrseg.evaluation.results import ImageRecord, open_evaluation, record

PRED = np.array([[0, 1, 1], [2, 2, 0]], np.uint8)
TRUTH = np.array([[0, 0, 1], [2, 255, 0]], np.uint8)


def test_a_record_counts_each_pair_of_ids_without_the_ignored_pixels():
    seen = record("a", PRED, TRUTH)
    assert seen == ImageRecord("a", (2, 3), ((0, 0, 2), (0, 1, 1), (1, 1, 1), (2, 2, 1)))
    assert seen.matrix(3).tolist() == [[2, 1, 0], [0, 1, 0], [0, 0, 1]]


def test_the_records_of_a_run_are_those_of_its_masks_and_add_up_to_its_scores(runs):
    evaluation = open_evaluation(runs[1])
    num_classes = len(evaluation.class_names)
    total = sum(seen.matrix(num_classes) for seen in evaluation.records)
    assert total.tolist() == evaluation.scores["confusion_matrix"]
    matrices = evaluation.matrices()
    assert matrices.shape == (3, num_classes, 3)
    expected = np.stack([total.diagonal(), total.sum(1), total.sum(0)], 1)
    assert matrices.sum(0).tolist() == expected.tolist()
    for seen in evaluation.records:
        pred, truth = evaluation.pred(seen.name), evaluation.truth(seen.name)
        assert record(seen.name, pred, truth) == seen
        with Image.open(evaluation.mask_path(seen.name)) as mask:
            colors = np.asarray(mask.convert("RGB"))
        assert (colors == np.array(evaluation.palette, np.uint8)[pred]).all()
        assert evaluation.image(seen.name).shape == (*truth.shape, 3)


def test_a_lost_mask_and_a_lost_data_set_are_named(runs, tmp_path):
    evaluation = open_evaluation(runs[1], [f"data.root={tmp_path}", "data.num_val=1"])
    with pytest.raises(DataError, match=r"2 images of .* are not in split val"):
        evaluation.truth(evaluation.records[0].name)
    with pytest.raises(DataError, match=r"other.png: no readable mask"):
        evaluation.pred("other")


def test_tensorboard_gets_the_pictures_of_the_validation(runs):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(runs[1]))
    events.Reload()
    pictures = {path.stem for path in (runs[1] / "predictions").iterdir()}
    assert pictures and pictures == {tag.removeprefix("val/") for tag in events.Tags()["images"]}
