"""Jupyter widgets and pictures to explore predictions and compare runs."""

import html
import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hrseg.errors import ConfigError, HrsegError
from hrseg.evaluation.results import Evaluation, ImageRecord, make_record, open_evaluation
from hrseg.inference.predictor import Predictor, load
from hrseg.metrics.confusion import mean_iou
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.registry import find
from hrseg.utils.text import some
from hrseg.visualize import colorize, error_map, legend, side_by_side

Array = NDArray[np.uint8]
Change = tuple[str, float | None, float | None]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Okabe and Ito's blue and vermilion, distinct for colour-blind readers.
BETTER, WORSE = (0, 114, 178), (213, 94, 0)
_BOTH_WRONG, _BOTH_RIGHT, _VOID = (120, 120, 120), (235, 235, 235), (0, 0, 0)


def image_miou(record: ImageRecord) -> float:
    """Return the mean IoU of an image over the classes of its true and its predicted mask."""
    num_classes = 1 + max((k for pair in record.counts for k in pair[:2]), default=0)
    return mean_iou(torch.from_numpy(record.matrix(num_classes)))


def rank(evaluation: Evaluation, truth: str | None = None, pred: str | None = None) -> list[str]:
    """Return the names of images, the worst first.

    Args:
        evaluation: the images.
        truth: a class, to rank images by its wrong pixels and omit those without; default: rank
            all images by mIoU.
        pred: a class, to count only pixels of `truth` that are predicted as this class.

    Raises:
        ConfigError: an unknown class.
    """
    records = evaluation.records
    if truth is None:
        return [record.name for record in sorted(records, key=image_miou)]
    ids = {name: k for k, name in enumerate(evaluation.class_names)}
    true_id = find(ids, truth, "class")
    pred_id = None if pred is None else find(ids, pred, "class")

    def pixels(record: ImageRecord) -> int:
        pairs = {(t, p): count for t, p, count in record.counts if t != p}
        if pred_id is not None:
            return pairs.get((true_id, pred_id), 0)
        return sum(count for pair, count in pairs.items() if true_id in pair)

    return [image.name for image in sorted(records, key=pixels, reverse=True) if pixels(image)]


def confusions(evaluation: Evaluation, count: int = 10) -> list[tuple[str, str, int]]:
    """Return the `count` largest confusions as (true class, predicted class, pixels), sorted."""
    matrix = np.array(evaluation.scores["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    largest = np.argsort(matrix, axis=None)[::-1][:count]
    names = evaluation.class_names
    pairs = ((int(i) // len(names), int(i) % len(names)) for i in largest)
    return [(names[t], names[p], int(matrix[t, p])) for t, p in pairs if matrix[t, p]]


def panels(evaluation: Evaluation, name: str, pred: Array | None = None) -> Array:
    """Return a picture of image, truth, prediction and errors with a legend, RGB uint8.

    `pred` are ids (H, W) to show in place of the stored prediction.
    """
    truth = evaluation.truth(name)
    pred = evaluation.pred(name) if pred is None else pred
    masks = [colorize(ids, evaluation.palette) for ids in (truth, pred)]
    row = side_by_side(
        [evaluation.image(name), *masks, error_map(truth, pred)],
        ["image", "truth", "prediction", "errors"],
    )
    classes = [k for k in np.union1d(truth, pred).tolist() if k < len(evaluation.class_names)]
    names = [evaluation.class_names[k] for k in classes]
    colors = [evaluation.palette[k] for k in classes]
    return np.vstack([row, legend(names, colors, row.shape[1])])


def compare(first: Evaluation, second: Evaluation) -> tuple[list[Change], list[Change]]:
    """Return the changes between two evaluations of the same images.

    Returns:
        (name, before, after) for the IoU of each class, None if it never occurs; the same for the
        mIoU of each image, the largest loss first.

    Raises:
        ConfigError: the classes or images differ.
    """
    images = [[record.name for record in evaluation.records] for evaluation in (first, second)]
    for kind, names1, names2 in (
        ("classes", first.class_names, second.class_names),
        ("images", *images),
    ):
        if names1 != names2:
            only = sorted(set(names1) ^ set(names2))
            raise ConfigError(
                f"{first.folder} and {second.folder} have different {kind}"
                f"{': ' + some(only) if only else ''}.\n"
                "Expected: evaluations of the same images. Fix: validate both with the same config."
            )
    rows = zip(first.scores["classes"], second.scores["classes"], strict=True)
    pairs = zip(first.records, second.records, strict=True)
    mious = [(a.name, image_miou(a), image_miou(b)) for a, b in pairs]
    return (
        [(a["name"], a["iou"], b["iou"]) for a, b in rows],
        [*sorted(mious, key=lambda row: row[2] - row[1])],
    )


def changes(first: Evaluation, second: Evaluation, name: str) -> Array:
    """Return a picture of the changes from the first to the second evaluation, RGB (H, W, 3).

    Blue pixels are corrected, orange pixels broken, light grey pixels correct in both, dark grey
    pixels wrong in both, black pixels ignored.
    """
    truth = first.truth(name)
    before, after = first.pred(name) == truth, second.pred(name) == truth
    colors = np.array([_BOTH_WRONG, BETTER, WORSE, _BOTH_RIGHT, _VOID], np.uint8)
    return np.asarray(colors[np.where(truth == IGNORE_INDEX, 4, 2 * before + after)], np.uint8)


def browse(run: str | Path, other: str | Path | None = None) -> "Browser":
    """Return a widget that shows the images of one run, or compares them with another run.

    `run` and `other` are folders as in `open_evaluation`.

    Raises:
        ConfigError: a missing evaluation, evaluations of different images, or ipywidgets is
            missing.
    """
    try:
        import ipywidgets  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            'browse needs ipywidgets, which is not installed.\nFix: pip install "hrseg[notebook]"'
        ) from error
    return Browser(open_evaluation(run), open_evaluation(other) if other else None)


class Browser:
    """Widget to select a class or a confusion, browse the images, and predict at other scales.

    If one of `scales` or `flip` is selected, the image is predicted again. Code can set the value
    of every widget.

    Attributes:
        truth: the true class.
        pred: the predicted class.
        position: the index in `ranked`.
        scales: a checkbox per scale of SCALES.
        flip: the checkbox of the mirror image.
        caption: name and scores of the image.
        picture: the image, its masks and its errors.
        ranked: the names of the selected images, the worst first.
    """

    def __init__(self, evaluation: Evaluation, other: Evaluation | None = None) -> None:
        import ipywidgets as widgets

        if other is not None:
            compare(evaluation, other)
        self.evaluation, self.other = evaluation, other
        names = evaluation.class_names
        self.truth = widgets.Dropdown(options=["all classes", *names], description="class")
        self.pred = widgets.Dropdown(options=["any class", *names], description="predicted as")
        self.position = widgets.IntSlider(0, 0, 0, description="image", continuous_update=False)
        narrow = widgets.Layout(width="auto")
        *self.scales, self.flip = (
            widgets.Checkbox(False, description=text, indent=False, layout=narrow)
            for text in (*(f"x{scale:g}" for scale in SCALES), "flip")
        )
        self.caption, self.picture = widgets.HTML(), widgets.Image(format="png")
        self.picture.layout.max_width = "100%"
        selection = [self.truth, self.pred, self.position]
        protocol = [widgets.HTML("predict again:"), *self.scales, self.flip]
        rows = [widgets.HBox(selection), widgets.HBox(protocol), self.caption, self.picture]
        self.box = widgets.VBox(rows)
        for widget in (self.truth, self.pred):
            widget.observe(self._rank, "value")
        for widget in (self.position, *self.scales, self.flip):
            widget.observe(self._show, "value")
        self.ranked: list[str] = []
        self._rank()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of the run, loaded on first use."""
        return load(self.evaluation.checkpoint)

    @property
    def name(self) -> str | None:
        """Name of the shown image; None if no image contains the confusion."""
        return self.ranked[self.position.value] if self.ranked else None

    def _rank(self, change: Any = None) -> None:
        truth = self.truth.value if self.truth.index else None
        pred = self.pred.value if truth and self.pred.index else None
        self.ranked = rank(self.evaluation, truth, pred)
        self.position.max = max(0, len(self.ranked) - 1)
        self.position.value = 0
        self._show()

    def _show(self, change: Any = None) -> None:
        name = self.name
        if name is None:
            self.caption.value, self.picture.value = "no image contains this confusion", b""
            return
        lines, pred = [self._stored(self.evaluation, name)], None
        scales = [scale for scale, box in zip(SCALES, self.scales, strict=True) if box.value]
        flip = self.flip.value
        try:
            if scales or flip:
                scales = scales or [1.0]
                predictor = self.predictor.with_protocol(scales=tuple(scales), flip=flip)
                pred = predictor.segment(np.ascontiguousarray(self.evaluation.image(name))).mask
                miou = image_miou(make_record(name, pred, self.evaluation.truth(name)))
                settings = ", ".join([*(f"{scale:g}" for scale in scales), *["flip"] * flip])
                lines.append(f"at scales {settings}: mIoU {miou:.2%}")
            pictures = [panels(self.evaluation, name, pred)]
            if self.other:
                lines.append(self._stored(self.other, name))
                change_map = changes(self.evaluation, self.other, name)
                pictures += [panels(self.other, name)]
                pictures += [side_by_side([change_map], ["blue: corrected, orange: broken"])]
            self.picture.value = _png(pictures)
        except HrsegError as error:
            lines.append(str(error))
        self.caption.value = "<br>".join(html.escape(line) for line in lines)

    def _stored(self, evaluation: Evaluation, name: str) -> str:
        record = next(r for r in evaluation.records if r.name == name)
        number = f"{self.position.value + 1} of {len(self.ranked)}"
        return f"{name} ({number}), {evaluation.folder.name}: mIoU {image_miou(record):.2%}"


def _png(pictures: Sequence[Array]) -> bytes:
    """Return the bytes of a PNG of pictures, one below the other."""
    width = max(picture.shape[1] for picture in pictures)
    widths = [((0, 0), (0, width - picture.shape[1]), (0, 0)) for picture in pictures]
    padded = [np.pad(p, w, constant_values=255) for p, w in zip(pictures, widths, strict=True)]
    stream = io.BytesIO()
    Image.fromarray(np.vstack(padded)).save(stream, "PNG")
    return stream.getvalue()
