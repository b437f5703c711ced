"""Markdown table of camvid_drives.py: mIoU per drive, and IoU per class over the drives."""

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

RESULTS = Path(__file__).parent / "results/camvid_drives.json"
DRIVES = ("0001TP", "0006R0", "0016E5")


def published() -> str:
    """Return the tables of the published runs, for the documentation."""
    runs = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.is_file() else []
    return markdown(runs) if runs else "*No run is finished yet.*"


def markdown(runs: Sequence[dict[str, Any]]) -> str:
    """Return the table of mIoU per drive and the table of IoU per class, in %."""
    tables = [miou_rows(runs), class_rows(runs)]
    return "\n\n".join("\n".join(f"| {' | '.join(row)} |" for row in rows) for rows in tables)


def miou_rows(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row per config and seed: mIoU of each drive, and their mean if none is missing."""
    rows = [["config", "seed", "epochs", *DRIVES, "mean"]]
    rows.append(["---"] * len(rows[0]))
    for name, seed in dict.fromkeys((run["name"], run["seed"]) for run in runs):
        group = {run["drive"]: run for run in runs if (run["name"], run["seed"]) == (name, seed)}
        values = [group[drive]["miou"] if drive in group else None for drive in DRIVES]
        epochs = next(iter(group.values()))["epochs"]
        rows.append([
            f"`{name}`", str(seed), str(epochs), *map(percent, values),
            percent(None if None in values else mean(values)),
        ])  # fmt: skip
    return rows


def class_rows(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row per class: IoU of each config, the mean over its drives and seeds."""
    names = list(dict.fromkeys(run["name"] for run in runs))
    rows = [["class", *(f"`{name}`" for name in names)], ["---"] * (1 + len(names))]
    for label in dict.fromkeys(label for run in runs for label in run["classes"]):
        cells = []
        for name in names:
            ious = [run["classes"].get(label) for run in runs if run["name"] == name]
            present = [iou for iou in ious if iou is not None]
            cells.append(percent(mean(present) if present else None))
        rows.append([label, *cells])
    return rows


def percent(value: float | None) -> str:
    """Return a score of 0..1 in %; "-" for None."""
    return "-" if value is None else f"{100 * value:.1f}"
