"""Schema of the config: a pydantic model per section, a description per option.

Options of a named section equal the parameters of the named part, so a new data set, head,
loss or optimizer is one model and one row below. `hrseg.config.plugins` adds rows for plugins.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from hrseg.config.parts import PARTS, Part
from hrseg.config.protocols import PROTOCOLS, Color, Protocol, Side
from hrseg.config.trainer import TrainerConfig, checked_trainer
from hrseg.utils.text import one_line
from hrseg.utils.validation import Checked, expected, option

Sides = tuple[Side, Side]


class DataConfig(Checked):
    """Options of every data set: those of `hrseg.data.options.DataOptions`."""

    name: str = option("the data set")
    root: str = option("folder of the data set")
    train_split: str = option("split to train on", "train")
    val_split: str = option("split to validate on", "val")
    test_split: str = option("split to predict for a benchmark's server", "test")
    batch_size: int = option("images per optimizer step, over all devices", 8, ge=1)
    crop_size: Sides = option("training crop, (height, width)", (256, 256))
    scales: tuple[Annotated[float, Field(ge=0.01)], ...] = option(
        "random scale: (first, last, step) draws in steps, last included; (low, high) uniformly",
        (0.5, 2.1, 0.1),
    )
    base_size: int | None = option(
        "long side of training images at scale 1; null: their own. Evaluation keeps their size",
        None,
        ge=32,
    )
    squash: Sides | None = option(
        "(height, width) that training images are resized to first, whatever their shape", None
    )
    flip: float = option("probability of a horizontal flip", 0.5, ge=0, le=1)
    photometric: float = option("strength of brightness, contrast, colour jitter", 0.0, ge=0, le=2)
    class_uniform: float = option(
        "share of training crops with a class drawn uniformly, so that rare ones are seen",
        0.0,
        ge=0,
        le=1,
    )
    cache: str | None = option("folder that `hrseg data cache` decoded the images to", None)
    workers: int = option("processes that load data; 0 loads in the main process", 2, ge=0)
    worker_timeout: float | None = option(
        "seconds for one sample before a data worker counts as hung; null: for ever", 300.0, ge=0
    )
    on_error: Literal["fail", "skip"] = option(
        "an image or mask that cannot be read: fail, or skip (counted, listed; up to 10 %)", "fail"
    )
    manifest: str | None = option(
        "sha256 of every file, by `hrseg data check --hash`; compared when a file is read", None
    )

    @field_validator("scales")
    @classmethod
    def _whole_steps(cls, scales: tuple[float, ...]) -> tuple[float, ...]:
        whole = len(scales) in (2, 3) and scales[0] <= scales[1]
        if whole and len(scales) == 3:
            steps = (scales[1] - scales[0]) / scales[2]
            whole = abs(steps - round(steps)) <= 1e-6
        if not whole:
            raise expected(
                "(first, last, step) with whole steps from first to last, e.g. [0.5, 2.1, 0.1], "
                "or (low, high)."
            )
        return scales


class PascalContextConfig(DataConfig):
    """PASCAL-Context in a VOC2010 folder; masks by scripts/prepare_pascal_context."""

    num_classes: int = option("59, or 60 with the background", 59, ge=59, le=60)


class SyntheticConfig(DataConfig):
    """Street-like scenes drawn by hrseg itself, written once under `root`."""

    num_train: int = option("training images", 64, ge=1)
    num_val: int = option("validation images", 16, ge=1)
    image_size: Sides = option("(height, width) of a scene", (192, 256))


class FolderConfig(DataConfig):
    """The user's own images and masks."""

    class_names: tuple[str, ...] = option(
        "a name per train id; empty: classes.json or classes.txt", (), examples=[("road", "sky")]
    )
    palette: tuple[Color, ...] | None = option(
        "an RGB colour per class", None, examples=[((128, 64, 128), (70, 130, 180))]
    )
    image_folder: str = option("folder of the images, relative to root", "images")
    mask_folder: str = option("folder of the masks, relative to root", "masks")
    mask_suffix: str = option("suffix of a mask's stem after the image's, e.g. _mask", "")
    mask_format: Literal["index", "rgb"] = option(
        "class ids (palette PNGs too), or RGB colours", "index"
    )
    id_map: dict[int, int] | None = option(
        "raw id -> train id, 255 = ignore", None, examples=[{0: 0, 7: 1}]
    )
    ignore_ids: tuple[int, ...] = option("unscored raw ids", (255,))
    val_fraction: float | None = option(
        "share of the images held out for validation, without split folders", None, gt=0, lt=1
    )
    split_seed: int = option("seed of the held-out share", 304, ge=0)


class BackboneConfig(Checked):
    """The backbone: an HRNet variant, or a plugin's with its arguments."""

    name: str = option("the backbone")


class HRNetConfig(BackboneConfig):
    """An HRNet variant."""

    upsample: Literal["bilinear", "nearest"] = option(
        "interpolation between streams; nearest: as the authors' ImageNet network", "bilinear"
    )


class HeadConfig(Checked):
    """The head: fcn (the paper's HRNetV2 head) or ocr (object-contextual representations)."""

    name: str = option("the head")


class LossConfig(Checked):
    """Options of every loss; training minimises their weighted sum."""

    name: str = option("the loss")
    on: str = option("output of the model: out, or aux of an OCR head", "out")
    weight: float = option("factor of this loss in the sum", 1.0)


class CrossEntropyConfig(LossConfig):
    """Cross-entropy over the labelled pixels."""

    class_weights: tuple[float, ...] | Literal["dataset"] | None = option(
        "one number per class, or those published with the data set", None
    )


class OhemConfig(CrossEntropyConfig):
    """Cross-entropy over the hard pixels (online hard example mining)."""

    threshold: float = option(
        "pixels below this probability of their class are hard", 0.9, gt=0, le=1
    )
    min_kept: int = option("smallest number of pixels in the loss, per device", 131072, ge=1)


class BoundaryConfig(LossConfig):
    """1 - F-score of the contours; beside cross-entropy."""

    tolerance: int = option("tolerance of contours, in pixels", 3, ge=1)


class RMIConfig(LossConfig):
    """Region mutual information; beside cross-entropy."""

    stride: int = option("stride of average pooling before the loss", 3, ge=1)


class OptimizerConfig(Checked):
    """Options of every optimizer."""

    name: str = option("the optimizer")
    lr: float = option("learning rate", 0.01, ge=0)
    weight_decay: float = option("weight decay, on every parameter", 5e-4, ge=0)
    head_lr_multiplier: float = option("factor of the learning rate for the head", 1.0, ge=0)


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: float = option("momentum", 0.9, ge=0)


class AdamWConfig(OptimizerConfig):
    """AdamW."""

    lr: float = option("learning rate", 0.001, ge=0)
    weight_decay: float = option("weight decay, on every parameter", 0.01, ge=0)


class ScheduleConfig(Checked):
    """Options of every schedule."""

    name: str = option("the schedule")
    warmup_steps: int = option("steps of linear warm-up from 0", 0, ge=0)


class PolyConfig(ScheduleConfig):
    """lr x (1 - step / steps) ^ power, per optimizer step."""

    power: float = option("power of the polynomial decay", 0.9, ge=0)


PARTS.update({
    "data": {
        **dict.fromkeys(("camvid", "cityscapes", "lip", "ade20k", "cocostuff10k"), DataConfig),
        "pascal_context": PascalContextConfig,
        "synthetic": SyntheticConfig,
        "folder": FolderConfig,
    },
    "model.backbone": dict.fromkeys(
        ("hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40",
         "hrnet_w48"), HRNetConfig),
    "model.head": {"fcn": HeadConfig, "ocr": HeadConfig},
    "losses": {
        "cross_entropy": CrossEntropyConfig,
        "ohem": OhemConfig,
        "dice": LossConfig,
        "lovasz": LossConfig,
        "boundary": BoundaryConfig,
        "rmi": RMIConfig,
    },
    "optimizer": {"sgd": SGDConfig, "adamw": AdamWConfig},
    "schedule": {"poly": PolyConfig},
})  # fmt: skip


class ModelConfig(Checked):
    """The network."""

    backbone: Annotated[BackboneConfig, Part("model.backbone")] = option("the HRNet variant")
    head: Annotated[HeadConfig, Part("model.head")] = option(
        "the head", lambda: HeadConfig(name="fcn")
    )
    align_corners: bool = option("corner alignment of every bilinear interpolation", False)
    bn_momentum: float = option("momentum of the batch norm statistics", 0.01, ge=0, le=1)
    output: Literal["v1", "v2"] = option(
        "input of the head: v1, only the stream of stride 4, or v2, all four", "v2"
    )
    weights: str | None = option(
        "initial weights: imagenet, ssld, timm/NAME, hf:USER/NAME, or a checkpoint; null: random",
        None,
        examples=["imagenet"],
    )
    freeze_backbone: bool = option("train only the head; batch norm statistics stay", False)
    activation_checkpointing: bool = option(
        "compute activations twice in training: less memory, more time", False
    )
    compile: bool = option(
        "torch.compile the network: minutes at first, then faster; needs a C++ compiler", False
    )


class EvaluationOptions(Checked):
    """How an image is evaluated; null takes the value of the protocol."""

    protocol: Literal[tuple(PROTOCOLS)] = option(  # type: ignore[valid-type]
        f"named preset: {', '.join(PROTOCOLS)}", "plain"
    )
    scale_report: bool = option("score every subset of the scales (at most 8)", False)
    details: bool = option(
        "boundary scores, distribution over images, confidence interval of mIoU", False
    )
    window_batch: int = option("windows and mirror images per forward pass", 4, ge=1)


def _or_null(field: FieldInfo) -> tuple[Any, Any]:
    """Return a field of `Protocol` with null as another value and the default."""
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


def _names_a_folder(name: str) -> str:
    short = len(name.encode("utf-8", "replace")) <= 200
    if short and one_line(name) == name and re.fullmatch(r"(?!\.)[^/\\]+", name):
        return name
    raise expected(
        "the name of a folder: no slash, no dot in front, no control characters, at most 200 bytes."
    )


class Config(Checked):
    """A whole experiment."""

    name: Annotated[str, AfterValidator(_names_a_folder)] = option(
        "the experiment; runs go to <runs>/<name>/"
    )
    seed: int = option("seed of every random draw", 304, ge=0, le=2**32 - 1)
    runs: str = option("folder that contains the run folders", "runs")
    data: Annotated[DataConfig, Part("data")] = option("the data set")
    model: ModelConfig = option("the network")
    losses: list[Annotated[LossConfig, Part("losses")]] = option(
        "the losses",
        lambda: [CrossEntropyConfig(name="cross_entropy")],
        min_length=1,
        examples=[("cross_entropy",)],
    )
    optimizer: Annotated[OptimizerConfig, Part("optimizer")] = option(
        "the optimizer", lambda: SGDConfig(name="sgd")
    )
    schedule: Annotated[ScheduleConfig, Part("schedule")] = option(
        "the learning rate schedule", lambda: PolyConfig(name="poly")
    )
    inference: InferenceConfig = option("the evaluation protocol", InferenceConfig)
    ema_decay: float | None = option(
        "weight averaging, e.g. 0.999; null: none", None, ge=0, le=0.99999
    )
    early_stopping_patience: int | None = option(
        "validations without a better mIoU before training stops", None, ge=1
    )
    save_every_minutes: float | None = option(
        "longest time between writes of last.ckpt, also during an epoch; null: at the ends of "
        "epochs and before validations",
        30.0,
        ge=0,
    )
    on_bad_loss: Literal["stop", "skip"] = option(
        "NaN and infinite losses: stop, or skip the step; the batch is saved", "stop"
    )
    prediction_images: int = option("validation images drawn as pictures", 4, ge=0)
    loggers: tuple[str, ...] = option(
        "beside metrics.csv: tensorboard, wandb, mlflow", ("tensorboard",)
    )
    trainer: Annotated[
        dict[str, Any], PlainValidator(checked_trainer, json_schema_input_type=TrainerConfig)
    ] = option("arguments of pytorch_lightning.Trainer", dict)
    # The values as they were loaded, with and without unresolved interpolation; for `to_yaml`.
    _source: tuple[Any, Any] = (None, None)


class _WithoutTitles(GenerateJsonSchema):
    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema of a config with all registered parts, for editors."""
    return Config.model_json_schema(schema_generator=_WithoutTitles)
