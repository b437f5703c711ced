"""The distribution over images and the confidence interval, worked by hand and against SciPy."""

import json

import numpy as np
import pytest
from scipy import stats

from hrseg.errors import DataError
from hrseg.evaluation.analysis import write_details
from hrseg.evaluation.results import open_evaluation, record
from hrseg.metrics.bootstrap import bootstrap, image_iou
from hrseg.visualize import indexed
from tests.conftest import save_image
from tests.evaluations import PALETTE, write_evaluation

# Two images, two classes: (found, true, predicted) pixels.
GOOD = [[8, 8, 8], [2, 2, 2]]
BAD = [[4, 8, 6], [0, 2, 4]]


def test_the_distribution_worked_by_hand():
    """The first image: 1 and 1. The second: 4 / (8 + 6 - 4) = 0.4 and 0 / 6 = 0, so 0.2.

    A third one holds class 0 alone, 3 of 4 pixels found: 0.75.
    """
    counts = np.array([GOOD, BAD, [[3, 4, 3], [0, 0, 0]]])
    found = image_iou(counts, ["road", "car"])
    assert (found["min"], found["median"], found["max"]) == pytest.approx((0.2, 0.75, 1.0))
    assert found["mean"] == pytest.approx((1 + 0.2 + 0.75) / 3)
    assert (found["q1"], found["q3"]) == pytest.approx((0.475, 0.875))
    assert [i for i, n in enumerate(found["histogram"]) if n] == [4, 15, 19]
    road, car = found["classes"]
    assert (road["mean"], road["images"]) == (pytest.approx((1 + 0.4 + 0.75) / 3), 3)
    assert (car["mean"], car["images"]) == (0.5, 2)


def test_an_image_without_a_scored_pixel_is_left_out():
    counts = np.array([GOOD, [[0, 0, 0], [0, 0, 0]]])
    assert image_iou(counts, ["road", "car"])["min"] == 1.0
    assert bootstrap(counts, ["road", "car"])["miou"] == [1.0, 1.0]
    found = image_iou(counts[1:], ["road", "car"])
    assert [found[key] for key in ("min", "median", "max", "mean")] == [None] * 4
    assert bootstrap(counts[1:], ["road", "car"])["miou"] is None


def test_an_interval_of_two_images_worked_by_hand():
    """Of two images 1/4 of the draws hold the first twice, 1/4 the second twice, 1/2 each once.

    Their mIoUs: 1; (4/10 + 0/6) / 2 = 0.2. So the interval of 95 % ends at 0.2 and 1. For the IoU
    of class 1: 0 and 1.
    """
    found = bootstrap(np.array([GOOD, BAD]), ["road", "car"])
    assert found["miou"] == pytest.approx([0.2, 1.0])
    assert found["classes"][1]["iou"] == pytest.approx([0.0, 1.0])
    assert (found["level"], found["resamples"]) == (0.95, 1000)


def test_absent_classes_count_by_the_protocol():
    counts = np.array([[[4, 4, 4], [0, 0, 0]]] * 3)
    assert bootstrap(counts, "ab", "skipped")["miou"] == [1.0, 1.0]
    assert bootstrap(counts, "ab", "zero")["miou"] == [0.5, 0.5]
    assert bootstrap(counts, "ab")["classes"][1]["iou"] is None


def test_the_interval_is_that_of_scipy():
    """60 images whose share of found pixels varies from one to the next."""
    generator = np.random.default_rng(0)
    truth = generator.integers(50, 150, (60, 3))
    found = generator.binomial(truth, generator.beta(8, 3, (60, 3)))
    counts = np.stack([found, truth, truth], -1)

    def miou(index):
        hit, truth, pred = np.moveaxis(counts[index].sum(0), -1, 0)
        return float((hit / (truth + pred - hit)).mean())

    theirs = stats.bootstrap(
        (np.arange(60),), miou, n_resamples=4000, method="percentile", vectorized=False,
        rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    ours = bootstrap(counts, "abc", resamples=4000)["miou"]
    assert ours == pytest.approx([theirs.low, theirs.high], abs=0.002)


@pytest.fixture
def folder(tmp_path):
    """An evaluation of one image: two halves of 20 x 10, of the left one row 0 is wrong."""
    truth = np.zeros((20, 20), np.uint8)
    truth[:, 10:] = 1
    pred = truth.copy()
    pred[0, :10] = 1
    for part in ("train", "val", "trainannot", "valannot"):
        picture = truth if part.endswith("annot") else np.uint8(PALETTE)[truth]
        save_image(tmp_path / "data" / part / "a.png", picture)
    (tmp_path / "run/masks").mkdir(parents=True)
    indexed(pred, PALETTE).save(tmp_path / "run/masks/a.png")
    records = [record("a", pred, truth)]
    return write_evaluation(tmp_path / "run", records, ["sky", "[b]road"], tmp_path / "data")


def test_details_of_a_folder_are_printed_and_added_to_its_scores(folder, capsys):
    """Of 10 wrong pixels 5 lie within 5 pixels of the other half; the IoUs are .95 and 20 / 21."""
    before = json.loads((folder / "scores.json").read_text())
    write_details(open_evaluation(folder))
    after = json.loads((folder / "scores.json").read_text(), parse_constant=pytest.fail)
    found = after.pop("details")
    assert after == before
    assert list(found) == ["boundary", "image_iou", "bootstrap"]
    assert list(found["boundary"]) == ["3", "5", "9", "12"]
    assert found["boundary"]["5"]["classes"][0]["share_of_errors"] == 0.5
    assert found["bootstrap"]["miou"] == pytest.approx([(0.95 + 20 / 21) / 2] * 2)
    printed = capsys.readouterr().out
    assert "[b]road" in printed
    # No number is cut at the usual 80 columns.
    sky = next(line for line in printed.splitlines() if "sky" in line)
    assert "95.00 to 95.00" in sky and "50.00" in sky


def test_a_mask_that_does_not_fit_its_truth_is_named(folder):
    other_size, other_id = np.zeros((4, 5), np.uint8), np.full((20, 20), 9, np.uint8)
    for pred, fault in ((other_size, r"\(4, 5\)"), (other_id, r"id 9: expected 0\.\.1")):
        indexed(pred, PALETTE).save(folder / "masks/a.png")
        with pytest.raises(DataError, match=rf"a.png does not fit its truth: .*{fault}"):
            write_details(open_evaluation(folder))
