"""Model export. The exported file is kept only if its verification passes."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from hrseg.checkpoints.metadata import build_metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError
from hrseg.export.verification import Comparison, open_candidate, verify
from hrseg.export.writers import Form, write
from hrseg.inference.predictor import Predictor, build_predictor, load
from hrseg.models import Segmenter
from hrseg.models.segmenter import plugin_of
from hrseg.training.factory import build_data
from hrseg.utils.channels import Pixels
from hrseg.utils.constants import __version__
from hrseg.utils.files import replacing, write_json

CALIBRATION = 64  # number of images for int8 calibration
CROP = (512, 1024)  # height and width of the central crop of larger calibration images


def export_checkpoint(
    checkpoint: Path,
    target: Path,
    form: Form,
    config: Config | None = None,
    images: int | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Export a checkpoint, and compare mIoU if the data set of the config exists.

    Args:
        checkpoint: the checkpoint to export.
        target: the path of the exported file.
        form: format and interface of the exported file.
        config: describes the data set, and the model if the checkpoint has no metadata.
        images: number of evenly spaced validation images for mIoU; None: all; 0: none.
        device: as for `export`.

    Returns:
        The content of `<target>.proof.json`.

    Raises:
        ConfigError: as for `export` and `hrseg.load`.
        VerificationError: if the exported file differs from the model.
        DataError: if the data set is damaged.
    """
    form.check(target, device)
    if config is not None and "hrseg" not in read_checkpoint(checkpoint):
        predictor = build_predictor(config, build_data(config), checkpoint, "cpu", "32")
    else:
        predictor = load(checkpoint)
    data = _data(config, predictor) if config is not None and (images != 0 or form.int8) else None
    comparison, calibration = None, []
    if data is not None and images != 0:
        dataset = data.dataset(data.val_split)
        comparison = Comparison(dataset.read, _evenly_spaced(len(dataset), images))
    if data is not None and form.int8:
        dataset = data.dataset(data.train_split)
        indices = _evenly_spaced(len(dataset), CALIBRATION)
        calibration = [_center_crop(dataset.read(index)[0]) for index in indices]
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"checkpoint": checkpoint.name, "sha256": digest, "hrseg": __version__}
    proof = export(predictor, target, form, comparison, calibration, source, device)
    files = [target, target.with_suffix(".bin")] if form.format == "openvino" else [target]
    size = sum(path.stat().st_size for path in files)
    print(f"exported: {target} ({size / 2**20:.1f} MiB)\nproof: {target}.proof.json")
    return proof


def export(
    predictor: Predictor,
    target: Path,
    form: Form,
    comparison: Comparison | None = None,
    calibration: Sequence[Pixels] = (),
    source: Mapping[str, str] | None = None,
    device: str = "cpu",
) -> dict[str, Any]:
    """Export a model and verify the file. If verification fails, an older file is kept.

    Args:
        predictor: the model with its metadata.
        target: the path of the exported file.
        form: format and interface of the exported file.
        comparison: labelled images for mIoU.
        calibration: RGB images (H, W, 3), uint8, or those of other channels, for int8.
        source: origin of the weights, for the file's metadata.
        device: of the file during its verification; the model is on the device of `predictor`.

    Returns:
        The figures of the verification, which are also written to `<target>.proof.json`.

    Raises:
        ConfigError: as for `Form.check`, if the model is an exported file, or without `calibration`
            for int8.
        VerificationError: if the exported file differs from the model.
    """
    form.check(target, device)
    model = _checked_model(predictor, form, calibration)
    metadata = build_metadata(
        model.architecture,
        predictor.class_names,
        predictor.palette,
        predictor.flip_pairs,
        predictor.normalize.mean,
        predictor.normalize.std,
        predictor.protocol,
        predictor.channels,
        plugin=plugin_of(model.architecture),
        temperature=predictor.temperature if predictor.temperature != 1 else None,
    )
    if form.input == "uint8" and predictor.channels:
        form = replace(form, input=predictor.channels.dtype)
    metadata["export"] = {**asdict(form), "source": dict(source or {})}
    with ExitStack() as stack:
        partial = stack.enter_context(replacing(target))
        if form.format == "openvino":
            stack.enter_context(replacing(target.with_suffix(".bin")))
        write(model, partial, form, metadata, calibration)
        candidate = open_candidate(partial, metadata, device)
        figures = verify(predictor, candidate, form.int8, comparison)
        proof = {"file": target.name, "export": metadata["export"], **figures}
        write_json(Path(f"{target}.proof.json"), proof)
    return proof


def _checked_model(predictor: Predictor, form: Form, calibration: Sequence[Pixels]) -> Segmenter:
    """Return the model to export; ConfigError: see `export`."""
    model = predictor.model
    if not isinstance(model, Segmenter):
        raise ConfigError(
            "The file is an exported model.\nExpected: a checkpoint. Fix: export its checkpoint."
        )
    if form.int8 and not len(calibration):
        raise ConfigError(
            "--int8 needs the data set, for calibration and to measure the loss of mIoU.\n"
            "Expected: an existing data set.\n"
            "Fix: add data.root=/path, and --config NAME if the checkpoint is in no run folder."
        )
    if form.output == "ids" and predictor.protocol.threshold is not None:
        raise ConfigError(
            f"--argmax ignores inference.threshold={predictor.protocol.threshold}, because the "
            "file would contain the likelier class.\n"
            "Expected: an export with logits. Fix: leave out --argmax"
        )
    return model


def _data(config: Config, predictor: Predictor) -> SegmentationDataModule | None:
    """Return the checked data set of a config. If it is missing, print a note and return None."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        print(f"note: {root.absolute()} does not exist, mIoU was not compared (data.root=/path)")
        return None
    data = build_data(config)
    data.use_channels(predictor.channels)
    data.check("validate")
    if list(data.class_names) != predictor.class_names:
        raise ConfigError(
            f"The data set has other classes than the model: {', '.join(data.class_names)}.\n"
            f"Expected: {', '.join(predictor.class_names)}.\n"
            "Fix: give the config that the model was trained with."
        )
    return data


def _evenly_spaced(count: int, limit: int | None) -> list[int]:
    number = count if limit is None else min(count, limit)
    return [round(index) for index in np.linspace(0, count - 1, number).tolist()]


def _center_crop(image: Pixels) -> Pixels:
    top, left = (max(0, (side - crop) // 2) for side, crop in zip(image.shape, CROP, strict=False))
    return image[top : top + CROP[0], left : left + CROP[1]]
