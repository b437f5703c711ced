"""Near neighbours in training of the evaluated images, for the report."""

from pathlib import Path

from hrseg.data.analysis.leakage import find_leakage, read_pictures
from hrseg.errors import DataError
from hrseg.evaluation.results import Evaluation
from hrseg.training.factory import build_data
from hrseg.utils.console import note
from hrseg.utils.files import write_json

LARGEST = 5000  # training and evaluated images; more would take minutes


def write_leakage(evaluation: Evaluation) -> None:
    """Add `leakage` to an evaluation's scores.json, and print its warning.

    Nothing is added for an official split, for the training split itself, for more than 5,000
    images, and without the data set.
    """
    config = evaluation.config.data
    if "leakage" in evaluation.scores or not Path(config.root).expanduser().is_dir():
        return
    data = build_data(evaluation.config)
    if data.expected_images or data.train_split == data.val_split:
        return
    try:
        train, other = (
            [image for image, _ in data.dataset(split).files]
            for split in (data.train_split, data.val_split)
        )
    except DataError as error:
        note(f"near neighbours in training were not searched: {error}")
        return
    if len(train) + len(other) > LARGEST:
        note(f"near neighbours in training are searched in at most {LARGEST:,} images")
        return
    leakage = find_leakage(
        read_pictures(data.root, data.train_split, train),
        read_pictures(data.root, data.val_split, other),
    )
    evaluation.scores["leakage"] = leakage.summary()
    write_json(evaluation.folder / "scores.json", evaluation.scores)
    if leakage.neighbours:
        note(leakage.message())
