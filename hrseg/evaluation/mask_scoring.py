"""Scoring of mask files that exist already."""

from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from hrseg.config.loader import to_dict
from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data.masks import MaskReader, ReadMask, id_table
from hrseg.data.pairing import find_files
from hrseg.errors import DataError
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.training.callbacks import show_scores
from hrseg.training.factory import build_data
from hrseg.utils.console import track
from hrseg.utils.files import write_json


def score_folders(
    config: Config,
    truth: Path,
    prediction: Path,
    out: Path | None = None,
    prediction_ids: str = "raw",
) -> dict[str, Any]:
    """Compare the masks in two folders, paired by their relative path without extension.

    What the data set adds to the names of its images and masks (Cityscapes: `_leftImg8bit`,
    `_gtFine_labelIds`) does not count, and predictions may lie in one folder if no name occurs
    twice. The truth is read as the config's data set reads its masks. Predictions hold "raw" ids
    as the truth does, or "train" ids, 0..K-1, as hrseg predicts them. Print the per-class table;
    write it to `out` as JSON if given.

    Returns:
        The scores in the layout of scores.json.

    Raises:
        DataError: a prediction that is missing, of another size, or without a class where the
            truth has one.
    """
    data = build_data(config)
    read, absent = data.mask_reader(), _absent_rule(config)
    read_prediction = read
    if prediction_ids == "train":
        repair = f"Expected train ids 0..{data.num_classes - 1}; or say --prediction-ids raw."
        read_prediction = MaskReader(id_table(data.num_classes), repair)
    true_files = find_files(truth, data.mask_suffix)
    if not true_files:
        raise DataError(f"no masks in {truth.absolute()}: expected *{data.mask_suffix}.png files.")
    suffixes = dict.fromkeys((data.mask_suffix, data.image_suffix, ""))
    predicted_files = _find_predictions(prediction, true_files, suffixes)
    missing = [name for name in true_files if name not in predicted_files]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(true_files)} masks in {truth} have no prediction in "
            f"{prediction}: {', '.join(missing[:3])}{', ...' * (len(missing) > 3)}\n"
            f"Expected the same name for both, apart from {', '.join(filter(None, suffixes))}"
            f"{' and ' * any(suffixes)}the extension."
        )
    matrix = ConfusionMatrix(data.num_classes)
    for name, path in track(true_files.items(), len(true_files), "scoring"):
        _add(matrix, path, read, predicted_files[name], read_prediction)
    scores = {**summarize(matrix.compute(), data.class_names, absent), "images": len(true_files)}
    show_scores(scores)
    if out is not None:
        write_json(out, scores)
    return scores


def _absent_rule(config: Config) -> str:
    return make_protocol(config.inference.protocol, to_dict(config.inference)).absent_classes


def _find_predictions(
    folder: Path, truths: Collection[str], suffixes: Iterable[str]
) -> dict[str, Path]:
    """Return predictions by their names without a suffix, and by those of their truths."""
    found: dict[str, Path] = {}
    for suffix in suffixes:
        found.update(find_files(folder, suffix))
    alone = {PurePosixPath(name).name: name for name in truths}
    if len(alone) == len(truths):
        found = {alone[name]: path for name, path in found.items() if name in alone} | found
    return found


def _add(
    matrix: ConfusionMatrix,
    truth: Path,
    read_truth: ReadMask,
    prediction: Path,
    read_prediction: ReadMask,
) -> None:
    """Count the pixels of one truth and its prediction."""
    true, pred = torch.from_numpy(read_truth(truth)), torch.from_numpy(read_prediction(prediction))
    if true.shape != pred.shape:
        raise DataError(
            f"{prediction} is {pred.shape[1]}x{pred.shape[0]}, its truth {truth} "
            f"{true.shape[1]}x{true.shape[0]} (width x height).\nExpected the same size."
        )
    try:
        matrix.update(pred, true)
    except ValueError as error:
        raise DataError(
            f"{prediction}: {error}\nA prediction must name a class wherever the truth does."
        ) from error
