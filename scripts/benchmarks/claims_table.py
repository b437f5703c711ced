"""Markdown tables of paper_claims.py: scores per variant, and a verdict per claim."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

Run = dict[str, Any]  # a finished run, as train() of paper_claims.py returns it, with its key
RESULTS = Path(__file__).parent / "results/paper_claims.json"
BUDGET = 500  # steps of the published runs
THIN = ("Pole", "SignSymbol", "Pedestrian")


class Variant(NamedTuple):
    """A network: its name in the table, and the overrides that make it from the default.

    With `equal_time` it trains for as long as the default, not for as many steps.
    """

    name: str
    overrides: tuple[str, ...] = ()
    equal_time: bool = False


# In the order of the runs of a seed.
VARIANTS = {
    "default": Variant("exchange all, output v2"),
    "final": Variant("exchange final", ("model.exchange=final",)),
    "v1": Variant("output v1", ("model.output=v1",)),
    "stages": Variant("exchange stages", ("model.exchange=stages",)),
    "v1h": Variant("output v1h", ("model.output=v1h",)),
    "stream_3": Variant("output stream_3", ("model.output=stream_3",)),
    "stream_4": Variant("output stream_4", ("model.output=stream_4",)),
    "final_time": Variant("exchange final, in equal time", ("model.exchange=final",), True),
    "v1_time": Variant("output v1, in equal time", ("model.output=v1",), True),
}
# Claim, the variant that should be better, the other one.
CLAIMS = (
    ("Fusion in all modules is better than fusion between stages", "default", "stages"),
    ("Fusion between stages is better than one fusion at the end", "stages", "final"),
    ("Fusion in all modules is better than one fusion at the end", "default", "final"),
    ("the same, in equal time", "default", "final_time"),
    ("All four streams (v2) are better than the finest one (v1)", "default", "v1"),
    ("the same, in equal time", "default", "v1_time"),
    ("All four streams (v2) are better than a widened v1 (v1h)", "default", "v1h"),
    ("Stride 4 (v1) is better than stride 16 (stream_3)", "v1", "stream_3"),
    ("Stride 16 (stream_3) is better than stride 32 (stream_4)", "stream_3", "stream_4"),
)
SCORES: dict[str, Callable[[Run], float]] = {
    "mIoU": lambda run: 100 * run["miou"],
    "boundary IoU": lambda run: 100 * run["boundary_iou"],
    "thin classes": lambda run: mean(class_iou(run, name) for name in THIN),
}


def published() -> str:
    """Return the tables of the published runs, for the documentation."""
    stored = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    runs = [run for run in stored if run["budget"] == BUDGET]
    return markdown(runs) if runs else "*No run is finished yet.*"


def markdown(runs: Sequence[Run]) -> str:
    """Return the table of the scores and the table of the claims."""
    scores = [f"| {' | '.join(row)} |" for row in score_rows(runs)]
    claims = [f"| {' | '.join(row)} |" for row in claim_rows(runs)]
    return "\n".join([*scores, "", *claims])


def score_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return a row per variant with a run: means in %, with the lowest and the highest value."""
    columns = ["variant", "seeds", "steps", "parameters, M", "GMACs", "seconds",
               "mIoU", "boundary IoU", *THIN]  # fmt: skip
    rows = [columns, ["---"] * len(columns)]
    for key, variant in VARIANTS.items():
        group = of(runs, key)
        if not group:
            continue
        thin = [[class_iou(run, name) for run in group] for name in THIN]
        rows.append([
            variant.name, str(len(group)), spread([run["steps"] for run in group], 0),
            f"{group[0]['parameters'] / 1e6:.2f}", f"{group[0]['macs'] / 1e9:.2f}",
            spread([run["seconds"] for run in group], 0),
            spread([SCORES["mIoU"](run) for run in group]),
            spread([SCORES["boundary IoU"](run) for run in group]), *map(spread, thin),
        ])  # fmt: skip
    return rows


def claim_rows(runs: Sequence[Run]) -> list[list[str]]:
    """Return a row per claim: difference of the means and verdict, for each score."""
    rows = [["claim", *SCORES], ["---"] * (1 + len(SCORES))]
    for text, better, worse in CLAIMS:
        pair = of(runs, better), of(runs, worse)
        rows.append([text, *(verdict(*pair, score) for score in SCORES.values())])
    return rows


def verdict(better: Sequence[Run], worse: Sequence[Run], score: Callable[[Run], float]) -> str:
    """Return the difference of the means in points, and whether it supports the claim.

    It supports or contradicts a claim only if no seed of one side reaches the other side.
    """
    if min(len(better), len(worse)) < 2:
        return "needs two seeds per side"
    above, below = ([score(run) for run in side] for side in (better, worse))
    word = "undecided"
    if min(above) > max(below):
        word = "supported"
    elif max(above) < min(below):
        word = "contradicted"
    return f"{mean(above) - mean(below):+.1f}, {word}"


def class_iou(run: Run, name: str) -> float:
    """Return the IoU of a class in %; 0 for a class that was neither true nor predicted."""
    return 100 * (run["classes"][name]["iou"] or 0)


def spread(values: Sequence[float], digits: int = 1) -> str:
    """Return the mean, and the lowest and the highest value if they differ."""
    low, middle, high = (f"{v:.{digits}f}" for v in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def of(runs: Sequence[Run], variant: str) -> list[Run]:
    """Return the runs of a variant."""
    return [run for run in runs if run["variant"] == variant]
