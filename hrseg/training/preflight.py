"""Checks before training, the startup summary, and the memory forecast."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from torch import Tensor

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import newest_state
from hrseg.config.loader import load_config, shipped_configs, to_dict
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.data.images import header_size
from hrseg.errors import ConfigError
from hrseg.models import Segmenter
from hrseg.models.segmenter import network_name
from hrseg.training.exact_resume import progress_of, purge_events
from hrseg.training.task import SegmentationTask
from hrseg.utils.console import echo, note

_LOOKED_AT = 100  # images whose sizes are compared with the crop


def check_settings(task: SegmentationTask, metadata: Any, checkpoint: Path) -> None:
    """Refuse to score a checkpoint under other settings than its metadata, if it has any."""
    if metadata is None:
        return
    read_metadata(metadata, checkpoint)
    aligned = metadata["architecture"].get("align_corners")
    for name, trained, configured in (
        ("model.align_corners", aligned, task.model.align_corners),
        ("class names", metadata["class_names"], task.class_names),
        ("mean", metadata["mean"], list(task.normalize.mean)),
        ("std", metadata["std"], list(task.normalize.std)),
    ):
        if trained is not None and trained != configured:
            raise ConfigError(
                f"{checkpoint} was trained with {name} {trained}, the config has {configured}.\n"
                "The result would mean nothing: keep to the config of the checkpoint's own run."
            )


def checked_last(config: Config, task: SegmentationTask, trainer: pl.Trainer, run: Path) -> Path:
    """Return the newest state of a run that fits the config; drop TensorBoard's later events."""
    last = newest_state(run)
    content = read_checkpoint(last)
    check_settings(task, content.get("hrseg"), last)
    load_weights(task.model, content, purpose="evaluate", origin=last)
    started = to_dict(load_config(run / "config.yaml").optimizer)
    if to_dict(config.optimizer) != started:
        raise ConfigError(
            f"optimizer: {run} was started with {started}, which its state needs.\n"
            f"For other settings start a new run, from model.weights={last}"
        )
    epochs, step = progress_of(content, last)
    if 0 < (trainer.max_epochs or -1) < epochs:
        raise ConfigError(
            f"trainer.max_epochs: {trainer.max_epochs} is less than the {epochs} epochs that {run} "
            f"has finished.\nExpected more than {epochs}. Fix: trainer.max_epochs={epochs + 1}"
        )
    if trainer.max_epochs == epochs:
        echo(
            f"nothing is left to train: the run has finished {epochs} epochs. "
            "Fix: raise trainer.max_epochs to continue."
        )
    if step is not None:
        purge_events(trainer, step)
    return last


def check_norms(config: Config, trainer: pl.Trainer) -> None:
    """Refuse crops and batches that give batch norm a single value per channel."""
    if config.model.freeze_backbone:
        return
    shares = trainer.accumulate_grad_batches
    if not config.trainer.get("sync_batchnorm"):
        shares *= trainer.world_size
    height, width = config.data.crop_size
    if config.data.batch_size // shares * -(-height // 32) * -(-width // 32) == 1:
        raise ConfigError(
            "batch norm cannot normalise a single value: the smallest feature map of this crop has "
            "one pixel, and the batch of a device one image.\n"
            "Enlarge data.crop_size beyond 32 pixels, or the batch of a device to 2 or more."
        )


def check_interval(trainer: pl.Trainer, steps_per_epoch: int) -> None:
    """Refuse a validation interval that no training of this length reaches."""
    interval = trainer.val_check_interval
    batches = steps_per_epoch * trainer.accumulate_grad_batches * (trainer.max_epochs or -1)
    if isinstance(interval, int) and 0 < batches < interval:
        raise ConfigError(
            f"trainer.val_check_interval: {interval} batches are more than the {batches} of this "
            "training, which would end without a score."
        )


def announce_fit(
    config: Config,
    data: SegmentationDataModule,
    task: SegmentationTask,
    trainer: pl.Trainer,
    chosen: str = "",
    last: Path | None = None,
) -> None:
    """Print the startup summary; `chosen` is the reason for the precision, `last` is resumed."""
    assert isinstance(task.model, Segmenter), "an exported file is not trained"
    start = last.name if last else config.model.weights or "scratch"
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    train, val = len(data.train_dataset or ()), len(data.val_dataset or ())
    height, width = config.data.crop_size
    epochs = f"{trainer.max_epochs} epochs" if (trainer.max_epochs or -1) > 0 else "epochs"
    images = config.data.batch_size // (trainer.world_size * trainer.accumulate_grad_batches)
    precision, optimizer = str(trainer.precision), config.optimizer.name
    needed = training_bytes(task.model, images, (height, width), precision, optimizer)
    echo(
        f"fit {config.name}: {train} training and {val} validation images of "
        f"{config.data.name}, {data.num_classes} classes, crop {height}x{width}",
        f"{network_name(task.model.architecture)}, {parameters / 1e6:.2f} M parameters, "
        f"from {start}; {device(trainer, chosen)}",
        batch(config, trainer.world_size, trainer.accumulate_grad_batches),
        f"{epochs} of {_steps(trainer, train // config.data.batch_size)} steps; "
        f"run folder {trainer.default_root_dir}",
        f"memory: {forecast(needed, _free_bytes(trainer.strategy.root_device))}",
    )
    every = trainer.check_val_every_n_epoch or 1
    if left := (trainer.max_epochs or 0) % every:
        note(
            f"validation every {every} epochs leaves the last {left} unscored; "
            "choose trainer.max_epochs as a multiple of check_val_every_n_epoch"
        )
    for remark in (scaled_lr(config), _padding(config, data), _without_scores(config)):
        if remark:
            note(remark)
    if config.trainer.get("profiler") in ("simple", "advanced"):
        echo(f"the profile is written to {trainer.default_root_dir}/fit-profile.txt at the end")


def _steps(trainer: pl.Trainer, steps: int) -> int:
    """Return the steps of an epoch under `limit_train_batches`."""
    limit = trainer.limit_train_batches
    if isinstance(limit, float):
        return int(steps * limit)
    return min(steps, -(-(limit or steps) // trainer.accumulate_grad_batches))


def _padding(config: Config, data: SegmentationDataModule) -> str:
    """Return a note if the crop is larger than the first images at their largest scale."""
    options = config.data
    if options.base_size or options.squash or data.train_dataset is None:
        return ""
    sizes = [header_size(image) for image, _ in data.train_dataset.files[:_LOOKED_AT]]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    scale = options.scales[1]
    crop = options.crop_size
    if crop[0] <= height * scale or crop[1] <= width * scale:
        return ""
    return (
        f"crop {crop[0]}x{crop[1]} is larger than the images ({height}x{width}, at most "
        f"{scale:g} times enlarged): the rest is padding. Fix: a smaller data.crop_size"
    )


def _without_scores(config: Config) -> str:
    if config.trainer.get("limit_val_batches") != 0:
        return ""
    return "no validation (trainer.limit_val_batches=0): no scores.json and no best.ckpt"


def device(trainer: pl.Trainer, chosen: str = "") -> str:
    """Return the devices and the precision, with the reason for it."""
    kind = trainer.strategy.root_device.type
    threads = f" ({torch.get_num_threads()} threads)" if kind == "cpu" else ""
    why = f" (chosen: {chosen})" if chosen else ""
    return f"{trainer.world_size} x {kind}{threads}, precision {trainer.precision}{why}"


def batch(config: Config, devices: int, accumulated: int) -> str:
    """Return the parts of the global batch, and its learning rate."""
    size = config.data.batch_size
    parts = [f"{devices} devices"] * (devices > 1) + [f"{size // (devices * accumulated)} images"]
    parts += [f"{accumulated} accumulated"] * (accumulated > 1)
    whole = f" = {' x '.join(parts)}" if len(parts) > 1 else ""
    return f"batch {size}{whole}, largest lr {config.optimizer.lr:g}"


def scaled_lr(config: Config) -> str:
    """Return a note if a shipped recipe is used with its own lr and another batch size."""
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


GIB = 2**30
# Fitted to measurements on a CPU: bytes at the peak of the backward pass for each byte that the
# forward pass keeps, full-size maps of logits around the loss, the working memory of libraries, and
# the share of the activations that stays with activation checkpointing.
BACKWARD, LOSS_MAPS, WORKSPACE, RECOMPUTED = 1.25, 5, 80 * 2**20, 0.45
_STATES = {"sgd": 1, "adamw": 2}  # values per parameter in the optimiser's state


def training_bytes(
    model: Segmenter, images: int, crop_size: Sequence[int], precision: str, optimizer: str
) -> int:
    """Return the bytes that a batch of a device needs at its peak, within a fifth as measured."""
    trained = [p for p in model.parameters() if p.requires_grad]
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    states = sum(p.numel() * p.element_size() for p in trained) * (1 + _STATES.get(optimizer, 2))
    kept, logits = _kept_for_backward(model)
    if precision.startswith(("16", "bf16")):
        kept /= 2
        parameters += parameters // 2  # a copy in this precision
    if model.recompute:
        kept *= RECOMPUTED
    pixel = BACKWARD * kept + LOSS_MAPS * 4 * logits
    return int(parameters + states + WORKSPACE + pixel * images * crop_size[0] * crop_size[1])


def forecast(needed: int, free: int | None) -> str:
    """Return the needed and the free memory, with the settings that take less if it is short."""
    text = f"about {needed / GIB:.1f} GiB needed"
    text += "" if free is None else f", {free / GIB:.1f} GiB free"
    if free is None or needed <= free:
        return text
    return (
        f"{text}: too little, if the forecast is right. Less is taken by a smaller data.batch_size "
        "or data.crop_size, by trainer.precision=bf16-mixed, or by "
        "model.activation_checkpointing=true"
    )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


def _kept_for_backward(model: Segmenter) -> tuple[float, int]:
    """Return the bytes that a float32 forward pass keeps per pixel, and the logits per pixel."""
    copy = deepcopy(model).train()
    copy.recompute = False
    own = {t.untyped_storage().data_ptr() for t in (*copy.parameters(), *copy.buffers())}
    storages: dict[int, Any] = {}  # kept alive: the address of a freed one could be used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    image = torch.zeros(2, 3, 32, 64, device=next(copy.parameters()).device)
    with (
        torch.random.fork_rng(devices=[]),  # dropout draws
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept),
    ):
        outputs = copy.outputs(image)
    logits = sum(output.shape[1] for output in outputs.values())
    return sum(storage.nbytes() for storage in storages.values()) / image[:, 0].numel(), logits
