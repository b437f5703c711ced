"""Checks before training, startup summary, and memory forecast."""

from collections.abc import Mapping, Sequence
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
from hrseg.utils.channels import Channels
from hrseg.utils.console import echo, note

_SAMPLE = 100  # images whose sizes are compared with the crop


def check_settings(task: SegmentationTask, metadata: Any, checkpoint: Path) -> None:
    """Raise ConfigError if the task's settings differ from the metadata of its checkpoint."""
    if metadata is None:
        return
    read_metadata(metadata, checkpoint)
    aligned = metadata["architecture"].get("align_corners")
    trained_channels = str(stored_channels({"hrseg": metadata}, checkpoint))
    for name, trained, configured in (
        ("model.align_corners", aligned, task.model.align_corners),
        ("class names", metadata["class_names"], task.class_names),
        ("mean", metadata["mean"], list(task.normalize.mean)),
        ("std", metadata["std"], list(task.normalize.std)),
        ("channels", trained_channels, str(task.normalize.channels)),
    ):
        if trained is not None and trained != configured:
            raise ConfigError(
                f"{checkpoint} was trained with {name} {trained}, the config has {configured}.\n"
                "Expected: the same value. Fix: use config.yaml in the run folder of the checkpoint"
            )


def stored_channels(content: Mapping[str, Any], checkpoint: Path) -> Channels | None:
    """Return the channels in a checkpoint's content; None: RGB uint8, or no metadata."""
    if content.get("hrseg") is None:
        return None
    stored = read_metadata(content["hrseg"], checkpoint).channels
    return Channels.from_dict(stored.model_dump()) if stored else None


def checked_last(config: Config, task: SegmentationTask, trainer: pl.Trainer, run: Path) -> Path:
    """Return the newest training state of a run, and drop TensorBoard's later events.

    Raises:
        ConfigError: the state does not fit the config, or is damaged.
    """
    last = newest_state(run)
    content = read_checkpoint(last)
    check_settings(task, content.get("hrseg"), last)
    load_weights(task.model, content, purpose="evaluate", origin=last)
    started = to_dict(load_config(run / "config.yaml").optimizer)
    if to_dict(config.optimizer) != started:
        raise ConfigError(
            f"{run} was started with the optimizer {started}.\nExpected: the same optimizer on "
            f"resume. Fix: remove the change, or start a new run with model.weights={last}"
        )
    epochs, step = progress_of(content, last)
    if 0 < (trainer.max_epochs or -1) < epochs:
        raise ConfigError(
            f"trainer.max_epochs is {trainer.max_epochs}, but {run} has finished {epochs} epochs.\n"
            f"Expected: more than {epochs}. Fix: trainer.max_epochs={epochs + 1}"
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
    """Raise ConfigError if batch norm would receive a single value per channel."""
    if config.model.freeze_backbone:
        return
    shares = trainer.accumulate_grad_batches
    if not config.trainer.get("sync_batchnorm"):
        shares *= trainer.world_size
    height, width = config.data.crop_size
    if config.data.batch_size // shares * -(-height // 32) * -(-width // 32) == 1:
        raise ConfigError(
            "Batch norm cannot normalise a single value per channel.\n"
            "The smallest feature map of this crop has one pixel, and a device has one image.\n"
            "Expected: a data.crop_size above 32, or at least 2 images per device."
        )


def check_interval(trainer: pl.Trainer, steps_per_epoch: int) -> None:
    """Raise ConfigError if the validation interval is longer than the training."""
    interval = trainer.val_check_interval
    batches = steps_per_epoch * trainer.accumulate_grad_batches * (trainer.max_epochs or -1)
    if isinstance(interval, int) and 0 < batches < interval:
        raise ConfigError(
            f"trainer.val_check_interval is {interval} batches, but the training has {batches}.\n"
            f"Expected: at most {batches}; otherwise the training has no score."
        )


def announce_fit(
    config: Config,
    data: SegmentationDataModule,
    task: SegmentationTask,
    trainer: pl.Trainer,
    chosen: str = "",
    last: Path | None = None,
) -> None:
    """Print the startup summary.

    Args:
        config: the config.
        data: its DataModule.
        task: its task, with a Segmenter.
        trainer: its Trainer.
        chosen: reason for an automatic precision.
        last: training state to resume from.
    """
    assert isinstance(task.model, Segmenter), "an exported file cannot be trained"
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
    if data.channels:
        echo(f"images: {data.channels}")
    every = trainer.check_val_every_n_epoch or 1
    if left := (trainer.max_epochs or 0) % every:
        note(
            f"the last {left} epochs have no validation. Expected: trainer.max_epochs a multiple "
            f"of trainer.check_val_every_n_epoch={every}"
        )
    if config.trainer.get("limit_val_batches") == 0:
        note("no validation (trainer.limit_val_batches=0): no scores.json and no best.ckpt")
    for remark in filter(None, (scaled_lr(config), _padding(config, data))):
        note(remark)
    if config.trainer.get("profiler") in ("simple", "advanced"):
        echo(f"the profile is written to {trainer.default_root_dir}/fit-profile.txt at the end")


def _steps(trainer: pl.Trainer, steps: int) -> int:
    """Return the steps per epoch, limited by `limit_train_batches`."""
    limit = trainer.limit_train_batches
    if isinstance(limit, float):
        return int(steps * limit)
    return min(steps, -(-(limit or steps) // trainer.accumulate_grad_batches))


def _padding(config: Config, data: SegmentationDataModule) -> str:
    """Return a note if the crop is larger than the first images at the largest scale."""
    options = config.data
    if options.base_size or options.squash or data.train_dataset is None:
        return ""
    sizes = [header_size(image) for image, _ in data.train_dataset.files[:_SAMPLE]]
    height, width = max(h for h, _ in sizes), max(w for _, w in sizes)
    scale = options.scales[1]
    crop = options.crop_size
    if crop[0] <= height * scale or crop[1] <= width * scale:
        return ""
    return (
        f"crop {crop[0]}x{crop[1]} is larger than the images ({height}x{width}, enlarged "
        f"by at most {scale:g}); the rest is padding. Fix: reduce data.crop_size"
    )


def device(trainer: pl.Trainer, chosen: str = "") -> str:
    """Return the line of the startup summary about devices and precision."""
    kind = trainer.strategy.root_device.type
    threads = f" ({torch.get_num_threads()} threads)" if kind == "cpu" else ""
    reason = f" (chosen: {chosen})" if chosen else ""
    return f"{trainer.world_size} x {kind}{threads}, precision {trainer.precision}{reason}"


def batch(config: Config, devices: int, accumulated: int) -> str:
    """Return the line of the startup summary about batch size and learning rate."""
    size = config.data.batch_size
    parts = [f"{devices} devices"] * (devices > 1) + [f"{size // (devices * accumulated)} images"]
    parts += [f"{accumulated} accumulated"] * (accumulated > 1)
    whole = f" = {' x '.join(parts)}" if len(parts) > 1 else ""
    return f"batch {size}{whole}, largest lr {config.optimizer.lr:g}"


def scaled_lr(config: Config) -> str:
    """Return a note if a shipped recipe is used with its own lr, but another batch size."""
    path = shipped_configs().get(config.name)
    recipe = load_config(path) if path else config
    same_rate = (config.optimizer.name, config.optimizer.lr) == ("sgd", recipe.optimizer.lr)
    if not same_rate or config.data.batch_size == recipe.data.batch_size:
        return ""
    scaled = recipe.optimizer.lr * config.data.batch_size / recipe.data.batch_size
    return (
        f"lr {recipe.optimizer.lr:g} of {config.name} is for batch size {recipe.data.batch_size}; "
        f"linear scaling to {config.data.batch_size} gives optimizer.lr={scaled:g}"
    )


GIB = 2**30
# Fitted to measurements on a CPU:
# BACKWARD: bytes at the peak of the backward pass per byte that the forward pass saves;
# LOSS_MAPS: number of full-size logit maps in the loss;
# WORKSPACE: working memory of libraries, in bytes;
# RECOMPUTED: share of the activations that activation checkpointing saves.
BACKWARD, LOSS_MAPS, WORKSPACE, RECOMPUTED = 1.25, 5, 80 * 2**20, 0.45
_STATES = {"sgd": 1, "adamw": 2}  # values per parameter in the optimizer's state


def training_bytes(
    model: Segmenter, images: int, crop_size: Sequence[int], precision: str, optimizer: str
) -> int:
    """Return the peak memory of a training step on one device, in bytes, within about 20 %.

    Args:
        model: the network.
        images: images per device and step.
        crop_size: (height, width) of the images.
        precision: precision of the Trainer, for example "bf16-mixed".
        optimizer: name of the optimizer.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    states = sum(p.numel() * p.element_size() for p in trained) * (1 + _STATES.get(optimizer, 2))
    activations, logits = _saved_for_backward(model)
    if precision.startswith(("16", "bf16")):
        activations /= 2
        parameters += parameters // 2  # a copy of the weights in this precision
    if model.recompute:
        activations *= RECOMPUTED
    pixel = BACKWARD * activations + LOSS_MAPS * 4 * logits
    return int(parameters + states + WORKSPACE + pixel * images * crop_size[0] * crop_size[1])


def forecast(needed: int, free: int | None) -> str:
    """Return the needed and the free memory (bytes) as text, with a fix if it is too little."""
    text = f"about {needed / GIB:.1f} GiB needed"
    text += "" if free is None else f", {free / GIB:.1f} GiB free"
    if free is None or needed <= free:
        return text
    return (
        f"{text}: probably too little. Fix: reduce data.batch_size or data.crop_size, or set "
        "trainer.precision=bf16-mixed or model.activation_checkpointing=true"
    )


def _free_bytes(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available) if device.type == "cpu" else None


def _saved_for_backward(model: Segmenter) -> tuple[float, int]:
    """Return the bytes that a float32 forward pass saves per pixel, and the logits per pixel."""
    copy = deepcopy(model).train()
    copy.recompute = False
    own = {t.untyped_storage().data_ptr() for t in (*copy.parameters(), *copy.buffers())}
    storages: dict[int, Any] = {}  # references, so that no address is reused

    def record(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage
        return tensor

    channels = int(model.architecture.get("in_channels", 3))
    image = torch.zeros(2, channels, 32, 64, device=next(copy.parameters()).device)
    with (
        torch.random.fork_rng(devices=[]),  # dropout uses random numbers
        torch.autograd.graph.saved_tensors_hooks(record, lambda tensor: tensor),
    ):
        outputs = copy.outputs(image)
    logits = sum(output.shape[1] for output in outputs.values())
    return sum(storage.nbytes() for storage in storages.values()) / image[:, 0].numel(), logits
