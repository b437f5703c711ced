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
        DataError: an image's truth or mask is missing, or they do not fit each other.
    """
    names, counts = evaluation.class_names, evaluation.matrices()
    boundary = BoundaryCounts(len(names))
    for seen in track(evaluation.records, len(evaluation.records), "contours"):
        pred, truth = evaluation.pred(seen.name), evaluation.truth(seen.name)
        try:
            boundary.update(pred, truth)
        except ValueError as error:
            raise DataError(
                f"{evaluation.mask_path(seen.name)} does not fit its truth: {error}.\n"
                "The mask or the data set has changed since; `hrseg validate` evaluates again."
            ) from error
    evaluation.scores["details"] = details = {
        "boundary": boundary.summary(names),
        "image_iou": image_iou(counts, names),
        "bootstrap": bootstrap(counts, names, evaluation.scores["absent_classes"]),
    }
    write_json(evaluation.folder / "scores.json", evaluation.scores)
    _show(details, evaluation.scores)


def _show(details: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    at3, at5, at9 = (details["boundary"][width] for width in ("3", "5", "9"))
    between = _between(details["bootstrap"]["miou"])
    spread = details["image_iou"]
    echo(
        f"mIoU {percent(scores['miou'])}, 95 % interval {between}; "
        f"images: median {percent(spread['median'])}, half of them {percent(spread['q1'])} to "
        f"{percent(spread['q3'])}, worst {percent(spread['min'])}"
    )
    table = Table("class", title="contours", title_justify="left")
    for header in ("IoU", "95 %", "IoU\n3 px", "IoU\n9 px", "F\n3 px", "errors\nin 5 px"):
        table.add_column(header, justify="right")
    for k, row in enumerate(scores["classes"]):
        interval = _between(details["bootstrap"]["classes"][k]["iou"])
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
