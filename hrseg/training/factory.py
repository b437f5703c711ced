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
from hrseg.utils.console import say
from hrseg.utils.registry import build


def build_data(config: Config) -> SegmentationDataModule:
    """Return the DataModule that the config's `data` section describes."""
    return build(DATASETS, to_dict(config.data), "data set", seed=config.seed)


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
    model = engine or build_model(config, data)
    if weights and model_config.freeze_backbone and model_config.weights is None:
        raise ConfigError(
            "model.freeze_backbone keeps the backbone as it is, but model.weights is null: "
            "its features would be random.\nName a checkpoint in model.weights."
        )
    if weights and isinstance(model, Segmenter) and model_config.weights is not None:
        report = load_weights(model, model_config.weights, purpose="initialise")
        say(str(report))
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
