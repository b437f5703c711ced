"""Scoring of mask files that exist already."""

from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import Array
from hrseg.data.masks import MaskReader, ReadMask, id_table, stored_values
from hrseg.data.pairing import find_files
from hrseg.errors import DataError
from hrseg.inference.inputs import MANIFEST
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.training.callbacks import show_scores
from hrseg.training.factory import build_data
from hrseg.utils.console import note, track
from hrseg.utils.constants import IGNORE_INDEX
from hrseg.utils.files import read_object, write_json
from hrseg.utils.text import some


def score_folders(
    config: Config,
    truth: Path,
    prediction: Path,
    out: Path | None = None,
    prediction_ids: str | None = None,
) -> dict[str, Any]:
    """Compare the masks in two folders, paired by their relative path without extension.

    Names may have the suffixes of the data set's images and masks (Cityscapes: `_leftImg8bit`,
    `_gtFine_labelIds`). Predictions may lie in one folder if no name occurs twice. The truth is
    read as the config's data set reads its masks. Predictions contain "raw" ids as the truth does,
    or "train" ids, 0..K-1, as hrseg predicts them; None: "train" if the predict.json of
    `hrseg predict` lies beside their folder, else "raw". Print the per-class table; write it to
    `out` as JSON if given.

    Returns:
        The scores in the layout of scores.json.

    Raises:
        DataError: a prediction is missing, has another size or other classes, or lacks a
            class in pixels that the truth labels.
    """
    data = build_data(config)
    read = data.mask_reader()
    read_prediction = _prediction_reader(data, prediction, prediction_ids)
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
        unnamed = (pred == IGNORE_INDEX) & (true != IGNORE_INDEX)
        if unnamed.any():
            raise _unnamed(predictions[name], unnamed.numpy())
        matrix.update(pred, true)
    protocol = make_protocol(config.inference.protocol, dict(config.inference))
    scores = summarize(matrix.compute(), data.class_names, protocol.absent_classes)
    scores["images"] = len(truths)
    show_scores(scores)
    if out is not None:
        write_json(out, scores)
    return scores


def _prediction_reader(
    data: SegmentationDataModule, folder: Path, prediction_ids: str | None
) -> ReadMask:
    """Return the reader of the predictions in a folder by the ids that they contain."""
    manifest = folder.absolute().parent / MANIFEST
    written = read_object(manifest) if prediction_ids is None else {}
    if "sha256" in written:
        names = written.get("class_names") or []
        if names != list(data.class_names):
            raise DataError(
                f"{manifest}: the predictions have the classes {some(names)}, "
                f"the config {some(data.class_names)}.\n"
                "Expected: the same names in the same order. Fix: name their config with --config"
            )
        note(f"predictions are read as ids 0..{data.num_classes - 1}, as {manifest} records")
        prediction_ids = "train"
    if prediction_ids == "train":
        repair = "Fix for ids as the truth has them: --prediction-ids raw"
        return MaskReader(id_table(data.num_classes), repair)
    read = data.mask_reader()

    def read_raw(path: Path) -> Array:
        try:
            return read(path)
        except DataError as error:
            lines = str(error).splitlines()
            if "unknown id" not in lines[0]:
                raise
            raise DataError(
                f"{lines[0]}\nExpected: ids as the truth has them.\n"
                "Fix for positions in class_names: --prediction-ids train"
            ) from error

    return read_raw


def _unnamed(path: Path, unnamed: Array) -> DataError:
    """Return the error of ignored ids in a prediction, where `unnamed` (H, W) is true."""
    with Image.open(path) as image:
        ids = np.unique(stored_values(image)[unnamed], axis=0).tolist()
    return DataError(
        f"{path} contains {some(ids)}, which the config ignores, in {unnamed.sum()} pixels where "
        "the truth names a class.\nExpected: a class wherever the truth names one."
    )


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
