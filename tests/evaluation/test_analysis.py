"""Distribution over images and bootstrap interval, against manual results and SciPy."""

import json

import numpy as np
import pytest
from scipy import stats

from hrseg.errors import DataError
from hrseg.evaluation.analysis import write_details
from hrseg.evaluation.results import make_record, open_evaluation
from hrseg.metrics.bootstrap import bootstrap, image_iou
from hrseg.visualize import indexed
from tests.conftest import save_image
from tests.evaluations import PALETTE, write_evaluation

# Two images, two classes: (correct, true, predicted) pixels.
GOOD = [[8, 8, 8], [2, 2, 2]]
BAD = [[4, 8, 6], [0, 2, 4]]


def test_the_distribution_of_three_images():
    """IoUs of the first image: 1 and 1; of the second: 4 / (8 + 6 - 4) = 0.4 and 0 / 6 = 0.

    So their mIoUs are 1 and 0.2. A third image contains only class 0, 3 of 4 pixels correct: 0.75.
    """
    counts = np.array([GOOD, BAD, [[3, 4, 3], [0, 0, 0]]])
    summary = image_iou(counts, ["road", "car"])
    assert (summary["min"], summary["median"], summary["max"]) == pytest.approx((0.2, 0.75, 1.0))
    assert summary["mean"] == pytest.approx((1 + 0.2 + 0.75) / 3)
    assert (summary["q1"], summary["q3"]) == pytest.approx((0.475, 0.875))
    assert [i for i, n in enumerate(summary["histogram"]) if n] == [4, 15, 19]
    road, car = summary["classes"]
    assert (road["mean"], road["images"]) == (pytest.approx((1 + 0.4 + 0.75) / 3), 3)
    assert (car["mean"], car["images"]) == (0.5, 2)


def test_an_image_without_scored_pixels_is_left_out():
    counts = np.array([GOOD, [[0, 0, 0], [0, 0, 0]]])
    assert image_iou(counts, ["road", "car"])["min"] == 1.0
    assert bootstrap(counts, ["road", "car"])["miou"] == [1.0, 1.0]
    summary = image_iou(counts[1:], ["road", "car"])
    assert [summary[key] for key in ("min", "median", "max", "mean")] == [None] * 4
    assert bootstrap(counts[1:], ["road", "car"])["miou"] is None


def test_the_bootstrap_interval_of_two_images():
    """A quarter of the resamples contains the first image twice, a quarter the second twice.

    Their mIoUs are 1 and (4/10 + 0/6) / 2 = 0.2, so the 95 % interval is 0.2 to 1. The interval of
    the IoU of class 1 is 0 to 1.
    """
    result = bootstrap(np.array([GOOD, BAD]), ["road", "car"])
    assert result["miou"] == pytest.approx([0.2, 1.0])
    assert result["classes"][1]["iou"] == pytest.approx([0.0, 1.0])
    assert (result["level"], result["resamples"]) == (0.95, 1000)


def test_absent_classes_count_according_to_the_protocol():
    counts = np.array([[[4, 4, 4], [0, 0, 0]]] * 3)
    assert bootstrap(counts, "ab", "skipped")["miou"] == [1.0, 1.0]
    assert bootstrap(counts, "ab", "zero")["miou"] == [0.5, 0.5]
    assert bootstrap(counts, "ab")["classes"][1]["iou"] is None


def test_the_bootstrap_interval_equals_that_of_scipy():
    """60 images with random shares of correct pixels."""
    generator = np.random.default_rng(0)
    truth = generator.integers(50, 150, (60, 3))
    correct = generator.binomial(truth, generator.beta(8, 3, (60, 3)))
    counts = np.stack([correct, truth, truth], -1)

    def miou(index):
        correct, truth, pred = np.moveaxis(counts[index].sum(0), -1, 0)
        return float((correct / (truth + pred - correct)).mean())

    expected = stats.bootstrap(
        (np.arange(60),), miou, n_resamples=4000, method="percentile", vectorized=False,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    interval = bootstrap(counts, "abc", resamples=4000)["miou"]
    assert interval == pytest.approx([expected.low, expected.high], abs=0.002)


@pytest.fixture
def folder(tmp_path):
    """An evaluation of one image of 20x20: two classes side by side; row 0 of the left is wrong."""
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    pred = truth.copy()
    pred[0, :10] = 1
    for part in ("train", "val", "trainannot", "valannot"):
        picture = truth if part.endswith("annot") else np.uint8(PALETTE)[truth]
        save_image(tmp_path / "data" / part / "a.png", picture)
    (tmp_path / "run/masks").mkdir(parents=True)
    indexed(pred, PALETTE).save(tmp_path / "run/masks/a.png")
    records = [make_record("a", pred, truth)]
    return write_evaluation(tmp_path / "run", records, ["sky", "[b]road"], tmp_path / "data")


def test_details_are_printed_and_added_to_scores_json(folder, capsys):
    """5 of the 10 wrong pixels are within 5 pixels of a contour; the IoUs are .95 and 20 / 21."""
    before = json.loads((folder / "scores.json").read_text())
    write_details(open_evaluation(folder))
    after = json.loads((folder / "scores.json").read_text(), parse_constant=pytest.fail)
    details = after.pop("details")
    assert after == before
    assert list(details) == ["boundary", "image_iou", "bootstrap"]
    assert list(details["boundary"]) == ["3", "5", "9", "12"]
    assert details["boundary"]["5"]["classes"][0]["share_of_errors"] == 0.5
    assert details["bootstrap"]["miou"] == pytest.approx([(0.95 + 20 / 21) / 2] * 2)
    output = capsys.readouterr().out
    assert "[b]road" in output
    # The table fits into 80 columns without truncated numbers.
    sky = next(line for line in output.splitlines() if "sky" in line)
    assert "95.00 to 95.00" in sky and "50.00" in sky


def test_the_error_for_a_mask_of_another_size_or_class_contains_its_path(folder):
    other_size, other_id = np.zeros((4, 5), np.uint8), np.full((20, 20), 9, np.uint8)
    for pred, fault in ((other_size, r"\(4, 5\)"), (other_id, r"id 9: expected 0\.\.1")):
        indexed(pred, PALETTE).save(folder / "masks/a.png")
        with pytest.raises(DataError, match=rf"a.png does not fit its true mask: .*{fault}"):
            write_details(open_evaluation(folder))
