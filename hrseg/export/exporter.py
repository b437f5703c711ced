"""Export of a model to a file, which is kept only if its verification passes."""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hrseg.checkpoints.metadata import build_metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError
from hrseg.export.verification import Comparison, open_candidate, prove
from hrseg.export.writers import Form, write
from hrseg.inference.predictor import Predictor, build_predictor, load
from hrseg.models import Segmenter
from hrseg.models.segmenter import plugin_of
from hrseg.training.factory import build_data
from hrseg.utils.constants import __version__
from hrseg.utils.files import replacing, write_json

Pixels = NDArray[np.uint8]
CALIBRATION = 64  # images for the ranges of int8
CROP = (512, 1024)  # of larger ones, the middle


def export_checkpoint(
    checkpoint: Path,
    target: Path,
    form: Form,
    config: Config | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Export a checkpoint, and compare mIoU if the data set of its config exists.

    The config describes the data set, and the model of weights without metadata. `images` of the
    validation split, evenly spaced, are compared; None: all. Errors are those of `export` and
    `hrseg.load`, and DataError for a damaged data set.
    """
    form.check(target)
    if config is not None and "hrseg" not in read_checkpoint(checkpoint):
        predictor = build_predictor(config, build_data(config), checkpoint, "cpu", "32")
    else:
        predictor = load(checkpoint)
    data = _data(config, predictor) if config is not None and (images != 0 or form.int8) else None
    comparison, calibration = None, []
    if data is not None and images != 0:
        dataset = data.dataset(data.val_split)
        comparison = Comparison(dataset.read, _even(len(dataset), images))
    if data is not None and form.int8:
        dataset = data.dataset(data.train_split)
        calibration = [_centre(dataset.read(i)[0]) for i in _even(len(dataset), CALIBRATION)]
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"checkpoint": checkpoint.name, "sha256": digest, "hrseg": __version__}
    proof = export(predictor, target, form, comparison, calibration, source)
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
) -> dict[str, Any]:
    """Write `target` and verify it; if it differs from the model, the old file stays.

    `comparison` is for mIoU, `calibration` are RGB images (H, W, 3) for the ranges of int8,
    `source` is the origin of the weights, for the file's metadata. The figures of the verification
    are the result, and are in `<file>.proof.json`. Errors are those of `Form.check` and `prove`.
    """
    form.check(target)
    model = predictor.model
    if not isinstance(model, Segmenter):
        raise ConfigError("this file was exported already: export its checkpoint.")
    if form.int8 and not len(calibration):
        raise ConfigError(
            "--int8 is fitted to the training set, and its loss is measured: it needs the data.\n"
            "Fix: data.root=/path, and --config NAME for a checkpoint outside of a run folder."
        )
    metadata = build_metadata(
        model.architecture,
        predictor.class_names,
        predictor.palette,
        predictor.flip_pairs,
        predictor.normalize.mean,
        predictor.normalize.std,
        predictor.protocol,
        plugin=plugin_of(model.architecture),
    )
    metadata["export"] = {**asdict(form), "source": dict(source or {})}
    with ExitStack() as stack:
        partial = stack.enter_context(replacing(target))
        if form.format == "openvino":
            stack.enter_context(replacing(target.with_suffix(".bin")))
        write(model, partial, form, metadata, calibration)
        figures = prove(predictor, open_candidate(partial, metadata), form.int8, comparison)
        proof = {"file": target.name, "export": metadata["export"], **figures}
        write_json(Path(f"{target}.proof.json"), proof)
    return proof


def _data(config: Config, predictor: Predictor) -> SegmentationDataModule | None:
    """Return the checked data set of a config; None, with a note, if it is missing."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        print(f"note: no data set at {root.absolute()}: mIoU was not compared (data.root=/path)")
        return None
    data = build_data(config)
    data.check("validate")
    if list(data.class_names) != predictor.class_names:
        raise ConfigError(
            f"the model knows {', '.join(predictor.class_names)},\nthe data set has "
            f"{', '.join(data.class_names)}: its images do not test this model."
        )
    return data


def _even(count: int, wanted: int | None) -> list[int]:
    wanted = count if wanted is None else min(count, wanted)
    return [round(index) for index in np.linspace(0, count - 1, wanted).tolist()]


def _centre(image: Pixels) -> Pixels:
    top, left = (max(0, (side - crop) // 2) for side, crop in zip(image.shape, CROP, strict=False))
    return image[top : top + CROP[0], left : left + CROP[1]]
