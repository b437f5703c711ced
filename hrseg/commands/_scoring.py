"""Evaluation of a checkpoint on a data set: the work of `hrseg validate` and `hrseg test`."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import write_config
from hrseg.config.schema import Config
from hrseg.data import DATASETS
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError, DataError
from hrseg.evaluation.image_scores import ImageScores
from hrseg.evaluation.report import report_run
from hrseg.evaluation.submission import Submission
from hrseg.inference.exported_model import is_exported, open_engine, precisions
from hrseg.training.callbacks import PredictionImages
from hrseg.training.distributed import Placement, new_folder, place
from hrseg.training.factory import build_data, build_task
from hrseg.training.loggers import quieten
from hrseg.training.preflight import check_settings, device, stored_channels
from hrseg.training.task import SegmentationTask
from hrseg.training.trainer import build_trainer, settle_precision, user_errors
from hrseg.utils.channels import Channels
from hrseg.utils.console import echo
from hrseg.utils.signals import Stopped


def validate(config: Config, checkpoint: Path, home: Path, engine_device: str = "cpu") -> Path:
    """Score a checkpoint or an exported file by the config's protocol; return the new folder.

    `engine_device` is that of an exported file.
    """
    with _result_folder(config, home) as (placement, folder):
        data, task = _load(config, checkpoint, "validate", engine_device)
        callbacks = [
            ImageScores(folder, checkpoint),
            PredictionImages(config.prediction_images, folder),
        ]
        trainer, description = _trainer(config, placement, checkpoint, folder, callbacks)
        images = len(data.val_dataset or ())
        echo(f"validate {config.name}: {checkpoint} on {images} images; {description}")
        with user_errors(config, trainer):
            trainer.validate(task, data, verbose=False)
        if trainer.is_global_zero:
            write_config(config, folder)
            report_run(folder, config.inference.details)
    return folder


def test(config: Config, checkpoint: Path, home: Path, engine_device: str = "cpu") -> Path:
    """Predict the test split by the config's protocol; return the checked zip file of the masks.

    `engine_device` is that of an exported file.

    Raises:
        ConfigError: the data set has no benchmark server.
        VerificationError: the masks violate the server's requirements.
    """
    if DATASETS[config.data.name].submission_ids is None:
        raise ConfigError(
            f"The data set {config.data.name} has no benchmark server.\nExpected: one of "
            f"{', '.join(name for name, data in DATASETS.items() if data.submission_ids)}.\n"
            "Fix: `hrseg validate` scores a split with masks."
        )
    with _result_folder(config, home) as (placement, folder):
        data, task = _load(config, checkpoint, "test", engine_device)
        assert data.test_dataset is not None and data.submission_ids is not None
        images = [image for image, _ in data.test_dataset.files]
        submission = Submission(folder, images, data.test_dataset.names, data.submission_ids)
        trainer, description = _trainer(config, placement, checkpoint, folder, [submission])
        echo(f"test {config.name}: {checkpoint} on {len(images)} images; {description}")
        echo(str(task.protocol))
        with user_errors(config, trainer):
            trainer.test(task, data, verbose=False)
    return folder / "submission.zip"


@contextmanager
def _result_folder(config: Config, home: Path) -> Iterator[tuple[Placement, Path]]:
    """Create a dated folder; remove it if the command fails or is stopped."""
    quieten()
    placement = place(config.trainer)
    folder = new_folder(placement, home)
    try:
        yield placement, folder
    except (ConfigError, DataError, Stopped):
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _load(
    config: Config, checkpoint: Path, stage: str, engine_device: str
) -> tuple[SegmentationDataModule, SegmentationTask]:
    data = build_data(config)
    if is_exported(checkpoint):
        precision = str(config.trainer.get("precision", "32")).partition("-")[0]
        if precision not in precisions(checkpoint, engine_device):
            precision = "32"
        engine = open_engine(checkpoint, engine_device, precision)
        data.use_channels(Channels.from_dict(engine.metadata.get("channels")))
        data.check(stage)
        task = build_task(config, data, weights=False, engine=engine)
        engine.check(task.protocol)
        check_settings(task, engine.metadata, checkpoint)
        if engine.interface["output"] == "ids":  # without probabilities
            task.calibration = task.threshold_counts = None
        else:
            _use_temperature(task, engine.metadata)
        echo(f"{checkpoint}: {engine.extra_repr()}, precision {precision}")
        return data, task
    if engine_device != "cpu":
        raise ConfigError(
            f"--device {engine_device} is for exported files, but {checkpoint} is a checkpoint.\n"
            "Expected: trainer.accelerator. Fix: trainer.accelerator=gpu"
        )
    content = read_checkpoint(checkpoint)
    if "hrseg" in content:
        data.use_channels(stored_channels(content, checkpoint))
    data.check(stage)
    task = build_task(config, data, weights=False)
    check_settings(task, content.get("hrseg"), checkpoint)
    _use_temperature(task, content.get("hrseg") or {})
    echo(str(load_weights(task.model, content, purpose="evaluate", origin=checkpoint)))
    return data, task


def _use_temperature(task: SegmentationTask, metadata: Mapping[str, Any]) -> None:
    if metadata.get("temperature") is not None:
        task.score_calibration(float(metadata["temperature"]))


def _trainer(
    config: Config, placement: Placement, checkpoint: Path, folder: Path, callbacks: list[Callback]
) -> tuple[pl.Trainer, str]:
    """Return the trainer, and a description of device and precision."""
    # The precision of an exported file is fixed.
    reason = "" if is_exported(checkpoint) else settle_precision(config, placement)
    trainer = build_trainer(config, placement, folder, callbacks, train=False)
    return trainer, device(trainer, reason)
