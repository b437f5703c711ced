"""Analysis of an evaluation: boundary scores, distribution over images, confidence intervals."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from rich import get_console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from hrseg.errors import DataError
from hrseg.evaluation.results import Evaluation, ImageRecord
from hrseg.metrics.boundary import BoundaryCounts
from hrseg.utils.files import write_json
from hrseg.utils.text import percent

Floats = NDArray[np.float64]
T = TypeVar("T")
Track = Callable[[Sequence[T]], Iterable[T]]

RESAMPLES = 1000
LEVEL = 0.95
_SEED = 304
_CHUNK = 2**25  # numbers held at once


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

    def tracked(records: Sequence[ImageRecord]) -> Iterable[ImageRecord]:
        quiet = not get_console().is_terminal
        return track(records, "contours", transient=True, console=get_console(), disable=quiet)

    evaluation.scores["details"] = found = details(evaluation, tracked)
    write_json(evaluation.folder / "scores.json", evaluation.scores)
    show_details(found, evaluation.scores)


def image_iou(counts: NDArray[np.int64], class_names: Sequence[str]) -> dict[str, Any]:
    """Return how the IoU is distributed over images.

    An image's mIoU is the mean over the classes that occur in it, in truth or prediction. An image
    without a scored pixel is left out.

    Args:
        counts: (N, K, 3) as `Evaluation.matrices` gives them.
        class_names: a name per class.
    """
    iou = _iou(counts)
    seen = ~np.isnan(iou)
    sums = np.where(seen, iou, 0)
    scored = seen.any(1)
    images = sums[scored].sum(1) / seen[scored].sum(1)
    quartiles = np.quantile(images, [0, 0.25, 0.5, 0.75, 1]).tolist() if len(images) else [None] * 5
    occurrences = seen.sum(0)
    return {
        **dict(zip(("min", "q1", "median", "q3", "max"), quartiles, strict=True)),
        "mean": float(images.mean()) if len(images) else None,
        "histogram": np.histogram(images, 20, (0, 1))[0].tolist(),
        "classes": [
            {"name": name, "mean": float(total / count) if count else None, "images": int(count)}
            for name, total, count in zip(class_names, sums.sum(0), occurrences, strict=True)
        ],
    }


def bootstrap(
    counts: NDArray[np.int64],
    class_names: Sequence[str],
    absent: str = "skipped",
    resamples: int = RESAMPLES,
) -> dict[str, Any]:
    """Return percentile intervals of mIoU and of each IoU over images drawn with replacement.

    They say what other images of the same kind would have given; not what another training would.
    Images are drawn as if independent: of frames of one video the intervals are too narrow.

    Args:
        counts: (N, K, 3) as `Evaluation.matrices` gives them.
        class_names: a name per class.
        absent: what a class without a pixel does to the mean, as in `metrics.mean_iou`.
        resamples: how often as many images are drawn.
    """
    generator = np.random.default_rng(_SEED)
    number, num_classes = counts.shape[:2]
    flat = counts.reshape(number, -1).astype(np.float64)
    ious = []
    step = max(1, _CHUNK // max(number, flat.shape[1]))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = generator.multinomial(number, np.full(number, 1 / number), size)
        ious.append(_iou((drawn @ flat).reshape(size, num_classes, 3)))
    iou = np.concatenate(ious)
    # As in `metrics.mean_iou`, draws that hold nothing to score have no mean by either rule.
    scored = iou[~np.isnan(iou).all(1)]
    divisor = (~np.isnan(scored)).sum(1) if absent == "skipped" else num_classes
    return {
        "level": LEVEL,
        "resamples": resamples,
        "miou": _interval(np.nansum(scored, 1) / divisor),
        "classes": [
            {"name": name, "iou": _interval(values[~np.isnan(values)])}
            for name, values in zip(class_names, iou.T, strict=True)
        ],
    }


def show_details(found: Mapping[str, Any], scores: Mapping[str, Any]) -> None:
    """Print the details of an evaluation (`scores` is the content of scores.json)."""
    at3, at5, at9 = (found["boundary"][width] for width in ("3", "5", "9"))
    between = _between(found["bootstrap"]["miou"])
    spread = found["image_iou"]
    get_console().print(
        f"mIoU {percent(scores['miou'])}, 95 % interval {between}; "
        f"images: median {percent(spread['median'])}, half of them {percent(spread['q1'])} to "
        f"{percent(spread['q3'])}, worst {percent(spread['min'])}",
        highlight=False,
        soft_wrap=True,
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


def _iou(counts: NDArray[Any]) -> Floats:
    """Return IoU (..., K) of counts (..., K, 3); nan where a class does not occur."""
    hit, truth, pred = np.moveaxis(counts, -1, 0)
    with np.errstate(invalid="ignore"):
        return np.asarray(hit / (truth + pred - hit), np.float64)


def _interval(values: Floats) -> list[float] | None:
    outside = (1 - LEVEL) / 2
    return np.quantile(values, [outside, 1 - outside]).tolist() if len(values) else None


def _between(interval: Sequence[float] | None) -> str:
    return "-" if interval is None else " to ".join(map(percent, interval))
