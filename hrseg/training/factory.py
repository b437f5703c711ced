"""From a config to objects: the DataModule, the task with its weights, the Trainer, a predictor."""

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from rich import get_console

from hrseg.checkpoints.loading import load_weights
from hrseg.checkpoints.metadata import stamp
from hrseg.checkpoints.reading import read_checkpoint
from hrseg.config.loader import to_dict
from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data import DATASETS
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import Engine
from hrseg.inference.predictor import Predictor
from hrseg.models import Segmenter, create_model
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.distributed import averaging, scout, trainer_refusals
from hrseg.training.loggers import build_loggers
from hrseg.training.task import SegmentationTask
from hrseg.visualize import default_palette


def build_data(config: Config) -> SegmentationDataModule:
    """Return the DataModule that the config's `data` section describes."""
    arguments = to_dict(config.data)
    data = DATASETS[arguments.pop("name")]
    return data(**arguments, seed=config.seed)


def build_task(
    config: Config,
    data: SegmentationDataModule,
    weights: bool = True,
    engine: Engine | None = None,
) -> SegmentationTask:
    """Return the task for a data set, started from `model.weights` if asked.

    With an `engine`, an exported file takes the place of the network: to be scored, not trained.
    """
    model_config = config.model
    model = engine or _model(config, data)
    if weights and model_config.freeze_backbone and model_config.weights is None:
        raise ConfigError(
            "model.freeze_backbone keeps the backbone as it is, but model.weights is null: "
            "its features would be random.\nName a checkpoint in model.weights."
        )
    if weights and isinstance(model, Segmenter) and model_config.weights is not None:
        report = load_weights(model, model_config.weights, purpose="initialise")
        get_console().print(str(report), highlight=False, markup=False, soft_wrap=True)
    return SegmentationTask(
        model,
        class_names=data.class_names,
        palette=data.palette,
        flip_pairs=data.flip_pairs,
        losses=["cross_entropy"] if engine else _losses(config, data),
        optimizer=to_dict(config.optimizer),
        schedule=to_dict(config.schedule),
        protocol=make_protocol(config.inference.protocol, to_dict(config.inference)),
        scale_report=config.inference.scale_report,
        window_batch=config.inference.window_batch,
        activation_checkpointing=model_config.activation_checkpointing,
        compile=model_config.compile,
        freeze_backbone=model_config.freeze_backbone and engine is None,
        on_bad_loss=config.on_bad_loss,
    )


def build_predictor(config: Config, checkpoint: Path, device: str, precision: str) -> Predictor:
    """Return a predictor of weights that do not say themselves what they are, as published ones.

    Raises:
        ConfigError: the file does not hold all weights of the config's model, or says itself what
            it is.
    """
    content = read_checkpoint(checkpoint)
    if "hrseg" in content:
        raise ConfigError(f"{checkpoint} says itself what it is: leave --config out.")
    data = build_data(config)
    model = _model(config, data)
    report = load_weights(model, content, purpose="evaluate", origin=checkpoint)
    get_console().print(str(report), highlight=False, markup=False, soft_wrap=True)
    return Predictor(model, facts_of(config, data, model), device, precision)


def facts_of(config: Config, data: SegmentationDataModule, model: Segmenter) -> dict[str, Any]:
    """Return, as plain data, what a checkpoint of hrseg says of itself."""
    protocol = make_protocol(config.inference.protocol, to_dict(config.inference))
    return {
        **stamp(),
        "architecture": dict(model.architecture),
        "class_names": list(data.class_names),
        "palette": [list(color) for color in data.palette or default_palette(data.num_classes)],
        "flip_pairs": [list(pair) for pair in data.flip_pairs],
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        "protocol": protocol.to_dict(),
    }


def build_model(config: Config) -> tuple[Segmenter, dict[str, Any]]:
    """Return the network that a config describes, with random weights, and its facts."""
    data = build_data(config)
    model = _model(config, data)
    return model, facts_of(config, data, model)


def _model(config: Config, data: SegmentationDataModule) -> Segmenter:
    return create_model(
        config.model.backbone,
        head=config.model.head.name,
        num_classes=len(data.class_names),
        align_corners=config.model.align_corners,
        bn_momentum=config.model.bn_momentum,
        output=config.model.output,
    )


def build_trainer(
    config: Config, folder: Path, callbacks: list[Callback], train: bool = True
) -> pl.Trainer:
    """Return the Trainer with the config's arguments and hrseg's own parts.

    Raises:
        ConfigError: Lightning refuses an argument, for example devices that are not there.
    """
    arguments = {"enable_model_summary": False, **to_dict(config)["trainer"]}
    if arguments.get("fast_dev_run"):
        arguments["accumulate_grad_batches"] = 1  # it tries single batches, of any size
    epochs, every = arguments.get("max_epochs"), arguments.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and isinstance(every, int) and 0 < epochs < every:
        arguments["check_val_every_n_epoch"] = epochs
    interval = arguments.get("val_check_interval")
    if isinstance(interval, int) and interval > 1:
        arguments["check_val_every_n_epoch"] = None  # every so many steps, across epochs
    place = scout(arguments)
    if place.strategy.root_device.type == "cpu":
        arguments.pop("sync_batchnorm", None)  # there is none for CPUs
    arguments["strategy"] = averaging(place, arguments)
    said = arguments.pop("plugins", None) or []
    plugins = said if isinstance(said, list | tuple) else [said]
    with trainer_refusals(arguments):
        return pl.Trainer(
            **arguments,
            logger=build_loggers(config, folder) if train else False,
            callbacks=callbacks,
            plugins=[*plugins, DurableCheckpointIO()],
            default_root_dir=folder,
            use_distributed_sampler=False,
        )


def _losses(config: Config, data: SegmentationDataModule) -> list[dict[str, Any]]:
    return [_loss(to_dict(loss), data) for loss in config.losses]


def _loss(spec: dict[str, Any], data: SegmentationDataModule) -> dict[str, Any]:
    """Return the loss with the data set's weights in place of the word 'dataset'."""
    weights = spec.get("class_weights")
    if weights == "dataset":
        weights = spec["class_weights"] = data.class_weights
        if weights is None:
            raise ConfigError(
                f"losses: class_weights is 'dataset', but {type(data).__name__} has none.\n"
                "Give a list of one number per class, or null."
            )
    numbers = isinstance(weights, tuple) and all(isinstance(w, int | float) for w in weights)
    if weights is not None and not (numbers and len(weights) == data.num_classes):
        raise ConfigError(
            f"losses: class_weights is {weights!r}; expected null, 'dataset', or "
            f"{data.num_classes} numbers, for {', '.join(data.class_names)}."
        )
    return spec
