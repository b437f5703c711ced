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

WIDTHS = (3, 5, 9, 12)  # pixels, as in Gated-SCNN (arXiv 1907.05740) on Cityscapes


class BoundaryCounts:
    """Pixel counts over all images within d pixels of each class's contours, for d in `widths`.

    Boundary IoU (arXiv 2103.16562, which averages over images) is the intersection over union of
    bands in truth and prediction. A band contains the pixels of a class that d erosions of its
    mask by 3x3 remove. Only for this score, the image border counts as a contour.

    Boundary F-score (DAVIS, CVPR 2016; Gated-SCNN, which dilates by a disk) is the harmonic mean of
    precision and recall. Precision is the share of predicted contour pixels within d pixels of a
    true contour of the class; recall is the reverse. A contour pixel has a pixel of another class
    among its eight neighbours.

    Errors near contours are wrong pixels with another true class in their square of 2 d + 1 pixels.
    Pixels with ignored truth are not counted, and an edge to them is not a contour.
    """

    def __init__(self, num_classes: int, widths: Sequence[int] = WIDTHS) -> None:
        self.num_classes, self.widths = num_classes, tuple(widths)
        shape = (len(self.widths), num_classes)
        # Pixels in both bands, in the truth's band, and in the prediction's band.
        self.bands = np.zeros((*shape, 3), np.int64)
        # Contour pixels of the prediction near those of the truth, and the reverse.
        self.near = np.zeros((*shape, 2), np.int64)
        self.contours = np.zeros((num_classes, 2), np.int64)
        # Scored and wrong pixels by true class; below, only those near contours of the truth.
        self.pixels, self.wrong = np.zeros((2, num_classes), np.int64)
        self.pixels_near, self.wrong_near = np.zeros((2, *shape), np.int64)

    def update(self, pred: Array, truth: Array) -> None:
        """Add an image.

        Args:
            pred: class ids (H, W), uint8.
            truth: class ids (H, W), uint8; 255 is ignored.

        Raises:
            ValueError: the shapes differ, or a scored pixel has an invalid class id.
        """
        if pred.shape != truth.shape:
            raise ValueError(
                f"pred is {pred.shape}, but truth is {truth.shape}; expected one shape"
            )
        scored = truth != IGNORE_INDEX
        for ids in (pred, truth):
            highest = int(ids.max(initial=0, where=scored))
            if highest >= self.num_classes:
                raise ValueError(
                    f"the invalid class id {highest}: expected 0..{self.num_classes - 1}, or "
                    f"{IGNORE_INDEX} in the truth for ignored pixels"
                )
        pred = np.where(scored, pred, IGNORE_INDEX).astype(np.uint8)
        wrong = (pred != truth) & scored
        self.pixels += self._count(truth[scored])
        self.wrong += self._count(truth[wrong])
        for index, width in enumerate(self.widths):
            near = band(truth, width)
            self.pixels_near[index] += self._count(truth[near])
            self.wrong_near[index] += self._count(truth[near & wrong])
            margin = border(truth.shape, width) & scored
            near_truth, near_pred = near | margin, band(pred, width) | margin
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
        """Return the boundary IoU (widths, K), 0..1; NaN for absent classes."""
        both, truth, pred = np.moveaxis(self.bands, -1, 0)
        return _ratio(both, truth + pred - both)

    def f_score(self) -> NDArray[np.float64]:
        """Return the boundary F-score (widths, K), 0..1; NaN for classes without contours."""
        precision = _ratio(self.near[..., 0], self.contours[:, 0])
        recall = _ratio(self.near[..., 1], self.contours[:, 1])
        with np.errstate(invalid="ignore"):
            f = np.nan_to_num(2 * precision * recall / (precision + recall))
        return np.where(self.contours.sum(1) > 0, f, np.nan)

    def summary(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return scores and shares of pixels near contours by width; undefined ones are None."""
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
    """Return the pixels (H, W) with another class in their square of 2 * width + 1 pixels.

    Pixels of `ids` (H, W) with the ignored id 255 are neither in a band nor cause one.
    """
    square = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    ignored = ids == IGNORE_INDEX
    # An ignored pixel must be neither the minimum (so 255) nor the maximum (so 0).
    low = cv2.erode(ids, square, borderType=cv2.BORDER_REPLICATE)
    high = cv2.dilate(np.where(ignored, 0, ids), square, borderType=cv2.BORDER_REPLICATE)
    return np.asarray((low != high) & ~ignored, np.bool_)


def border(shape: tuple[int, ...], width: int) -> Bools:
    """Return a mask (H, W) of the pixels within `width` pixels of the image border."""
    margin = np.ones(shape, np.bool_)
    margin[width : shape[0] - width, width : shape[1] - width] = False
    return margin


def _squared_distances(
    edge: Array, other: Array, positions: NDArray[np.int64], limit: int
) -> NDArray[np.int64]:
    """Return the squared distance of each contour pixel to the nearest pixel of its id in `other`.

    A distance transform per class is three times as slow.

    Args:
        edge: ids (H, W) on contours, 255 elsewhere.
        other: likewise.
        positions: indices of the contour pixels in the flattened `edge`.
        limit: maximum distance in pixels; beyond it the result is limit ** 2 + 1.
    """
    width = edge.shape[1]
    padded = np.pad(other, limit, constant_values=IGNORE_INDEX).ravel()
    stride = width + 2 * limit
    position = (positions // width + limit) * stride + positions % width + limit
    label = edge.ravel()[positions]
    squares = np.full(len(positions), limit**2 + 1)
    remaining = np.arange(len(positions))
    for square, down, right in _neighbours(limit):
        matched = padded[position + (down * stride + right)] == label
        squares[remaining[matched]] = square
        if matched.any():
            remaining, position, label = (x[~matched] for x in (remaining, position, label))
    return squares


@lru_cache
def _neighbours(limit: int) -> list[tuple[int, int, int]]:
    """Return (squared distance, rows down, columns right) up to a distance, nearest first."""
    steps = range(-limit, limit + 1)
    neighbours = [(y * y + x * x, y, x) for y in steps for x in steps]
    return sorted(step for step in neighbours if step[0] <= limit**2)


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(part / whole, np.float64)


def _mean(values: NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
