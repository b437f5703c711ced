"""Analysis of an evaluation: boundary scores, distribution over images, confidence intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.errors import DataError
from hrseg.evaluation.results import Evaluation, ImageRecord
from hrseg.metrics.bootstrap import bootstrap, image_iou
from hrseg.metrics.boundary import BoundaryCounts
from hrseg.utils.console import say, track
from hrseg.utils.files import write_json
from hrseg.utils.text import percent

T = TypeVar("T")
Track = Callable[[Sequence[T]], Iterable[T]]


def details(
    evaluation: Evaluation, tracked: Track[ImageRecord] = lambda records: records
) -> dict[str, Any]:
    """Return what `scores["details"]` holds, as plain data.

    Args:
        evaluation: the counts and masks of each image, and its data set.
        tracked: wraps the images that are gone through, to show progress.

    Raises:
        DataError: an image's truth or mask is not there, or they do not fit each other.
    """
    boundary = BoundaryCounts(len(evaluation.class_names))
    for seen in tracked(evaluation.records):
        pred, truth = evaluation.pred(seen.name), evaluation.truth(seen.name)
        try:
            boundary.update(pred, truth)
        except ValueError as error:
            raise DataError(
                f"{evaluation.mask_path(seen.name)} does not fit its truth: {error}.\n"
                "The mask or the data set has changed since; `hrseg validate` evaluates again."
            ) from error
    counts = evaluation.matrices()
    return {
        "boundary": boundary.summary(evaluation.class_names),
        "image_iou": image_iou(counts, evaluation.class_names),
        "bootstrap": bootstrap(counts, evaluation.class_names, evaluation.scores["absent_classes"]),
    }


def write_details(evaluation: Evaluation) -> None:
    """Add the details to an evaluation's scores.json, and print them.

    Raises:
        DataError: as `details`.
    """
    tracked = partial(track, total=len(evaluation.records), description="contours")
    evaluation.scores["details"] = found = details(evaluation, tracked)
    write_json(evaluation.folder / "scores.json", evaluation.scores)
    show_details(found, evaluation.scores)


def show_details(found: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Print the details of an evaluation (`scores` is the content of scores.json)."""
    at3, at5, at9 = (found["boundary"][width] for width in ("3", "5", "9"))
    between = _between(found["bootstrap"]["miou"])
    spread = found["image_iou"]
    say(
        f"mIoU {percent(scores['miou'])}, 95 % interval {between}; "
        f"images: median {percent(spread['median'])}, half of them {percent(spread['q1'])} to "
        f"{percent(spread['q3'])}, worst {percent(spread['min'])}"
    )
    table = Table("class", title="contours", title_justify="left")
    for header in ("IoU", "95 %", "IoU\n3 px", "IoU\n9 px", "F\n3 px", "errors\nin 5 px"):
        table.add_column(header, justify="right")
    for k, row in enumerate(scores["classes"]):
        interval = _between(found["bootstrap"]["classes"][k]["iou"])
        near, inner, far = (at["classes"][k] for at in (at3, at5, at9))
        values = (near["iou"], far["iou"], near["f_score"], inner["share_of_errors"])
        table.add_row(escape(row["name"]), percent(row["iou"]), interval, *map(percent, values))
    table.add_section()
    means = (at3["mean_iou"], at9["mean_iou"], at3["mean_f_score"])
    cells = (percent(scores["miou"]), between, *map(percent, means))
    table.add_row("mean", *cells, style="bold")
    table.add_row("all pixels", *[""] * 5, percent(at5["share_of_errors"]))
    get_console().print(table)


def _between(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(percent, interval))
