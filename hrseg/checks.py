"""What is refused before a training or an evaluation begins."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich import get_console

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.metadata import check_facts
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import newest_state
from hrseg.config.loader import load_config, to_dict
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.numerics import check_crop
from hrseg.resume import finished_epochs
from hrseg.state import check_state
from hrseg.task import SegmentationTask


def check_settings(task: SegmentationTask, facts: Any, checkpoint: Path) -> None:
    """Refuse to score a checkpoint under settings that it was not trained with, if it says any."""
    if facts is None:
        return
    check_facts(facts, checkpoint)
    aligned = facts["architecture"].get("align_corners")
    for what, theirs, ours in (
        ("model.align_corners", aligned, task.model.align_corners),
        ("class names", facts["class_names"], task.class_names),
        ("mean", facts["mean"], list(task.normalize.mean)),
        ("std", facts["std"], list(task.normalize.std)),
    ):
        if theirs is not None and theirs != ours:
            raise ConfigError(
                f"{checkpoint} was trained with {what} {theirs}, the config says {ours}.\n"
                "The result would mean nothing: keep to the config of the checkpoint's own run."
            )


def checked_last(config: Config, task: SegmentationTask, trainer: pl.Trainer, run: Path) -> Path:
    """Return the newest state of a run; refuse a damaged one, and settings that it does not fit."""
    last = newest_state(run)
    content = read_checkpoint(last)
    check_settings(task, content.get("hrseg"), last)
    load_weights(task.model, content, purpose="evaluate", origin=last)
    started = to_dict(load_config(run / "config.yaml").optimizer)
    if to_dict(config.optimizer) != started:
        raise ConfigError(
            f"optimizer: {run} was started with {started}, which its state goes on with.\n"
            "For other settings start a new run, from model.weights="
            f"{last}"
        )
    check_state(content, last)
    done = finished_epochs(content, last)
    if 0 < (trainer.max_epochs or -1) <= done:
        get_console().print(
            f"nothing is left to train: the run has finished {done} epochs. "
            "Raise trainer.max_epochs to go on.",
            soft_wrap=True,
        )
    return last


def check_norms(config: Config, trainer: pl.Trainer) -> None:
    """Refuse crops and batches of which batch norm gets a single value."""
    if not config.model.freeze_backbone:
        shares = trainer.accumulate_grad_batches
        if not config.trainer.get("sync_batchnorm"):
            shares *= trainer.world_size
        check_crop(config.data.crop_size, config.data.batch_size // shares)


def check_interval(trainer: pl.Trainer, steps_per_epoch: int) -> None:
    """Refuse a validation interval that no training of this length reaches."""
    epochs, interval = trainer.max_epochs or -1, trainer.val_check_interval
    batches = steps_per_epoch * trainer.accumulate_grad_batches * epochs
    if isinstance(interval, int) and 0 < batches < interval:
        raise ConfigError(
            f"trainer.val_check_interval: {interval} batches are more than the {batches} of this "
            "training, which would end without a score."
        )
