"""Exploration of predictions in Jupyter: browse images, compare runs."""

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
from hrseg.evaluation.results import Evaluation, ImageRecord, open_evaluation, record
from hrseg.inference.predictor import Predictor, load
from hrseg.metrics.confusion import mean_iou
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.registry import find
from hrseg.visualize import colorize, error_map, legend, side_by_side

Array = NDArray[np.uint8]
Change = tuple[str, float | None, float | None]

SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
# Okabe and Ito's blue and vermilion, distinct for colour-blind readers.
BETTER, WORSE = (0, 114, 178), (213, 94, 0)
_BOTH_WRONG, _BOTH_RIGHT, _VOID = (120, 120, 120), (235, 235, 235), (0, 0, 0)


def image_miou(seen: ImageRecord) -> float:
    """Return the mean IoU over the classes that occur in an image, in truth or prediction."""
    num_classes = 1 + max((k for pair in seen.counts for k in pair[:2]), default=0)
    return mean_iou(torch.from_numpy(seen.matrix(num_classes)))


def rank(evaluation: Evaluation, truth: str | None = None, pred: str | None = None) -> list[str]:
    """Return the names of images, those with the lowest mIoU first.

    With a class `truth` those with most wrong pixels of it come first, others are left out. With a
    class `pred` only pixels of `truth` that are taken for it count.

    Raises:
        ConfigError: an unknown class.
    """
    records = evaluation.records
    if truth is None:
        return [seen.name for seen in sorted(records, key=image_miou)]
    ids = {name: k for k, name in enumerate(evaluation.class_names)}
    true_id = find(ids, truth, "class")
    pred_id = None if pred is None else find(ids, pred, "class")

    def pixels(seen: ImageRecord) -> int:
        pairs = {(t, p): count for t, p, count in seen.counts if t != p}
        if pred_id is not None:
            return pairs.get((true_id, pred_id), 0)
        return sum(count for pair, count in pairs.items() if true_id in pair)

    return [seen.name for seen in sorted(records, key=pixels, reverse=True) if pixels(seen)]


def confusions(evaluation: Evaluation, count: int = 10) -> list[tuple[str, str, int]]:
    """Return the largest confusions: (true class, predicted class, pixels), the largest first."""
    matrix = np.array(evaluation.scores["confusion_matrix"])
    np.fill_diagonal(matrix, 0)
    largest = np.argsort(matrix, axis=None)[::-1][:count]
    names = evaluation.class_names
    pairs = ((int(i) // len(names), int(i) % len(names)) for i in largest)
    return [(names[t], names[p], int(matrix[t, p])) for t, p in pairs if matrix[t, p]]


def panels(evaluation: Evaluation, name: str, pred: Array | None = None) -> Array:
    """Return image | truth | prediction | errors with a legend, RGB uint8.

    `pred` is another prediction (H, W) to show instead.
    """
    truth = evaluation.truth(name)
    pred = evaluation.pred(name) if pred is None else pred
    drawn = [colorize(ids, evaluation.palette) for ids in (truth, pred)]
    row = side_by_side(
        [evaluation.image(name), *drawn, error_map(truth, pred)],
        ["image", "truth", "prediction", "errors"],
    )
    classes = [k for k in np.union1d(truth, pred).tolist() if k < len(evaluation.class_names)]
    names = [evaluation.class_names[k] for k in classes]
    colors = [evaluation.palette[k] for k in classes]
    return np.vstack([row, legend(names, colors, row.shape[1])])


def compare(first: Evaluation, second: Evaluation) -> tuple[list[Change], list[Change]]:
    """Return the changes (name, before, after) of two evaluations of the same images.

    Those of the IoU of each class, None if it never occurs; and of the mIoU of each image, the
    largest loss first.

    Raises:
        ConfigError: other classes or images.
    """
    images = [[seen.name for seen in evaluation.records] for evaluation in (first, second)]
    for kind, ours, theirs in (
        ("classes", first.class_names, second.class_names),
        ("images", *images),
    ):
        if ours != theirs:
            odd = sorted(set(ours) ^ set(theirs))[:3]
            raise ConfigError(
                f"{first.folder} and {second.folder} evaluated other {kind}"
                f"{', e.g. ' + ', '.join(odd) if odd else ''}.\n"
                "Validate both by the same config to compare them."
            )
    rows = zip(first.scores["classes"], second.scores["classes"], strict=True)
    pairs = zip(first.records, second.records, strict=True)
    mious = [(a.name, image_miou(a), image_miou(b)) for a, b in pairs]
    return (
        [(a["name"], a["iou"], b["iou"]) for a, b in rows],
        [*sorted(mious, key=lambda row: row[2] - row[1])],
    )


def changes(first: Evaluation, second: Evaluation, name: str) -> Array:
    """Return a picture, RGB: blue the second evaluation corrects, orange it breaks the first.

    Light grey: right in both; dark grey: wrong in both; black: ignored.
    """
    truth = first.truth(name)
    was, now = first.pred(name) == truth, second.pred(name) == truth
    colors = np.array([_BOTH_WRONG, BETTER, WORSE, _BOTH_RIGHT, _VOID], np.uint8)
    return np.asarray(colors[np.where(truth == IGNORE_INDEX, 4, 2 * was + now)], np.uint8)


def browse(run: str | Path, other: str | Path | None = None) -> "Browser":
    """Return a widget that shows the images of a run, or of two; folders as of `open_evaluation`.

    Raises:
        ConfigError: no evaluation, evaluations of other images, or ipywidgets is missing.
    """
    try:
        import ipywidgets  # noqa: F401
    except ImportError as error:
        raise ConfigError('browse needs ipywidgets: pip install "hrseg[notebook]"') from error
    return Browser(open_evaluation(run), open_evaluation(other) if other else None)


class Browser:
    """Widget to choose a class or a confusion, walk through the images, and try other scales.

    Its attributes are the widgets, so that code can set them. With one of `scales` or `flip` ticked
    the image is predicted again.
    """

    def __init__(self, evaluation: Evaluation, other: Evaluation | None = None) -> None:
        """Build the widgets and show the worst image."""
        import ipywidgets as widgets

        if other is not None:
            compare(evaluation, other)
        self.evaluation, self.other = evaluation, other
        names = evaluation.class_names
        self.truth = widgets.Dropdown(options=["all classes", *names], description="class")
        self.pred = widgets.Dropdown(options=["anything", *names], description="taken for")
        self.position = widgets.IntSlider(0, 0, 0, description="image", continuous_update=False)
        narrow = widgets.Layout(width="auto")
        *self.scales, self.flip = (
            widgets.Checkbox(False, description=text, indent=False, layout=narrow)
            for text in (*(f"x{scale:g}" for scale in SCALES), "flip")
        )
        self.caption, self.picture = widgets.HTML(), widgets.Image(format="png")
        self.picture.layout.max_width = "100%"
        chosen = [self.truth, self.pred, self.position]
        tried = [widgets.HTML("predict again:"), *self.scales, self.flip]
        rows = [widgets.HBox(chosen), widgets.HBox(tried), self.caption, self.picture]
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
        """The network of the run, loaded on the first use."""
        return load(self.evaluation.checkpoint)

    @property
    def name(self) -> str | None:
        """The displayed image; None if no image has the confusion."""
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
            self.caption.value, self.picture.value = "no image carries this confusion", b""
            return
        lines, pred = [self._stored(self.evaluation, name)], None
        scales = [scale for scale, box in zip(SCALES, self.scales, strict=True) if box.value]
        flip = self.flip.value
        try:
            if scales or flip:
                scales = scales or [1.0]
                predictor = self.predictor.with_protocol(scales=tuple(scales), flip=flip)
                pred = predictor.segment(np.ascontiguousarray(self.evaluation.image(name))).mask
                miou = image_miou(record(name, pred, self.evaluation.truth(name)))
                shown = ", ".join([*(f"{scale:g}" for scale in scales), *["flip"] * flip])
                lines.append(f"at scales {shown}: mIoU {miou:.2%}")
            pictures = [panels(self.evaluation, name, pred)]
            if self.other:
                lines.append(self._stored(self.other, name))
                changed = changes(self.evaluation, self.other, name)
                pictures += [panels(self.other, name)]
                pictures += [side_by_side([changed], ["blue: mended, orange: broken"])]
            self.picture.value = _png(pictures)
        except HrsegError as error:
            lines.append(str(error))
        self.caption.value = "<br>".join(html.escape(line) for line in lines)

    def _stored(self, evaluation: Evaluation, name: str) -> str:
        seen = next(r for r in evaluation.records if r.name == name)
        number = f"{self.position.value + 1} of {len(self.ranked)}"
        return f"{name} ({number}), {evaluation.folder.name}: mIoU {image_miou(seen):.2%}"


def _png(pictures: Sequence[Array]) -> bytes:
    """Return pictures below each other as a PNG file."""
    width = max(picture.shape[1] for picture in pictures)
    widths = [((0, 0), (0, width - picture.shape[1]), (0, 0)) for picture in pictures]
    padded = [np.pad(p, w, constant_values=255) for p, w in zip(pictures, widths, strict=True)]
    stream = io.BytesIO()
    Image.fromarray(np.vstack(padded)).save(stream, "PNG")
    return stream.getvalue()
