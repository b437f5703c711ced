"""Boundary metrics: boundary IoU, boundary F-score, and distance of errors to contours."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from hrseg.metrics.confusion import number
from hrseg.utils.constants import IGNORE_INDEX

Array = NDArray[np.uint8]
Bools = NDArray[np.bool_]

WIDTHS = (3, 5, 9, 12)  # pixels: those of Gated-SCNN (arXiv 1907.05740) on Cityscapes


class BoundaryCounts:
    """Counts over all images of pixels within d pixels of each class's contours, d in `widths`.

    Boundary IoU (arXiv 2103.16562, there a mean over images): intersection over union of bands in
    truth and prediction. A band contains the pixels of a class within d pixels of its contour, by d
    erosions of its mask by 3x3; the image's border counts as a contour, but only here.

    Boundary F-score (DAVIS, CVPR 2016; Gated-SCNN, there dilations by a disk): harmonic mean of the
    share of predicted contour pixels within d pixels of a true contour of the class, and the
    reverse. A contour pixel has a pixel of another class among its eight neighbours.

    Errors near contours: wrong pixels whose square of 2 d + 1 pixels has another true class. Pixels
    whose truth is ignored count nowhere, and an edge to them is not a contour.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        self.num_classes, self.widths = num_classes, tuple(widths)
        shape = (len(self.widths), num_classes)
        # Pixels in both bands, in the truth's, in the prediction's.
        self.bands = np.zeros((*shape, 3), np.int64)
        # Contour pixels of the prediction near the truth's, and the reverse.
        self.near = np.zeros((*shape, 2), np.int64)
        self.contours = np.zeros((num_classes, 2), np.int64)
        # Scored and wrong pixels by true class, and those of them near the truth's contours.
        self.pixels, self.wrong = np.zeros((2, num_classes), np.int64)
        self.pixels_near, self.wrong_near = np.zeros((2, *shape), np.int64)

    def update(self, pred: Array, truth: Array) -> None:
        """Add an image: ids (H, W), uint8; 255 in the truth is ignored, other ids are refused."""
        if pred.shape != truth.shape:
            raise ValueError(f"pred is {pred.shape}, truth is {truth.shape}")
        scored = truth != IGNORE_INDEX
        for ids in (pred, truth):
            highest = int(ids.max(initial=0, where=scored))
            if highest >= self.num_classes:
                raise ValueError(f"id {highest}: expected 0..{self.num_classes - 1}")
        pred = np.where(scored, pred, IGNORE_INDEX).astype(np.uint8)
        wrong = (pred != truth) & scored
        self.pixels += self._count(truth[scored])
        self.wrong += self._count(truth[wrong])
        for index, width in enumerate(self.widths):
            near = band(truth, width)
            self.pixels_near[index] += self._count(truth[near])
            self.wrong_near[index] += self._count(truth[near & wrong])
            rim = border(truth.shape, width) & scored
            near_truth, near_pred = near | rim, band(pred, width) | rim
            both = near_truth & near_pred & ~wrong
            for column, ids in enumerate((truth[both], truth[near_truth], pred[near_pred])):
                self.bands[index, :, column] += self._count(ids)
        self._update_contours(pred, truth)

    def _update_contours(self, pred: Array, truth: Array) -> None:
        edges = [np.where(band(ids, 1), ids, IGNORE_INDEX) for ids in (pred, truth)]
        for side, (edge, other) in enumerate((edges, edges[::-1])):
            positions = np.flatnonzero(edge != IGNORE_INDEX)
            labels = edge.ravel()[positions]
            self.contours[:, side] += self._count(labels)
            squares = _squared_distances(edge, other, positions, max(self.widths))
            for index, width in enumerate(self.widths):
                self.near[index, :, side] += self._count(labels[squares <= width**2])

    def _count(self, ids: Array) -> NDArray[np.int64]:
        return np.bincount(ids.ravel(), minlength=256)[: self.num_classes]

    def iou(self) -> NDArray[np.float64]:
        """Return the boundary IoU (widths, K), 0..1; nan for a class that never occurs."""
        both, truth, pred = np.moveaxis(self.bands, -1, 0)
        return _ratio(both, truth + pred - both)

    def f_score(self) -> NDArray[np.float64]:
        """Return the boundary F-score (widths, K), 0..1; nan for a class without a contour."""
        precision = _ratio(self.near[..., 0], self.contours[:, 0])
        recall = _ratio(self.near[..., 1], self.contours[:, 1])
        with np.errstate(invalid="ignore"):
            f = np.nan_to_num(2 * precision * recall / (precision + recall))
        return np.where(self.contours.sum(1) > 0, f, np.nan)

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return the scores, and shares of pixels near contours, by width; None if undefined."""
        columns = {
            "iou": self.iou(),
            "f_score": self.f_score(),
            "share_of_errors": _ratio(self.wrong_near, self.wrong),
            "share_of_pixels": _ratio(self.pixels_near, self.pixels),
        }
        report = {}
        for index, width in enumerate(self.widths):
            near = self.wrong_near[index]
            report[str(width)] = {
                "mean_iou": _mean(columns["iou"][index]),
                "mean_f_score": _mean(columns["f_score"][index]),
                "share_of_errors": number(_ratio(near.sum(), self.wrong.sum())),
                "share_of_pixels": number(_ratio(self.pixels_near[index].sum(), self.pixels.sum())),
                "classes": [
                    {"name": name, "errors_near": int(near[k])}
                    | {"errors_inside": int(self.wrong[k] - near[k])}
                    | {key: number(values[index, k]) for key, values in columns.items()}
                    for k, name in enumerate(class_names)
                ],
            }
        return report


def band(ids: Array, width: int) -> Bools:
    """Return the pixels (H, W) with another class in a square of 2 * width + 1 pixels around them.

    Ignored pixels of `ids` (H, W), 255, neither are in a band nor cause one.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    void = ids == IGNORE_INDEX
    # A void pixel is never the smallest as 255, nor the largest as 0.
    low = cv2.erode(ids, square, borderType=cv2.BORDER_REPLICATE)
    high = cv2.dilate(np.where(void, 0, ids), square, borderType=cv2.BORDER_REPLICATE)
    return np.asarray((low != high) & ~void, np.bool_)


def border(shape: tuple[int, ...], width: int) -> Bools:
    """Return the pixels within `width` pixels of the image's border, (H, W)."""
    rim = np.ones(shape, np.bool_)
    rim[width : shape[0] - width, width : shape[1] - width] = False
    return rim


def _squared_distances(
    edge: Array, other: Array, positions: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """Return the squared distance of each contour pixel to the nearest one of its id in `other`.

    A distance transform per class takes three times as long. `edge` and `other` are ids (H, W) on
    contours, elsewhere 255; `positions` are the indices of the contours in the flattened `edge`.
    Beyond `limit` pixels the result is limit ** 2 + 1.
    """
    width = edge.shape[1]
    padded = np.pad(other, limit, constant_values=IGNORE_INDEX).ravel()
    stride = width + 2 * limit
    position = (positions // width + limit) * stride + positions % width + limit
    label = edge.ravel()[positions]
    squares = np.full(len(positions), limit**2 + 1)
    left = np.arange(len(positions))
    for square, down, right in _neighbours(limit):
        met = padded[position + (down * stride + right)] == label
        squares[left[met]] = square
        if met.any():
            left, position, label = left[~met], position[~met], label[~met]
    return squares


@lru_cache
def _neighbours(limit: int) -> list[tuple[int, int, int]]:
    """Return (squared distance, rows down, columns right) up to a distance, the nearest first."""
    steps = range(-limit, limit + 1)
    neighbours = [(y * y + x * x, y, x) for y in steps for x in steps]
    return sorted(step for step in neighbours if step[0] <= limit**2)


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole, np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
