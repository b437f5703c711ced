"""The images that a report shows: which, and their pictures as data URIs."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hrseg.errors import DataError, HrsegError
from hrseg.records import Evaluation
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.visualize import RIGHT_COLOR, VOID_COLOR, WRONG_COLOR, default_palette, indexed

PANEL_WIDTH = 480


def choose_images(evaluation: Evaluation, limit: int) -> list[int]:
    """Return the indices of the images to show, the most telling first.

    The image with the lowest mIoU; the worst image of every class, the worst class first; the one
    that carries most of each of the 30 largest confusions; the second worst and the best of every
    class. What is left of `limit` goes to the images with the lowest mIoU.
    """
    hit, truth, pred = np.moveaxis(evaluation.matrices(), -1, 0)
    union = truth + pred - hit
    iou = np.divide(hit, union, out=np.full(hit.shape, np.nan), where=union > 0)
    scored = [index for index, row in enumerate(union) if row.any()]
    by_miou = sorted(scored, key=lambda index: float(np.nanmean(iou[index])))
    scores = [row["iou"] for row in evaluation.scores["classes"]]
    classes = sorted((k for k, s in enumerate(scores) if s is not None), key=scores.__getitem__)
    ranked = [_from_worst(iou[:, k], union[:, k]) for k in classes if union[:, k].any()]
    first, second = [rank[0] for rank in ranked], [rank[1] for rank in ranked if rank[1:]]
    best = [rank[-1] for rank in ranked]
    wanted = by_miou[:1] + first + _carriers(evaluation, 30) + second + best + by_miou
    return list(dict.fromkeys(wanted))[: max(0, limit)]


def draw_panels(
    evaluation: Evaluation, chosen: Sequence[int]
) -> tuple[dict[int, dict[str, str]], list[HrsegError]]:
    """Return data URIs of each image, and what went wrong with the others."""
    panels, faults = {}, []
    for index in chosen:
        try:
            panels[index] = _panel(evaluation, evaluation.records[index].name)
        except HrsegError as error:
            faults.append(error)
    return panels, faults


def colors(evaluation: Evaluation) -> list[list[int]]:
    """Return the colours of the masks; without masks, colours that can be told apart."""
    try:
        return evaluation.palette
    except (DataError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return [list(color) for color in default_palette(len(evaluation.class_names))]


def _from_worst(iou: NDArray[np.float64], union: NDArray[np.int64]) -> list[int]:
    """Return the images by rising IoU of a class, without those that hold little of it.

    An image with a few pixels of a class has an IoU of chance; below the median is little.
    """
    enough = np.flatnonzero(union >= max(1, np.median(union[union > 0])))
    return sorted(enough.tolist(), key=lambda i: (float(iou[i]), -int(union[i])))


def _carriers(evaluation: Evaluation, count: int) -> list[int]:
    """Return the image that carries most of each of the `count` largest confusions."""
    most: dict[tuple[int, int], tuple[int, int]] = {}
    for index, seen in enumerate(evaluation.records):
        for truth, pred, pixels in seen.counts:
            if truth != pred and pixels > most.get((truth, pred), (0, 0))[0]:
                most[truth, pred] = (pixels, index)
    matrix = evaluation.scores["confusion_matrix"]
    largest = sorted(most, key=lambda pair: -matrix[pair[0]][pair[1]])[:count]
    return [most[pair][1] for pair in largest]


def _panel(evaluation: Evaluation, name: str) -> dict[str, str]:
    truth, pred = evaluation.truth(name), evaluation.pred(name)
    if truth.shape != pred.shape:
        raise DataError(
            f"{evaluation.mask_path(name)} is {pred.shape[1]}x{pred.shape[0]}, the truth "
            f"{truth.shape[1]}x{truth.shape[0]} (width x height).\n"
            "It was scored on another version of the data set; evaluate again."
        )
    photo = Image.fromarray(evaluation.image(name))
    photo.thumbnail((PANEL_WIDTH, 4 * PANEL_WIDTH))
    errors = np.where(truth == IGNORE_INDEX, 2, truth != pred).astype(np.uint8)
    pictures: dict[str, str] = {"image": _uri(photo, "JPEG", quality=80)}
    palettes = {"truth": (truth, colors(evaluation)), "pred": (pred, colors(evaluation))}
    palettes["errors"] = (errors, [[*RIGHT_COLOR], [*WRONG_COLOR], [*VOID_COLOR]])
    for key, (mask, palette) in palettes.items():
        small = indexed(mask, palette).resize(photo.size, Image.Resampling.NEAREST)
        pictures[key] = _uri(small, "PNG", optimize=True)
    return pictures


def _uri(picture: Image.Image, kind: str, **options: Any) -> str:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(stream.getvalue()).decode()}"
