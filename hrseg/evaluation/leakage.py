"""Near neighbours in training of the evaluated images, for the report."""

from pathlib import Path
from typing import Any

from hrseg.data.analysis.leakage import find_leakage, read_pictures
from hrseg.errors import ConfigError, DataError
from hrseg.evaluation.results import Evaluation, open_evaluation
from hrseg.training.factory import build_data
from hrseg.utils.console import note
from hrseg.utils.files import write_json

LARGEST = 2000  # training and evaluated images; more would take minutes after a training


def write_leakage(evaluation: Evaluation) -> None:
    """Add `leakage` to an evaluation's scores.json, and print its warning.

    Nothing is added for an official split, for the training split itself, for more than 2,000
    images, and without the data set.
    """
    if "leakage" in evaluation.scores:
        return
    summary = _summary_of_run(evaluation) or _search(evaluation)
    if summary is not None:
        evaluation.scores["leakage"] = summary
        write_json(evaluation.folder / "scores.json", evaluation.scores)
        if summary["message"]:
            note(summary["message"])


def _summary_of_run(evaluation: Evaluation) -> dict[str, Any] | None:
    """Return the finding of a validation's run, if it is for the same data."""
    run = evaluation.folder.parents[1]
    if evaluation.folder.parent.name != "validate" or not (run / "images.json").is_file():
        return None
    try:
        trained = open_evaluation(run)
    except ConfigError:
        return None
    same = trained.config.data == evaluation.config.data
    return trained.scores.get("leakage") if same else None


def _search(evaluation: Evaluation) -> dict[str, Any] | None:
    if not Path(evaluation.config.data.root).expanduser().is_dir():
        return None
    data = build_data(evaluation.config)
    if data.expected_images or data.train_split == data.val_split:
        return None
    try:
        train, other = (
            [image for image, _ in data.dataset(split).files]
            for split in (data.train_split, data.val_split)
        )
    except DataError as error:
        note(f"near neighbours in training were not searched: {error}")
        return None
    if len(train) + len(other) > LARGEST:
        note(f"near neighbours in training are searched in at most {LARGEST:,} images")
        return None
    return find_leakage(
        read_pictures(data.root, data.train_split, train, data.channels),
        read_pictures(data.root, data.val_split, other, data.channels),
    ).summary()
