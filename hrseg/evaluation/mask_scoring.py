"""Scoring of existing mask files against true masks."""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image

from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import Array
from hrseg.data.masks import MASK_SUFFIXES, MaskReader, ReadMask, id_table, stored_values
from hrseg.data.pairing import find_files
from hrseg.errors import DataError
from hrseg.inference.manifest import MANIFEST
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
    """Score the masks of one folder against those of another, and print the per-class table.

    Masks are paired by their relative path without extension. The suffixes of the data set's images
    and masks are ignored (Cityscapes: `_leftImg8bit`, `_gtFine_labelIds`). Predictions may be in a
    single folder if no name occurs twice.

    Args:
        config: of the data set; true masks are read as it reads them.
        truth: folder of the true masks.
        prediction: folder of the predicted masks.
        out: JSON file to write the scores to.
        prediction_ids: ids in the predicted masks: "raw" as in the true masks, or "train", 0..K-1,
            as hrseg predicts them. Default: "train" if the predict.json of `hrseg predict` is next
            to their folder, otherwise "raw".

    Returns:
        The scores in the layout of scores.json.

    Raises:
        DataError: a prediction is missing, has another size or other classes, or ignores a pixel
            that has a true class.
    """
    data = build_data(config)
    read = data.mask_reader()
    read_prediction = _prediction_reader(data, prediction, prediction_ids)
    truths = find_files(truth, data.mask_suffix, data.mask_prefix, MASK_SUFFIXES)
    if not truths:
        raise DataError(
            f"{truth.absolute()} contains no masks.\n"
            f"Expected: {data.mask_prefix}*{data.mask_suffix}.png files. Fix: --truth FOLDER"
        )
    predictions = _pair_predictions(data, truth, prediction, truths)
    matrix = ConfusionMatrix(data.num_classes)
    for name, path in track(truths.items(), len(truths), "scoring"):
        true, pred = read(path), read_prediction(predictions[name])
        _check_prediction(pred, true, predictions[name], path)
        matrix.update(torch.from_numpy(pred), torch.from_numpy(true))
    protocol = make_protocol(config.inference.protocol, dict(config.inference))
    scores = summarize(matrix.compute(), data.class_names, protocol.absent_classes)
    scores["images"] = len(truths)
    show_scores(scores)
    if out is not None:
        write_json(out, scores)
    return scores


def _pair_predictions(
    data: SegmentationDataModule, truth: Path, prediction: Path, truths: Mapping[str, Path]
) -> Mapping[str, Path]:
    """Return the prediction of each true mask; DataError: a prediction is missing."""
    affixes = dict.fromkeys((
        (data.mask_prefix, data.mask_suffix), (data.image_prefix, data.image_suffix), ("", "")
    ))  # fmt: skip
    predictions = _find_predictions(prediction, truths, affixes)
    parts = [part for affix in affixes for part in affix if part]
    if missing := [name for name in truths if name not in predictions]:
        raise DataError(
            f"{len(missing)} of {len(truths)} masks in {truth} have no prediction in "
            f"{prediction}: {some(missing)}\n"
            f"Expected: the same names, apart from {', '.join(parts)}{' and ' * bool(parts)}"
            "the extension. Fix: --prediction FOLDER"
        )
    return predictions


def _prediction_reader(
    data: SegmentationDataModule, folder: Path, prediction_ids: str | None
) -> ReadMask:
    """Return the reader of the predicted masks in a folder, for their kind of ids."""
    path = folder.absolute().parent / MANIFEST
    manifest = read_object(path) if prediction_ids is None else {}
    if "sha256" in manifest:
        names = manifest.get("class_names") or []
        if names != list(data.class_names):
            raise DataError(
                f"{path}: the predictions have the classes {some(names)}, "
                f"the config {some(data.class_names)}.\n"
                "Expected: the same names in the same order. Fix: --config with their config"
            )
        note(f"predictions are read as ids 0..{data.num_classes - 1}, according to {path}")
        prediction_ids = "train"
    if prediction_ids == "train":
        repair = "Fix: --prediction-ids raw, if the ids are those of the true masks"
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
                f"{lines[0]}\nExpected: the ids of the true masks.\n"
                "Fix: --prediction-ids train, if the ids are positions in class_names"
            ) from error

    return read_raw


def _check_prediction(pred: Array, true: Array, path: Path, true_path: Path) -> None:
    """Raise DataError if predicted and true ids (H, W) do not fit each other."""
    if true.shape != pred.shape:
        raise DataError(
            f"{path} has {pred.shape[1]}x{pred.shape[0]} pixels (width x height), "
            f"its true mask {true_path} {true.shape[1]}x{true.shape[0]}.\n"
            "Expected: the same size. Fix: predict at the size of the images."
        )
    ignored = (pred == IGNORE_INDEX) & (true != IGNORE_INDEX)
    if ignored.any():
        with Image.open(path) as image:
            ids = np.unique(stored_values(image)[ignored], axis=0).tolist()
        raise DataError(
            f"{path} contains {some(ids)}, which the config ignores, in {ignored.sum()} pixels "
            "with a true class.\nExpected: a class for every such pixel. "
            "Fix: predict without an ignored class, or change data.id_map."
        )


def _find_predictions(
    folder: Path, truths: Collection[str], affixes: Iterable[tuple[str, str]]
) -> dict[str, Path]:
    """Return the predictions by name without affixes, and by the names of their true masks."""
    predictions: dict[str, Path] = {}
    for prefix, suffix in affixes:
        predictions.update(find_files(folder, suffix, prefix, MASK_SUFFIXES))
    whole_names = {PurePosixPath(name).name: name for name in truths}
    if len(whole_names) == len(truths):
        flat = {
            whole_names[name]: path for name, path in predictions.items() if name in whole_names
        }
        predictions = flat | predictions
    return predictions
