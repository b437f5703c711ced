"""What a run says before its first step: what is trained, on what, where, by which batch."""

from pathlib import Path

import pytorch_lightning as pl
import torch

from hrseg.config.loader import load_config, shipped_configs
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.forecast import forecast, free_bytes, training_bytes
from hrseg.models import Segmenter
from hrseg.task import SegmentationTask
from hrseg.utils.console import say

# Fewer images than this per device, and a batch norm of its own learns too little.
FEW_IMAGES = 4


def announce_fit(
    config: Config,
    data: SegmentationDataModule,
    task: SegmentationTask,
    trainer: pl.Trainer,
    chosen: str = "",
    last: Path | None = None,
) -> None:
    """Say what is trained, on what, where, and how much.

    Args:
        config: all of it.
        data: what is trained on.
        task: what is trained.
        trainer: where.
        chosen: why it is this precision.
        last: the state that is gone on from.
    """
    start = last.name if last else config.model.weights or "scratch"
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    train, val = len(data.train_dataset or ()), len(data.val_dataset or ())
    height, width = config.data.crop_size
    epochs = f"{trainer.max_epochs} epochs" if (trainer.max_epochs or -1) > 0 else "epochs"
    say(
        f"fit {config.name}: {train} training and {val} validation images of "
        f"{config.data.name}, {data.num_classes} classes, crop {height}x{width}",
        f"{config.model.backbone} + {config.model.head.name}, {parameters / 1e6:.2f} M parameters, "
        f"from {start}; {device(trainer, chosen)}",
        batch(config, trainer.world_size, trainer.accumulate_grad_batches),
        f"{epochs} of {train // config.data.batch_size} steps; "
        f"run folder {trainer.default_root_dir}",
    )
    say(f"memory: {_memory(config, task, trainer)}")
    notes = [_unscored(trainer), lonely_norms(config, trainer), scaled_lr(config)]
    say(*(f"note: {note}" for note in notes if note))


def _memory(config: Config, task: SegmentationTask, trainer: pl.Trainer) -> str:
    """Return what a device is expected to need, and has."""
    assert isinstance(task.model, Segmenter), "an exported file is not trained"
    needed = training_bytes(
        task.model,
        config.data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches),
        config.data.crop_size,
        str(trainer.precision),
        config.optimizer.name,
    )
    return forecast(needed, free_bytes(trainer.strategy.root_device))


def device(trainer: pl.Trainer, chosen: str = "") -> str:
    """Return where and in which precision is computed."""
    kind = trainer.strategy.root_device.type
    threads = f" ({torch.get_num_threads()} threads)" if kind == "cpu" else ""
    why = f" (chosen: {chosen})" if chosen else ""
    return f"{trainer.world_size} x {kind}{threads}, precision {trainer.precision}{why}"


def batch(config: Config, devices: int, accumulated: int) -> str:
    """Return what the global batch consists of, and which learning rate it has."""
    size = config.data.batch_size
    parts = [f"{devices} devices"] * (devices > 1) + [f"{size // (devices * accumulated)} images"]
    parts += [f"{accumulated} accumulated"] * (accumulated > 1)
    whole = f" = {' x '.join(parts)}" if len(parts) > 1 else ""
    return f"batch {size}{whole}, lr {config.optimizer.lr:g} for the whole of it"


def lonely_norms(config: Config, trainer: pl.Trainer) -> str:
    """Return what to say if each of several devices normalises few images by themselves."""
    devices, synchronised = trainer.world_size, config.trainer.get("sync_batchnorm")
    images = config.data.batch_size // (devices * trainer.accumulate_grad_batches)
    if devices > 1 and synchronised and trainer.strategy.root_device.type == "cpu":
        return (
            f"trainer.sync_batchnorm needs GPUs; batch norm sees the {images} images of a process"
        )
    if devices == 1 or images >= FEW_IMAGES or synchronised:
        return ""
    return (
        f"batch norm sees the {images} images of one device; "
        "trainer.sync_batchnorm=true lets it see those of all (GPUs only)"
    )


def scaled_lr(config: Config) -> str:
    """Return what to say if the lr of a shipped recipe meets another batch than the recipe's."""
    path = shipped_configs().get(config.name)
    recipe = load_config(path) if path else config
    same_rate = (config.optimizer.name, config.optimizer.lr) == ("sgd", recipe.optimizer.lr)
    if not same_rate or config.data.batch_size == recipe.data.batch_size:
        return ""
    scaled = recipe.optimizer.lr * config.data.batch_size / recipe.data.batch_size
    return (
        f"lr {recipe.optimizer.lr:g} is {config.name}'s for a batch of {recipe.data.batch_size}; "
        f"scaled linearly to {config.data.batch_size}: optimizer.lr={scaled:g}"
    )


def _unscored(trainer: pl.Trainer) -> str:
    every = trainer.check_val_every_n_epoch or 1
    left = (trainer.max_epochs or 0) % every
    if left == 0:
        return ""
    return (
        f"validation every {every} epochs leaves the last {left} "
        "unscored; choose trainer.max_epochs as a multiple of check_val_every_n_epoch"
    )
