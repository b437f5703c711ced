"""Checks before training, the startup summary, and the memory forecast."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import psutil
import pytorch_lightning as pl
import torch
from rich import get_console
from torch import Tensor

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.metadata import read_metadata
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.checkpoints.runs import newest_state
from hrseg.config.loader import load_config, shipped_configs, to_dict
from hrseg.config.schema import Config
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError
from hrseg.models import Segmenter
from hrseg.models.segmenter import network_name
from hrseg.training.exact_resume import purge_events, training_state
from hrseg.training.loss_guard import check_crop
from hrseg.training.task import SegmentationTask
from hrseg.utils.console import say


def check_settings(task: SegmentationTask, facts: Any, checkpoint: Path) -> None:
    """Refuse to score a checkpoint under settings that it was not trained with, if it says any."""
    if facts is None:
        return
    read_metadata(facts, checkpoint)
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
    """Return the newest state of a run; refuse a damaged one, and settings that it does not fit.

    TensorBoard drops the events after the state.
    """
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
    state = training_state(content, last)
    done = state.finished_epochs
    if 0 < (trainer.max_epochs or -1) <= done:
        get_console().print(
            f"nothing is left to train: the run has finished {done} epochs. "
            "Raise trainer.max_epochs to go on.",
            soft_wrap=True,
        )
    if state.resume is not None:
        purge_events(trainer, state.resume.step)
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
        f"{network_name(task.model.architecture)}, {parameters / 1e6:.2f} M parameters, "
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


GIB = 2**30
# Fitted to what was measured on a CPU: what is there at the peak for each byte that the forward
# pass keeps (gradients on their way), maps of logits at full size around the loss, what libraries
# work with, and what of the activations is there where they are computed twice.
AMID_BACKWARD, AROUND_LOSS, WORKSPACE, RECOMPUTED = 1.25, 5, 80 * 2**20, 0.45
SMALL = 2, 3, 32, 64  # the image that is counted on
_STATES = {"sgd": 1, "adamw": 2}  # values that an optimiser keeps of each parameter


def training_bytes(
    model: Segmenter, images: int, crop_size: Sequence[int], precision: str, optimizer: str
) -> int:
    """Return about how many bytes of a device training takes at its peak.

    Parameters, their gradients, what the optimiser keeps, what the backward pass needs of the
    forward one, and the loss at full size: within a fifth of what was measured.

    Args:
        model: the network, on any device.
        images: the batch of a device and a forward pass.
        crop_size: (height, width).
        precision: of the Trainer, "32-true", "bf16-mixed", ...
        optimizer: its name in the config.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    states = sum(p.numel() * p.element_size() for p in trained) * (1 + _STATES.get(optimizer, 2))
    kept, logits = _kept_for_backward(model)
    if precision.startswith(("16", "bf16")):
        kept /= 2
        parameters += parameters // 2  # a copy in this precision
    if model.recompute:
        kept *= RECOMPUTED
    pixel = AMID_BACKWARD * kept + AROUND_LOSS * 4 * logits
    return int(parameters + states + WORKSPACE + pixel * images * crop_size[0] * crop_size[1])


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a device has left; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        return int(psutil.virtual_memory().available)
    return None


def forecast(needed: int, free: int | None) -> str:
    """Return what to say before training."""
    about = f"about {needed / GIB:.1f} GiB needed"
    if free is None:
        return about
    said = f"{about}, {free / GIB:.1f} GiB free"
    if needed <= free:
        return said
    return (
        f"{said}: too little, if the forecast is right. Less is taken by a smaller data.batch_size "
        "or data.crop_size, by trainer.precision=bf16-mixed, or by "
        "model.activation_checkpointing=true"
    )


def _kept_for_backward(model: Segmenter) -> tuple[float, int]:
    """Return the bytes that a forward pass in float32 keeps of a pixel, and the logits of one.

    Counted on a small image, since each grows with the number of pixels.
    """
    copy = deepcopy(model).train()
    copy.recompute = False
    own = {t.untyped_storage().data_ptr() for t in (*copy.parameters(), *copy.buffers())}
    storages: dict[int, int] = {}
    alive: list[Any] = []  # a storage that went could lend its number to the next

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(storage)
        return tensor

    image = torch.zeros(SMALL, device=next(copy.parameters()).device)
    with (
        torch.random.fork_rng(devices=[]),  # dropout draws
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept),
    ):
        outputs = copy.outputs(image)
    logits = sum(output.shape[1] for output in outputs.values())
    return sum(storages.values()) / image[:, 0].numel(), logits
