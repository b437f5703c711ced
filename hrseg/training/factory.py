"""Construction of the DataModule and the task from a config."""

from typing import Any

from hrseg.checkpoints.loading import build_model, load_weights
from hrseg.config.loader import to_dict
from hrseg.config.protocols import make_protocol
from hrseg.config.schema import Config
from hrseg.data import DATASETS
from hrseg.data.datamodule import SegmentationDataModule
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import Engine
from hrseg.models import Segmenter
from hrseg.training.task import SegmentationTask
from hrseg.utils.console import echo
from hrseg.utils.registry import build


def build_data(config: Config) -> SegmentationDataModule:
    """Return the DataModule of the config's section `data`."""
    return build(DATASETS, to_dict(config.data), "data set", seed=config.seed)


def build_task(
    config: Config,
    data: SegmentationDataModule,
    weights: bool = True,
    engine: Engine | None = None,
) -> SegmentationTask:
    """Return the task for a data set.

    Args:
        config: the config.
        data: its DataModule, with class names, palette and class weights.
        weights: load `model.weights`.
        engine: an exported file, which replaces the network; it can be scored, but not trained.

    Raises:
        ConfigError: a frozen backbone without weights, or invalid class weights.
    """
    options = config.model
    model = engine or build_model(config, data)
    if weights and options.freeze_backbone and options.weights is None:
        raise ConfigError(
            "model.freeze_backbone is true, but model.weights is null: the features would be "
            "random.\nExpected: pretrained weights. Fix: set model.weights to a checkpoint"
        )
    if weights and isinstance(model, Segmenter) and options.weights is not None:
        echo(str(load_weights(model, options.weights, purpose="initialise")))
    task = SegmentationTask(
        model,
        class_names=data.class_names,
        palette=data.palette,
        flip_pairs=data.flip_pairs,
        losses=["cross_entropy"] if engine else [_loss(to_dict(x), data) for x in config.losses],
        optimizer=to_dict(config.optimizer),
        schedule=to_dict(config.schedule),
        protocol=make_protocol(config.inference.protocol, to_dict(config.inference)),
        scale_report=config.inference.scale_report,
        window_batch=config.inference.window_batch,
        activation_checkpointing=options.activation_checkpointing,
        compile=options.compile,
        freeze_backbone=options.freeze_backbone and engine is None,
        on_bad_loss=config.on_bad_loss,
        channels=data.channels,
    )
    if config.inference.details:
        task.score_calibration()
    return task


def _loss(spec: dict[str, Any], data: SegmentationDataModule) -> dict[str, Any]:
    weights = spec.get("class_weights")
    if weights == "dataset":
        weights = spec["class_weights"] = data.class_weights
        if weights is None:
            raise ConfigError(
                f"losses: class_weights is 'dataset', but {type(data).__name__} has none.\n"
                "Expected: one number per class, or null. Fix: class_weights: null"
            )
    if weights is not None and len(weights) != data.num_classes:
        raise ConfigError(
            f"losses: class_weights is {weights!r}.\nExpected: null, 'dataset', or "
            f"{data.num_classes} numbers, for {', '.join(data.class_names)}."
        )
    return spec
