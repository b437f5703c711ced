"""Schema of the config: a pydantic model per section, a description per option.

The options of a named section are the parameters of the named part. A new data set, head, loss or
optimizer needs a model and a row of `PARTS`. `hrseg.config.plugins` adds the rows of plugins.
"""

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainValidator, create_model, field_validator
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema

from hrseg.config.parts import PARTS, Part
from hrseg.config.protocols import PROTOCOLS, Color, Protocol, Side
from hrseg.config.trainer import TrainerConfig, checked_trainer
from hrseg.utils.augmentations import AUGMENTATIONS, Augmentation
from hrseg.utils.text import one_line
from hrseg.utils.validation import Checked, expected, option

Sides = tuple[Side, Side]


class DataConfig(Checked):
    """Options of every data set: those of `hrseg.data.options.DataOptions`."""

    name: str = option("name of the data set")
    root: str = option("folder of the data set")
    train_split: str = option("name of the training split", "train")
    val_split: str = option("name of the validation split", "val")
    test_split: str = option("name of the split to predict for a benchmark server", "test")
    batch_size: int = option("images per optimizer step, over all devices", 8, ge=1)
    crop_size: Sides = option("training crop (height, width), in pixels", (256, 256))
    scales: tuple[Annotated[float, Field(ge=0.01)], ...] = option(
        "random scale: one of (first, last, step), last included, or uniform in (low, high)",
        (0.5, 2.1, 0.1),
    )
    base_size: int | None = option(
        "long side of training images at scale 1, in pixels; null: their own",
        None,
        ge=32,
    )
    squash: Sides | None = option(
        "first size of training images (height, width), without their aspect ratio", None
    )
    flip: float = option("probability of a horizontal flip in training", 0.5, ge=0, le=1)
    photometric: float = option(
        "strength of random brightness, contrast and colour; 0: none", 0.0, ge=0, le=2
    )
    augment: tuple[Annotated[Augmentation, Part("data.augment")], ...] = option(
        "further random transforms of training crops, in this order",
        (),
        examples=[("rotate90", "blur")],
    )
    class_uniform: float = option(
        "share of training crops with class-balanced sampling: around a uniformly drawn class",
        0.0,
        ge=0,
        le=1,
    )
    channels: tuple[Annotated[int, Field(ge=1, le=512)], ...] | None = option(
        "bands of the images, counted from 1; null: red, green, blue",
        None,
        min_length=1,
        examples=[(4, 3, 2, 8)],
    )
    value_range: tuple[float, float] | None = option(
        "values (low, high) that become 0 and 1; null: 0 to 255 for 8 bits, measured for 16 bits",
        None,
        examples=[(0, 4000)],
    )
    cache: str | None = option("folder of `hrseg data cache` with the decoded images", None)
    workers: int = option("data loading processes; 0: load in the main process", 2, ge=0)
    worker_timeout: float | None = option(
        "seconds per sample until a data worker counts as hung; null: no limit", 300.0, ge=0
    )
    on_error: Literal["fail", "skip"] = option(
        "unreadable images and masks: fail, or skip and list them (at most 10 %)", "fail"
    )
    manifest: str | None = option(
        "file of `hrseg data check --hash` with SHA-256 sums, compared when files are read", None
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

    @field_validator("value_range")
    @classmethod
    def _low_and_high(cls, value_range: tuple[float, float] | None) -> tuple[float, float] | None:
        if value_range is not None and value_range[0] >= value_range[1]:
            raise expected("low below high, e.g. [0, 4000].")
        return value_range


class PascalContextConfig(DataConfig):
    """PASCAL-Context in a VOC2010 folder, with masks of scripts/prepare_pascal_context."""

    num_classes: int = option("number of classes: 59, or 60 with the background", 59, ge=59, le=60)


class SyntheticConfig(DataConfig):
    """Street-like scenes drawn by hrseg, written once to `root`."""

    num_train: int = option("number of training images", 64, ge=1)
    num_val: int = option("number of validation images", 16, ge=1)
    image_size: Sides = option("size of a scene (height, width), in pixels", (192, 256))


class FolderConfig(DataConfig):
    """The user's own images and masks."""

    class_names: tuple[str, ...] = option(
        "class names by train id; empty: those in classes.json or classes.txt",
        (),
        examples=[("road", "sky")],
    )
    palette: tuple[Color, ...] | None = option(
        "RGB colours by train id", None, examples=[((128, 64, 128), (70, 130, 180))]
    )
    image_folder: str = option("folder of the images, relative to root", "images")
    mask_folder: str = option("folder of the masks, relative to root", "masks")
    mask_suffix: str = option("end of a mask's name after the common name, e.g. _mask", "")
    mask_prefix: str = option("beginning of a mask's name, e.g. label_", "")
    image_prefix: str = option("beginning of an image's name, e.g. image_", "")
    image_suffix: str = option("end of an image's name after the common name, e.g. _sat", "")
    pair_list: str | None = option(
        "list of all pairs instead of folders, a .csv file of image,mask relative to root", None
    )
    mask_format: Literal["index", "rgb", "alpha"] = option(
        "class ids (palette PNGs too), RGB colours, or values of the alpha channel", "index"
    )
    id_map: dict[int, int] | None = option(
        "train id by raw id; train id 255 is ignored", None, examples=[{0: 0, 7: 1}]
    )
    ignore_ids: tuple[int, ...] = option("raw ids ignored in training and scores", (255,))
    val_fraction: float | None = option(
        "share of the images for validation, without split folders", None, gt=0, lt=1
    )
    group_by: str | None = option(
        "groups of images on one side of val_fraction: a regular expression over the path, whose "
        "first group is the group, or a CSV file below root (FILE.csv or FILE.csv:COLUMN)",
        None,
        examples=["^(.+)_"],
    )
    split_seed: int = option("seed of the held-out share", 304, ge=0)


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
        ("hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40",
         "hrnet_w48"), HRNetConfig),
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
    output: Literal["v1", "v2"] = option(
        "input of the head: v1, only the stream of stride 4, or v2, all four", "v2"
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
