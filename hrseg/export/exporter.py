"""Export of a model to a file that is kept only if its verification passes."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
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
from hrseg.utils.files import replacing

Pixels = NDArray[np.uint8]
CALIBRATION = 64  # images whose ranges int8 is fitted to
CROP = (512, 1024)  # of larger ones, the middle


def export_checkpoint(
    checkpoint: Path,
    target: Path,
    form: Form,
    config: Config | None = None,
    images: int | None = None,
) -> dict[str, Any]:
    """Export a checkpoint, with the data set of its config as far as it is there.

    Args:
        checkpoint: the file.
        target: see `export`.
        form: see `export`.
        config: of the data set; None: logits alone are compared. Of weights that do not say
            themselves what they are, the config does.
        images: of the validation split, evenly spaced, to compare mIoU on; None: all; 0: none.

    Raises:
        ConfigError: see `export` and `hrseg.load`.
        DataError: the data set is there, and something is wrong with it.
        VerificationError: see `export`.
    """
    form.check(target)
    if config is not None and "hrseg" not in read_checkpoint(checkpoint):
        predictor = build_predictor(config, build_data(config), checkpoint, "cpu", "32")
    else:
        predictor = load(checkpoint)
    data = _data(config, predictor) if config is not None and (images != 0 or form.int8) else None
    comparison = None
    if data is not None and images != 0:
        dataset = data.dataset(data.val_split)
        comparison = Comparison(dataset.read, _even(len(dataset), images))
    calibration = _calibration(data) if data is not None and form.int8 else []
    with checkpoint.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"checkpoint": checkpoint.name, "sha256": digest, "hrseg": __version__}
    proof = export(predictor, target, form, comparison, calibration, source)
    files = [target, target.with_suffix(".bin")][: 1 + (form.format == "openvino")]
    size = sum(path.stat().st_size for path in files)
    print(f"exported: {target} ({size / 2**20:.1f} MiB)\nproof: {proof_path(target)}")
    return proof


def export(
    predictor: Predictor,
    target: Path,
    form: Form,
    comparison: Comparison | None = None,
    calibration: Sequence[Pixels] = (),
    source: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Write `target`, prove it, and keep it; what stood there before stays if the proof fails.

    Args:
        predictor: the model with all that is known of it.
        target: the file, with the suffix of the format.
        form: what it takes and gives.
        comparison: images with truth to compare mIoU on.
        calibration: RGB images (H, W, 3) that int8 is fitted to.
        source: where the weights come from, for the file's metadata.

    Returns:
        The proof, which lies beside the file as `<file>.proof.json` too.

    Raises:
        ConfigError: something does not go together, or is not installed.
        VerificationError: the file does not do what the model does.
    """
    form.check(target)
    model = predictor.model
    if not isinstance(model, Segmenter):
        raise ConfigError("this file was exported already: export its checkpoint.")
    if form.int8 and not len(calibration):
        raise ConfigError(
            "--int8 is fitted to the training set, and its loss is measured: it needs the data.\n"
            "Say where it is: data.root=/path (and --config NAME where no run says which set)."
        )
    facts = _facts(predictor, form, source or {})
    with ExitStack() as stack:
        partial = stack.enter_context(replacing(target))
        if form.format == "openvino":
            stack.enter_context(replacing(target.with_suffix(".bin")))
        write(model, partial, form, facts, calibration)
        candidate = open_candidate(partial, facts)
        figures = prove(predictor, candidate, form.int8, comparison)
        proof = {"file": target.name, "export": facts["export"], **figures}
        text = json.dumps(proof, indent=1)
        with replacing(proof_path(target)) as file:
            file.write_text(text, encoding="utf-8")
    return proof


def _data(config: Config, predictor: Predictor) -> SegmentationDataModule | None:
    """Return the data set of a config, checked; None, and say so, where it is not there."""
    root = Path(config.data.root).expanduser()
    if config.data.name != "synthetic" and not root.is_dir():
        print(f"note: no data set at {root.absolute()}: mIoU was not compared (data.root=/path)")
        return None
    data = build_data(config)
    data.check("validate")
    if list(data.class_names) != predictor.class_names:
        raise ConfigError(
            f"the model knows {', '.join(predictor.class_names)},\nthe data set has "
            f"{', '.join(data.class_names)}: its images say nothing of this model."
        )
    return data


def _calibration(data: SegmentationDataModule) -> list[Pixels]:
    dataset = data.dataset(data.train_split)
    return [centre(dataset.read(index)[0]) for index in _even(len(dataset), CALIBRATION)]


def _even(count: int, wanted: int | None) -> list[int]:
    """Return `wanted` evenly spaced indices of `count`, all by default."""
    spaced = np.linspace(0, count - 1, min(count, count if wanted is None else wanted))
    return [round(float(index)) for index in spaced]


def proof_path(target: Path) -> Path:
    """Return where the proof of a file lies."""
    return target.with_name(f"{target.name}.proof.json")


def centre(image: Pixels) -> Pixels:
    """Return the middle of an image (H, W, 3), at most 512x1024."""
    top, left = (max(0, (side - crop) // 2) for side, crop in zip(image.shape, CROP, strict=False))
    return image[top : top + CROP[0], left : left + CROP[1]]


def _facts(predictor: Predictor, form: Form, source: Mapping[str, str]) -> dict[str, Any]:
    """Return, as plain data, what it takes to predict with the file alone."""
    metadata = build_metadata(
        predictor.model.architecture,
        predictor.class_names,
        predictor.palette,
        predictor.flip_pairs,
        predictor.normalize.mean,
        predictor.normalize.std,
        predictor.protocol,
        plugin=plugin_of(predictor.model.architecture),
    )
    metadata["export"] = {
        "format": form.format,
        "input": form.input,
        "output": form.output,
        "int8": form.int8,
        "source": dict(source),
    }
    return metadata
