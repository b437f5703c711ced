"""Analysis of an evaluation: boundary scores, distribution over images, confidence intervals."""

from collections.abc import Mapping, Sequence
from typing import Any

from rich import get_console
from rich.markup import escape
from rich.table import Table

from hrseg.errors import DataError
from hrseg.evaluation.results import Evaluation
from hrseg.metrics.bootstrap import bootstrap, image_iou
from hrseg.metrics.boundary import BoundaryCounts
from hrseg.utils.console import echo, track
from hrseg.utils.files import write_json
from hrseg.utils.text import percent


def write_details(evaluation: Evaluation) -> None:
    """Add `details` to an evaluation's scores.json, and print them.

    Raises:
        DataError: a true or predicted mask is missing, or the two do not fit each other.
    """
    names, counts = evaluation.class_names, evaluation.matrices()
    boundary = BoundaryCounts(len(names))
    for record in track(evaluation.records, len(evaluation.records), "contours"):
        pred, truth = evaluation.pred(record.name), evaluation.truth(record.name)
        try:
            boundary.update(pred, truth)
        except ValueError as error:
            raise DataError(
                f"{evaluation.mask_path(record.name)} does not fit its true mask: {error}.\n"
                "Expected: the masks and the data set of the evaluation, unchanged. "
                "Fix: hrseg validate"
            ) from error
    evaluation.scores["details"] = details = {
        "boundary": boundary.summary(names),
        "image_iou": image_iou(counts, names),
        "bootstrap": bootstrap(counts, names, evaluation.scores["absent_classes"]),
    }
    write_json(evaluation.folder / "scores.json", evaluation.scores)
    _print_details(details, evaluation.scores)


def _print_details(details: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    at3, at5, at9 = (details["boundary"][width] for width in ("3", "5", "9"))
    miou_interval = _interval(details["bootstrap"]["miou"])
    images = details["image_iou"]
    echo(
        f"mIoU {percent(scores['miou'])}, 95 % interval {miou_interval}; "
        f"images: median {percent(images['median'])}, quartiles {percent(images['q1'])} and "
        f"{percent(images['q3'])}, worst {percent(images['min'])}"
    )
    table = Table("class", title="contours", title_justify="left")
    for header in ("IoU", "95 %", "IoU\n3 px", "IoU\n9 px", "F\n3 px", "errors\nin 5 px"):
        table.add_column(header, justify="right")
    for k, row in enumerate(scores["classes"]):
        interval = _interval(details["bootstrap"]["classes"][k]["iou"])
        class3, class5, class9 = (block["classes"][k] for block in (at3, at5, at9))
        values = (class3["iou"], class9["iou"], class3["f_score"], class5["share_of_errors"])
        table.add_row(escape(row["name"]), percent(row["iou"]), interval, *map(percent, values))
    table.add_section()
    means = (at3["mean_iou"], at9["mean_iou"], at3["mean_f_score"])
    cells = (percent(scores["miou"]), miou_interval, *map(percent, means))
    table.add_row("mean", *cells, style="bold")
    table.add_row("all pixels", *[""] * 5, percent(at5["share_of_errors"]))
    get_console().print(table)


def _interval(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(percent, interval))
