"""Boundary metrics, compared with manual calculations and a class-by-class SciPy version."""

import itertools

import numpy as np
import pytest
from scipy import ndimage

from hrseg.metrics.boundary import WIDTHS, BoundaryCounts, band
from hrseg.utils.constants import IGNORE_INDEX


def square(size, top, left, side):
    ids = np.zeros((size, size), np.uint8)
    ids[top : top + side, left : left + side] = 1
    return ids


def blobs(seed, shape=(60, 47), num_classes=4, void=True):
    """Return ids in smooth regions; with `void`, some are ignored."""
    noise = np.random.default_rng(seed).normal(size=(num_classes + void, *shape))
    ids = ndimage.gaussian_filter(noise, (0, 4, 4)).argmax(0).astype(np.uint8)
    return np.where(ids == num_classes, IGNORE_INDEX, ids).astype(np.uint8)


def test_boundary_iou_equals_a_manual_calculation():
    """The prediction is the true square of side 8, shifted to the right by 1; the width is 1.

    Each band of class 1 is the square's outline: 8 * 8 - 6 * 6 = 28 pixels. The outlines share 7
    pixels of the upper and of the lower row, 14 in all. IoU = 14 / (28 + 28 - 14) = 1 / 3.
    """
    counts = BoundaryCounts(2, widths=(1,))
    counts.update(square(20, 6, 7, 8), square(20, 6, 6, 8))
    assert counts.bands[0, 1].tolist() == [14, 28, 28]
    assert counts.iou()[0, 1] == pytest.approx(1 / 3)


def test_boundary_f_score_equals_a_manual_calculation():
    """The same squares: at width 1, each pixel of an outline has a neighbour on the other.

    At width 0, only the 14 shared pixels of 28 are matched: precision = recall = F = 1 / 2.
    """
    counts = BoundaryCounts(2, widths=(0, 1))
    counts.update(square(20, 6, 7, 8), square(20, 6, 6, 8))
    assert counts.contours[1].tolist() == [28, 28]
    assert counts.near[:, 1].tolist() == [[14, 14], [28, 28]]
    assert counts.f_score()[:, 1].tolist() == [0.5, 1.0]


def test_errors_near_contours_equal_a_manual_calculation():
    """In a true square of side 10, 2x2 pixels in the middle and one corner are predicted as 0.

    The middle is 4 pixels inside, the corner in the band of width 3: 1 of 5 errors is near.
    """
    truth = square(30, 10, 10, 10)
    pred = truth.copy()
    pred[14:16, 14:16] = 0
    pred[10, 10] = 0
    counts = BoundaryCounts(2, widths=(3, 5))
    counts.update(pred, truth)
    row = counts.summary(["a", "b"])["3"]["classes"][1]
    assert (row["errors_near"], row["errors_inside"], row["share_of_errors"]) == (1, 4, 0.2)
    assert counts.summary(["a", "b"])["5"]["share_of_errors"] == 1.0


def test_the_image_border_counts_only_in_boundary_iou():
    ids = np.zeros((9, 9), np.uint8)
    counts = BoundaryCounts(1, widths=(2,))
    counts.update(ids, ids)
    assert counts.bands[0, 0].tolist() == [56, 56, 56]
    assert counts.pixels_near.sum() == counts.contours.sum() == 0


def test_an_edge_to_ignored_pixels_is_not_a_contour():
    ids = np.zeros((9, 9), np.uint8)
    ids[:, 5:] = IGNORE_INDEX
    assert not band(ids, 2).any()
    ids[0, 0] = 1
    assert np.argwhere(band(ids, 1)).tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]


def eroded_away(ids, label, width, border):
    """Return the pixels of a class that erosion removes; ignored pixels count as the class."""
    allowed = (ids == label) | (ids == IGNORE_INDEX)
    inside = ndimage.binary_erosion(
        allowed, np.ones((3, 3)), iterations=width, border_value=not border
    )
    return (ids == label) & ~inside


@pytest.mark.parametrize("seed", range(4))
def test_counts_equal_erosions_and_distances_class_by_class(seed):
    pred, truth = blobs(seed, void=False), blobs(seed + 100)
    counts = BoundaryCounts(4)
    counts.update(pred, truth)
    pred = np.where(truth == IGNORE_INDEX, IGNORE_INDEX, pred)
    for label, (index, width) in itertools.product(range(4), enumerate(WIDTHS)):
        ours, theirs = (eroded_away(ids, label, width, True) for ids in (pred, truth))
        expected = [(ours & theirs).sum(), theirs.sum(), ours.sum()]
        assert counts.bands[index, label].tolist() == expected
        near, wrong = eroded_away(truth, label, width, False), (truth == label) & (pred != label)
        assert counts.pixels_near[index, label] == near.sum()
        assert counts.wrong_near[index, label] == (near & wrong).sum()
        assert (counts.pixels[label], counts.wrong[label]) == ((truth == label).sum(), wrong.sum())
    for label in range(4):
        edges = [eroded_away(ids, label, 1, False) for ids in (pred, truth)]
        assert counts.contours[label].tolist() == [edge.sum() for edge in edges]
        for index, width in enumerate(counts.widths):
            for side in (0, 1):
                distance = ndimage.distance_transform_edt(~edges[1 - side])
                near = (distance[edges[side]] <= width).sum() if edges[1 - side].any() else 0
                assert counts.near[index, label, side] == near


def test_a_perfect_prediction_scores_1_and_an_absent_class_has_no_score():
    truth = blobs(1, num_classes=3)
    counts = BoundaryCounts(4)
    counts.update(np.where(truth == IGNORE_INDEX, 0, truth).astype(np.uint8), truth)
    *present, absent = counts.summary("abcd")["5"]["classes"]
    assert {(row["iou"], row["f_score"]) for row in present} == {(1.0, 1.0)}
    assert (absent["iou"], absent["f_score"], absent["errors_near"]) == (None, None, 0)


@pytest.mark.parametrize("label", [2, IGNORE_INDEX])
def test_an_invalid_id_is_refused_unless_the_truth_is_ignored(label):
    pred, truth = np.full((3, 4), label, np.uint8), np.zeros((3, 4), np.uint8)
    counts = BoundaryCounts(2)
    with pytest.raises(ValueError, match=rf"invalid class id {label}: expected 0\.\.1"):
        counts.update(pred, truth)
    counts.update(pred, np.full((3, 4), IGNORE_INDEX, np.uint8))
    assert counts.pixels.sum() == 0
    block = counts.summary("ab")["3"]
    assert {block[key] for key in block if key != "classes"} == {None}
