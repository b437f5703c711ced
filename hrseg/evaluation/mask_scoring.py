"""Scoring of mask files that exist already."""

from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import torch

from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data.masks import MaskReader, id_table
from hrseg.data.pairing import find_files
from hrseg.errors import DataError
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.training.callbacks import show_scores
from hrseg.training.factory import build_data
from hrseg.utils.console import track
from hrseg.utils.files import write_json
from hrseg.utils.text import some


def score_folders(
    config: Config,
    truth: Path,
    prediction: Path,
    out: Path | None = None,
    prediction_ids: str = "raw",
) -> dict[str, Any]:
    """Compare the masks in two folders, paired by their relative path without extension.

    Names may have the suffixes of the data set's images and masks (Cityscapes: `_leftImg8bit`,
    `_gtFine_labelIds`). Predictions may lie in one folder if no name occurs twice. The truth is
    read as the config's data set reads its masks. Predictions contain "raw" ids as the truth does,
    or "train" ids, 0..K-1, as hrseg predicts them. Print the per-class table; write it to `out` as
    JSON if given.

    Returns:
        The scores in the layout of scores.json.

    Raises:
        DataError: a prediction that is missing, of another size, or without a class where the
            truth has one.
    """
    data = build_data(config)
    read = read_prediction = data.mask_reader()
    if prediction_ids == "train":
        repair = f"Expected train ids 0..{data.num_classes - 1}; or say --prediction-ids raw."
        read_prediction = MaskReader(id_table(data.num_classes), repair)
    truths = find_files(truth, data.mask_suffix)
    if not truths:
        raise DataError(f"no masks in {truth.absolute()}: expected *{data.mask_suffix}.png files.")
    suffixes = dict.fromkeys((data.mask_suffix, data.image_suffix, ""))
    predictions = _find_predictions(prediction, truths, suffixes)
    if missing := [name for name in truths if name not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(truths)} masks in {truth} have no prediction in "
            f"{prediction}: {some(missing)}\n"
            f"Expected the same name for both, apart from {', '.join(filter(None, suffixes))}"
            f"{' and ' * any(suffixes)}the extension."
        )
    matrix = ConfusionMatrix(data.num_classes)
    for name, path in track(truths.items(), len(truths), "scoring"):
        true, pred = (
            torch.from_numpy(ids) for ids in (read(path), read_prediction(predictions[name]))
        )
        if true.shape != pred.shape:
            raise DataError(
                f"{predictions[name]} is {pred.shape[1]}x{pred.shape[0]}, its truth {path} "
                f"{true.shape[1]}x{true.shape[0]} (width x height).\nExpected the same size."
            )
        try:
            matrix.update(pred, true)
        except ValueError as error:
            raise DataError(
                f"{predictions[name]}: {error}\n"
                "A prediction must name a class wherever the truth does."
            ) from error
    protocol = make_protocol(config.inference.protocol, dict(config.inference))
    scores = summarize(matrix.compute(), data.class_names, protocol.absent_classes)
    scores["images"] = len(truths)
    show_scores(scores)
    if out is not None:
        write_json(out, scores)
    return scores


def _find_predictions(
    folder: Path, truths: Collection[str], suffixes: Iterable[str]
) -> dict[str, Path]:
    """Return predictions by their names without a suffix, and by those of their truths."""
    predictions: dict[str, Path] = {}
    for suffix in suffixes:
        predictions.update(find_files(folder, suffix))
    whole_names = {PurePosixPath(name).name: name for name in truths}
    if len(whole_names) == len(truths):
        flat = {
            whole_names[name]: path for name, path in predictions.items() if name in whole_names
        }
        predictions = flat | predictions
    return predictions
