"""Exploration of predictions in Jupyter: ranking, changes, widget."""

import io

import numpy as np
import pytest
from PIL import Image

from hrseg.errors import ConfigError
from hrseg.evaluation.notebook import (
    BETTER,
    WORSE,
    browse,
    changes,
    compare,
    confusions,
    image_miou,
    panels,
    rank,
)
from hrseg.evaluation.results import ImageRecord, make_record, open_evaluation
from hrseg.inference.predictor import load
from tests.evaluations import write_evaluation


def test_images_are_ranked_worst_first_and_confusions_largest_first(tmp_path):
    """mIoU: a (8 / 10 + 0 / 2) / 2 = 0.4, b (4 / 9 + 1 / 6) / 2 = 0.3056, c 1."""
    records = [
        ImageRecord("a", (2, 5), ((0, 0, 8), (0, 1, 2))),
        ImageRecord("b", (2, 5), ((0, 0, 4), (1, 0, 5), (1, 1, 1))),
        ImageRecord("c", (2, 5), ((2, 2, 10),)),
    ]
    evaluation = open_evaluation(write_evaluation(tmp_path, records, ["road", "car", "tree"]))
    assert image_miou(records[1]) == pytest.approx((4 / 9 + 1 / 6) / 2)
    assert confusions(evaluation) == [("car", "road", 5), ("road", "car", 2)]
    assert rank(evaluation) == ["b", "a", "c"]
    assert rank(evaluation, "car") == ["b", "a"]
    assert rank(evaluation, "road", "car") == ["a"]
    assert rank(evaluation, "tree") == []
    with pytest.raises(ConfigError, match="unknown class 'tram'"):
        rank(evaluation, "tram")


def test_panels_show_image_truth_prediction_and_errors(runs):
    evaluation = open_evaluation(runs[0])
    name = evaluation.records[0].name
    picture, (height, width) = panels(evaluation, name), evaluation.truth(name).shape
    assert picture.shape[1] == 4 * width + 3 * 4
    assert np.array_equal(picture[22 : 22 + height, :width], evaluation.image(name))


def test_runs_are_compared_only_on_the_same_images(runs):
    first, second = map(open_evaluation, runs)
    classes, images = compare(first, second)
    assert [row[0] for row in classes] == first.class_names
    assert [row[1] for row in classes] == [row["iou"] for row in first.scores["classes"]]
    losses = [after - before for _, before, after in images]
    assert losses == sorted(losses) and len(losses) == 3
    first.records = first.records[:-1]
    with pytest.raises(ConfigError, match=r"have different images: "):
        compare(first, second)


def test_changes_show_corrected_and_broken_pixels(runs):
    first, second = map(open_evaluation, runs)
    name = first.records[0].name
    picture, truth = changes(first, second, name), first.truth(name)
    before, after = first.pred(name) == truth, second.pred(name) == truth
    scored = truth != 255
    assert np.array_equal((picture == BETTER).all(-1), ~before & after & scored)
    assert np.array_equal((picture == WORSE).all(-1), before & ~after & scored)


def test_the_browser_shows_the_selected_images(runs):
    pytest.importorskip("ipywidgets")
    browser = browse(runs[1], runs[0])
    evaluation = open_evaluation(runs[1])
    assert browser.name == rank(evaluation)[0]
    assert "1 of 3" in browser.caption.value
    picture = browser.picture.value
    browser.position.value = 2
    assert browser.name == rank(evaluation)[2]
    assert browser.picture.value != picture
    truth, pred, _ = confusions(evaluation)[0]
    browser.truth.value, browser.pred.value = truth, pred
    assert browser.ranked == rank(evaluation, truth, pred)
    assert browser.position.value == 0


def test_the_browser_predicts_again_at_other_scales(runs):
    pytest.importorskip("ipywidgets")
    browser = browse(runs[1])
    browser.scales[2].value = True  # scale 1, as in the evaluation of the run
    assert "at scales 1: mIoU" in browser.caption.value
    mious = [line.rpartition("mIoU ")[2] for line in browser.caption.value.split("<br>")]
    assert float(mious[0][:-1]) == pytest.approx(float(mious[1][:-1]), abs=0.5)
    browser.scales[0].value = browser.flip.value = True
    assert "at scales 0.5, 1, flip: mIoU" in browser.caption.value
    evaluation = open_evaluation(runs[1])
    predictor = load(runs[1]).with_protocol(scales=(0.5, 1.0), flip=True)
    mask = predictor.predict(evaluation.image(browser.name)).mask
    record = make_record(browser.name, mask, evaluation.truth(browser.name))
    assert browser.caption.value.endswith(f"mIoU {image_miou(record):.2%}")
    expected = panels(evaluation, browser.name, mask)
    with Image.open(io.BytesIO(browser.picture.value)) as picture:
        assert np.array_equal(np.array(picture), expected)
