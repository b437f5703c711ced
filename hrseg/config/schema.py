"""Schema of the config: a pydantic model per section, a description per option.

The options of a named section are the parameters of the named part. A new data set, head, loss or
optimizer needs a model and a row of `PARTS`. `hrseg.config.plugins` adds the rows of plugins.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, PlainValidator, create_model
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from hrseg.config.data_schema import (
    DataConfig,
    FolderConfig,
    PascalContextConfig,
    SyntheticConfig,
)
from hrseg.config.parts import PARTS, Part
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.config.trainer import TrainerConfig, checked_trainer
from hrseg.utils.augmentations import AUGMENTATIONS
from hrseg.utils.text import one_line
from hrseg.utils.validation import Checked, expected, option


class BackboneConfig(Checked):
    """The backbone: an HRNet variant, or the backbone of a plugin with its arguments."""

    name: str = option("name of the backbone")


class HRNetConfig(BackboneConfig):
    """An HRNet variant."""

    upsample: Literal["bilinear", "nearest"] = option(
        "interpolation between streams; nearest: as in the authors' ImageNet network", "bilinear"
    )


class HeadConfig(Checked):
    """The head: fcn (the paper's HRNetV2 head) or ocr (object-contextual representations)."""

    name: str = option("name of the head")


class LossConfig(Checked):
    """Options of every loss; training minimises their weighted sum."""

    name: str = option("name of the loss")
    on: str = option("output of the model: out, or aux of an OCR head", "out")
    weight: float = option("factor of this loss in the sum", 1.0)


class CrossEntropyConfig(LossConfig):
    """Cross-entropy over the labelled pixels."""

    class_weights: tuple[float, ...] | Literal["dataset"] | None = option(
        "weight per class; dataset: those published with the data set; null: equal weights", None
    )


class OhemConfig(CrossEntropyConfig):
    """Cross-entropy over the hard pixels (online hard example mining)."""

    threshold: float = option(
        "pixels below this probability of their class are hard", 0.9, gt=0, le=1
    )
    min_kept: int = option("smallest number of pixels in the loss, per device", 131072, ge=1)


class FocalConfig(CrossEntropyConfig):
    """Cross-entropy with less weight on easy pixels."""

    gamma: float = option(
        "exponent of 1 - p; larger: less weight on easy pixels; 0: cross-entropy", 2.0, ge=0
    )


class TverskyConfig(LossConfig):
    """1 - TP / (TP + alpha FP + beta FN); with 0.5 and 0.5: dice."""

    alpha: float = option("weight of false positives", 0.3, gt=0)
    beta: float = option("weight of false negatives", 0.7, gt=0)


class BoundaryConfig(LossConfig):
    """1 - F-score of the contours, in addition to cross-entropy."""

    tolerance: int = option("tolerance of contours, in pixels", 3, ge=1)


class RMIConfig(LossConfig):
    """Region mutual information, in addition to cross-entropy."""

    stride: int = option("stride of average pooling before the loss", 3, ge=1)


class OptimizerConfig(Checked):
    """Options of every optimizer."""

    name: str = option("name of the optimizer")
    lr: float = option("base learning rate", 0.01, ge=0)
    weight_decay: float = option("weight decay of every parameter", 5e-4, ge=0)
    head_lr_multiplier: float = option("factor of the learning rate for the head", 1.0, ge=0)


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: float = option("momentum of SGD", 0.9, ge=0)


class AdamWConfig(OptimizerConfig):
    """AdamW: Adam with decoupled weight decay."""

    lr: float = option("base learning rate", 0.001, ge=0)
    weight_decay: float = option("weight decay of every parameter", 0.01, ge=0)


class ScheduleConfig(Checked):
    """Options of every schedule."""

    name: str = option("name of the schedule")
    warmup_steps: int = option("steps of linear warm-up from 0", 0, ge=0)


class PolyConfig(ScheduleConfig):
    """Learning rate lr x (1 - step / steps) ^ power, per optimizer step."""

    power: float = option("power of the polynomial decay", 0.9, ge=0)


PARTS.update({
    "data": {
        **dict.fromkeys(("camvid", "cityscapes", "lip", "ade20k", "cocostuff10k"), DataConfig),
        "pascal_context": PascalContextConfig,
        "synthetic": SyntheticConfig,
        "folder": FolderConfig,
    },
    "data.augment": dict(AUGMENTATIONS),
    "model.backbone": dict.fromkeys(
        ("hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w30", "hrnet_w32",
         "hrnet_w40", "hrnet_w44", "hrnet_w48", "hrnet_w64"), HRNetConfig),
    "model.head": {"fcn": HeadConfig, "ocr": HeadConfig},
    "losses": {
        "cross_entropy": CrossEntropyConfig,
        "ohem": OhemConfig,
        "focal": FocalConfig,
        "dice": LossConfig,
        "tversky": TverskyConfig,
        "lovasz": LossConfig,
        "boundary": BoundaryConfig,
        "rmi": RMIConfig,
    },
    "optimizer": {"sgd": SGDConfig, "adamw": AdamWConfig},
    "schedule": {"poly": PolyConfig, "cosine": ScheduleConfig, "constant": ScheduleConfig},
})  # fmt: skip


class ModelConfig(Checked):
    """The network."""

    backbone: Annotated[BackboneConfig, Part("model.backbone")] = option(
        "backbone: an HRNet variant, or a backbone of a plugin"
    )
    head: Annotated[HeadConfig, Part("model.head")] = option(
        "head: fcn, ocr, or a head of a plugin", lambda: HeadConfig(name="fcn")
    )
    align_corners: bool = option("align_corners of every bilinear interpolation", False)
    bn_momentum: float = option("momentum of the batch norm statistics", 0.01, ge=0, le=1)
    exchange: Literal["all", "stages", "final"] = option(
        "fusions of the streams: all; stages: the last of each stage; final: the last of all", "all"
    )
    output: Literal["v1", "v1h", "v2", "stream_2", "stream_3", "stream_4"] = option(
        "input of the head: v2: all streams; v1: the stream of stride 4; v1h: that stream, widened "
        "to the channels of v2; stream_2, stream_3, stream_4: the stream of stride 8, 16, 32",
        "v2",
    )
    weights: str | None = option(
        "initial weights: imagenet, ssld, timm/NAME, hf:USER/NAME, or a checkpoint; null: random",
        None,
        examples=["imagenet"],
    )
    freeze_backbone: bool = option(
        "train only the head; the backbone's batch norm statistics stay", False
    )
    activation_checkpointing: bool = option(
        "recompute activations in the backward pass: less memory, more time", False
    )
    compile: bool = option(
        "compile the network by torch.compile: a slow start, then faster; needs a C++ compiler",
        False,
    )


class EvaluationOptions(Checked):
    """Evaluation of images; null stands for the value of the protocol."""

    protocol: Literal[tuple(PROTOCOLS)] = option(  # type: ignore[valid-type]
        f"named preset: {', '.join(PROTOCOLS)}", "plain"
    )
    scale_report: bool = option("also score every subset of the scales (at most 8 scales)", False)
    details: bool = option(
        "add boundary scores, distribution over images and confidence interval of mIoU", False
    )
    window_batch: int = option("windows and mirror images per forward pass", 4, ge=1)


def _or_null(field: FieldInfo) -> tuple[Any, Any]:
    """Return a field of `Protocol` that also accepts null, its default."""
    kind: Any = field.annotation
    if field.metadata:
        kind = Annotated[(kind, *field.metadata)]
    return (kind | None, option(str(field.description), None, examples=field.examples))


if TYPE_CHECKING:
    InferenceConfig = EvaluationOptions
else:
    _fields = {name: _or_null(field) for name, field in Protocol.model_fields.items()}
    del _fields["name"]
    InferenceConfig = create_model("InferenceConfig", __base__=EvaluationOptions, **_fields)
    InferenceConfig.__doc__ = EvaluationOptions.__doc__


def _folder_name(name: str) -> str:
    short = len(name.encode("utf-8", "replace")) <= 200
    if short and one_line(name) == name and re.fullmatch(r"(?!\.)[^/\\]+", name):
        return name
    raise expected(
        "the name of a folder without slash, leading dot and control characters, at most 200 bytes."
    )


class Config(Checked):
    """The config of an experiment."""

    name: Annotated[str, AfterValidator(_folder_name)] = option(
        "name of the experiment; its runs are in <runs>/<name>/"
    )
    seed: int = option("seed of all random numbers", 304, ge=0, le=2**32 - 1)
    runs: str = option("folder that contains the run folders", "runs")
    data: Annotated[DataConfig, Part("data")] = option("the data set")
    model: ModelConfig = option("the network")
    losses: list[Annotated[LossConfig, Part("losses")]] = option(
        "the losses, whose weighted sum is trained",
        lambda: [CrossEntropyConfig(name="cross_entropy")],
        min_length=1,
        examples=[("cross_entropy",)],
    )
    optimizer: Annotated[OptimizerConfig, Part("optimizer")] = option(
        "the optimizer", lambda: SGDConfig(name="sgd")
    )
    schedule: Annotated[ScheduleConfig, Part("schedule")] = option(
        "the learning rate schedule: poly, cosine (half a period, down to 0) or constant",
        lambda: PolyConfig(name="poly"),
    )
    inference: InferenceConfig = option("the evaluation protocol", InferenceConfig)
    ema_decay: float | None = option(
        "decay of the weight average (EMA), e.g. 0.999; null: no average", None, ge=0, le=0.99999
    )
    early_stopping_patience: int | None = option(
        "validations without a better mIoU until training stops; null: no early stopping",
        None,
        ge=1,
    )
    save_every_minutes: float | None = option(
        "longest time between writes of last.ckpt, in minutes, also during an epoch; null: only "
        "at the ends of epochs and before validations",
        30.0,
        ge=0,
    )
    on_bad_loss: Literal["stop", "skip"] = option(
        "NaN and infinite losses: stop, or skip the step; the batch is saved", "stop"
    )
    prediction_images: int = option("number of validation images drawn as pictures", 4, ge=0)
    loggers: tuple[str, ...] = option(
        "loggers in addition to metrics.csv: tensorboard, wandb, mlflow", ("tensorboard",)
    )
    trainer: Annotated[
        dict[str, Any], PlainValidator(checked_trainer, json_schema_input_type=TrainerConfig)
    ] = option("arguments of pytorch_lightning.Trainer", dict)
    # The loaded values, and their source with unresolved interpolation; for `to_yaml`.
    _source: tuple[Any, Any] = (None, None)


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config with all registered parts, for editors."""
    return Config.model_json_schema(schema_generator=_WithoutTitles)
