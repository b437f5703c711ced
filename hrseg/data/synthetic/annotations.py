"""Bounding boxes, instance masks and key points of the cars and persons of a synthetic scene."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hrseg.data.synthetic.canvas import Canvas


class SceneObject(NamedTuple):
    """Visible part of a car or a person, in pixels; pixel i covers the interval from i to i + 1.

    Attributes:
        label: class id, `canvas.Id.CAR` or `canvas.Id.PERSON`.
        mask: visible pixels, bool (H, W).
        box: left, top, right and bottom edge of the visible pixels.
        keypoints: rows (x, y, visible), float (K, 3), in the order of `objects.PERSON_KEYPOINTS`;
            a point is visible (1) or hidden or outside of the image (0). A car has none: (0, 3).
    """

    label: int
    mask: npt.NDArray[np.bool_]
    box: tuple[int, int, int, int]
    keypoints: npt.NDArray[np.float64]


def visible_objects(canvas: Canvas) -> list[SceneObject]:
    """Return the objects of a canvas that have a visible pixel, in the order of drawing."""
    numbers = canvas.numbers[1::2, 1::2]  # the pixels of `Canvas.develop`
    visible = np.unique(numbers[numbers > 0])
    return [_scene_object(canvas, int(number), numbers == number) for number in visible]


def _scene_object(canvas: Canvas, number: int, mask: npt.NDArray[np.bool_]) -> SceneObject:
    label, points = canvas.objects[number - 1]
    columns, rows = np.flatnonzero(mask.any(0)), np.flatnonzero(mask.any(1))
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    keypoints = np.zeros((len(points), 3))
    if len(points):
        # OpenCV has pixel centres at integers, and a pixel of the image covers two of the canvas.
        keypoints[:, :2] = canvas.pixels(points) / 2 + 0.25
    for keypoint in keypoints:
        column, row = np.floor(keypoint[:2]).astype(int)
        inside = 0 <= row < mask.shape[0] and 0 <= column < mask.shape[1]
        keypoint[2] = inside and mask[row, column]
    return SceneObject(label, mask, box, keypoints)
