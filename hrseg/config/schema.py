"""Schema of the config: a dataclass per section, a sentence of help per field.

Fields of a named section equal the parameters of what the name builds, so a new data set, head,
loss or optimiser is one dataclass and one row in `SECTIONS`.
"""

import inspect
from collections.abc import Callable, Container
from dataclasses import MISSING as NO_DEFAULT
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from omegaconf import MISSING

Backbone = Literal[
    "hrnet_w18_small_v1", "hrnet_w18_small_v2", "hrnet_w18", "hrnet_w32", "hrnet_w40", "hrnet_w48"
]


def option(
    help: str,
    default: Any = NO_DEFAULT,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Any:
    """Return a dataclass field with its sentence; without a default it is required in the YAML."""
    metadata = {"help": help, "at_least": at_least, "at_most": at_most}
    if default is NO_DEFAULT:
        return field(default=MISSING, metadata=metadata)
    if isinstance(default, list | dict) or is_dataclass(default):
        return field(default_factory=lambda: default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass
class DataConfig:
    """What every data set takes."""

    name: str = option("the data set")
    root: str = option("the folder that holds the data set")
    train_split: str = option("split to train on", "train")
    val_split: str = option("split to validate on", "val")
    test_split: str = option("split to predict for a benchmark's server", "test")
    batch_size: int = option(
        "global batch: devices x nodes x accumulation x per-device", 8, at_least=1
    )
    crop_size: tuple[int, int] = option("training crop, (height, width)", (256, 256), at_least=32)
    scales: tuple[float, ...] = option(
        "random scale: (first, last, step) draws in steps, last included; (low, high) uniformly",
        (0.5, 2.1, 0.1),
        at_least=0.01,
    )
    base_size: int | None = option(
        "long side of training images at scale 1; null: their own. Evaluation keeps their size",
        None,
        at_least=32,
    )
    squash: tuple[int, int] | None = option(
        "(height, width) that training images are brought to first, whatever their shape",
        None,
        at_least=32,
    )
    flip: float = option("probability of a horizontal flip", 0.5, at_least=0, at_most=1)
    photometric: float = option(
        "strength of brightness, contrast, colour jitter", 0.0, at_least=0, at_most=2
    )
    class_uniform: float = option(
        "share of training crops that hold a class drawn uniformly, so that rare ones are seen",
        0.0,
        at_least=0,
        at_most=1,
    )
    cache: str | None = option("folder that `hrseg data cache` decoded the images to", None)
    workers: int = option("processes that load data; 0 loads in the main process", 2, at_least=0)
    worker_timeout: float | None = option(
        "seconds for one sample before a data worker counts as hung; null: for ever",
        300.0,
        at_least=0,
    )
    on_error: Literal["fail", "skip"] = option(
        "an image or mask that cannot be read: fail, or skip (counted, listed; up to 10 %)", "fail"
    )
    manifest: str | None = option(
        "sha256 of every file, by `hrseg data check --hash`; what is read is compared with it", None
    )


@dataclass
class CamVidConfig(DataConfig):
    """CamVid, 11 classes, as distributed with SegNet: {train,val}/ and {train,val}annot/."""


@dataclass
class CityscapesConfig(DataConfig):
    """Cityscapes, 19 classes: leftImg8bit/ and gtFine/ as downloaded."""


@dataclass
class LIPConfig(DataConfig):
    """LIP, 20 classes: TrainVal_images/ and TrainVal_parsing_annotations/ as downloaded."""


@dataclass
class PascalContextConfig(DataConfig):
    """PASCAL-Context in a VOC2010 folder; masks by scripts/prepare_pascal_context."""

    num_classes: int = option("59, or 60 with the background", 59)


@dataclass
class ADE20KConfig(DataConfig):
    """ADE20K, 150 classes: ADEChallengeData2016 as downloaded."""


@dataclass
class COCOStuff10KConfig(DataConfig):
    """COCO-Stuff-10K, 171 classes; masks by scripts/prepare_cocostuff10k."""


@dataclass
class SyntheticConfig(DataConfig):
    """Street-like scenes drawn by hrseg itself, written once under `root`."""

    num_train: int = option("training images", 64, at_least=1)
    num_val: int = option("validation images", 16, at_least=1)
    image_size: tuple[int, int] = option("(height, width) of a scene", (192, 256), at_least=32)


@dataclass
class FolderConfig(DataConfig):
    """The user's own images and masks."""

    class_names: list[str] = option("a name per train id; empty: classes.json or classes.txt", [])
    palette: list[tuple[int, int, int]] | None = option("an RGB colour per class", None)
    image_folder: str = option("images, below root", "images")
    mask_folder: str = option("masks, below root", "masks")
    mask_suffix: str = option("what a mask's stem has after the image's, e.g. _mask", "")
    mask_format: Literal["index", "rgb"] = option("ids (palette PNGs too), or colours", "index")
    id_map: dict[int, int] | None = option("raw id -> train id, 255 = ignore", None)
    ignore_ids: list[int] = option("raw ids that are not scored", [255])
    val_fraction: float | None = option("share held out, if there are no split folders", None)
    split_seed: int = option("chooses that share, whatever `seed` is", 304, at_least=0)


@dataclass
class HeadConfig:
    """What every head takes."""

    name: str = option("the head")


@dataclass
class FCNConfig(HeadConfig):
    """1x1 convolution, BN, ReLU, 1x1 classifier (the paper's HRNetV2 head)."""


@dataclass
class OCRConfig(HeadConfig):
    """Object-contextual representations (arXiv 1909.11065); outputs "out" and "aux"."""


@dataclass
class ModelConfig:
    """The network."""

    backbone: Any = option("the HRNet variant, or a plugin's backbone with its arguments")
    head: Any = option("the head", FCNConfig(name="fcn"))
    align_corners: bool = option("corner alignment of every bilinear interpolation", False)
    bn_momentum: float = option(
        "momentum of the batch norm statistics", 0.01, at_least=0, at_most=1
    )
    output: Literal["v1", "v2"] = option(
        "what the head sees: the stream of stride 4 alone, or all four", "v2"
    )
    weights: str | None = option("checkpoint to start from; null: from scratch", None)
    freeze_backbone: bool = option("train the head alone; batch norm statistics stay", False)
    activation_checkpointing: bool = option(
        "compute activations twice in training: less memory, more time", False
    )
    compile: bool = option(
        "torch.compile the network: minutes at first, then faster; needs a C++ compiler", False
    )


@dataclass
class LossConfig:
    """What every loss takes; the loss that is trained is their weighted sum."""

    name: str = option("the loss")
    on: str = option("the output of the model it looks at", "out")
    weight: float = option("its factor in the sum", 1.0)


@dataclass
class CrossEntropyConfig(LossConfig):
    """Cross-entropy over the labelled pixels."""

    class_weights: Any = option("null, a list of one number per class, or 'dataset'", None)


@dataclass
class OhemConfig(CrossEntropyConfig):
    """Cross-entropy over the hard pixels (online hard example mining)."""

    threshold: float = option("pixels whose true class scores below this are hard", 0.9)
    min_kept: int = option("at least so many pixels per device count", 131072, at_least=1)


@dataclass
class DiceConfig(LossConfig):
    """1 - soft Dice over the batch, mean over its classes; beside cross-entropy."""


@dataclass
class LovaszConfig(LossConfig):
    """Lovasz-Softmax, a stand-in for 1 - IoU; beside cross-entropy."""


@dataclass
class BoundaryConfig(LossConfig):
    """1 - F-score of the contours; beside cross-entropy."""

    tolerance: int = option("pixels that a contour may be off", 3, at_least=1)


@dataclass
class RMIConfig(LossConfig):
    """Region mutual information; beside cross-entropy."""

    stride: int = option("average pooling before it", 3, at_least=1)


@dataclass
class OptimizerConfig:
    """What every optimiser takes."""

    name: str = option("the optimiser")
    lr: float = option("learning rate", 0.01, at_least=0)
    weight_decay: float = option("weight decay, on every parameter", 5e-4, at_least=0)
    head_lr_multiplier: float = option("the head's learning rate, relative", 1.0, at_least=0)


@dataclass
class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent."""

    momentum: float = option("momentum", 0.9, at_least=0)


@dataclass
class AdamWConfig(OptimizerConfig):
    """AdamW."""

    lr: float = option("learning rate", 0.001, at_least=0)
    weight_decay: float = option("weight decay, on every parameter", 0.01, at_least=0)


@dataclass
class ScheduleConfig:
    """What every schedule takes."""

    name: str = option("the schedule")
    warmup_steps: int = option("steps of linear rise from 0", 0, at_least=0)


@dataclass
class PolyConfig(ScheduleConfig):
    """lr x (1 - step / steps) ^ power, per optimiser step."""

    power: float = option("the power", 0.9, at_least=0)


@dataclass
class InferenceConfig:
    """How an image is evaluated; null takes what the protocol says."""

    protocol: str = option(
        "named preset: plain, official_cityscapes, official_pascal_context, official_lip, mmseg",
        "plain",
    )
    scales: list[float] | None = option("sizes the image is evaluated at", None, at_least=0.01)
    flip: bool | None = option("average with the mirrored image", None)
    resize: list[int] | None = option(
        "first of all: [] nothing, [side] short side, [height, width] squash", None
    )
    pad_multiple: int | None = option("then pad to a multiple of this", None, at_least=1)
    pad_color: list[int] | None = option("RGB of that padding, 0..255", None)
    base_size: int | None = option("long side at scale 1; 0: the image's own", None, at_least=0)
    window: list[int] | None = option("sliding window (height, width); [] is whole images", None)
    stride: list[int] | None = option("(height, width) between windows; [] is the window", None)
    window_above: float | None = option("scales up to this are run whole", None, at_least=0)
    window_border: Literal["shift", "pad"] | None = option("windows at the border", None)
    window_color: list[int] | None = option("RGB of their padding, 0..255", None)
    flip_average: Literal["logits", "scores"] | None = option("what of the mirror image", None)
    average: Literal["softmax", "exp_logits", "logits"] | None = option(
        "what is summed over scales", None
    )
    scores_at: Literal["window", "image"] | None = option(
        "logits become scores in each window, or when joined at the image's size", None
    )
    absent_classes: Literal["skipped", "zero"] | None = option("classes without a pixel", None)
    scale_report: bool = option("score every subset of the scales (at most 8)", False)
    details: bool = option(
        "boundary scores, distribution over images, confidence interval of mIoU", False
    )
    window_batch: int = option("windows and mirror images per forward pass", 4, at_least=1)


@dataclass
class Config:
    """A whole experiment."""

    name: str = option("the experiment; runs go to <runs>/<name>/")
    seed: int = option("seed of every random draw", 304, at_least=0, at_most=2**32 - 1)
    runs: str = option("where run folders are made", "runs")
    data: DataConfig = option("the data set", DataConfig())
    model: ModelConfig = option("the network", ModelConfig())
    losses: list[LossConfig] = option("the losses", [CrossEntropyConfig(name="cross_entropy")])
    optimizer: Any = option("the optimiser", SGDConfig(name="sgd"))
    schedule: Any = option("the learning rate schedule", PolyConfig(name="poly"))
    inference: InferenceConfig = option("the evaluation protocol", InferenceConfig())
    ema_decay: float | None = option(
        "weight averaging, e.g. 0.999; null: none", None, at_least=0, at_most=0.99999
    )
    early_stopping_patience: int | None = option(
        "validations without a better mIoU before training stops", None, at_least=1
    )
    save_every_minutes: float | None = option(
        "last.ckpt is written at the latest so long after the last time, amid an epoch too; null: "
        "at the ends of epochs and before validations",
        30.0,
        at_least=0,
    )
    on_bad_loss: Literal["stop", "skip"] = option(
        "a loss that is NaN or infinite: stop, or skip its step; the batch is kept", "stop"
    )
    prediction_images: int = option("validation images drawn as pictures", 4, at_least=0)
    loggers: list[str] = option("beside metrics.csv: tensorboard, wandb, mlflow", ["tensorboard"])
    trainer: dict[str, Any] = option("arguments of pytorch_lightning.Trainer", {})


# Sections whose `name` chooses the dataclass.
SECTIONS: dict[str, dict[str, type]] = {
    "data": {
        "camvid": CamVidConfig,
        "cityscapes": CityscapesConfig,
        "pascal_context": PascalContextConfig,
        "lip": LIPConfig,
        "ade20k": ADE20KConfig,
        "cocostuff10k": COCOStuff10KConfig,
        "synthetic": SyntheticConfig,
        "folder": FolderConfig,
    },
    "model.backbone": dict.fromkeys(get_args(Backbone), HeadConfig),
    "model.head": {"fcn": FCNConfig, "ocr": OCRConfig},
    "losses": {
        "cross_entropy": CrossEntropyConfig,
        "ohem": OhemConfig,
        "dice": DiceConfig,
        "lovasz": LovaszConfig,
        "boundary": BoundaryConfig,
        "rmi": RMIConfig,
    },
    "optimizer": {"sgd": SGDConfig, "adamw": AdamWConfig},
    "schedule": {"poly": PolyConfig},
}

# What pytorch_lightning.Trainer takes, so that a typo is found without the seconds of importing it.
TRAINER_NAMES = (
    "accelerator strategy devices num_nodes precision fast_dev_run max_epochs min_epochs max_steps "
    "min_steps max_time limit_train_batches limit_val_batches limit_test_batches "
    "limit_predict_batches overfit_batches val_check_interval check_val_every_n_epoch "
    "num_sanity_val_steps log_every_n_steps enable_checkpointing enable_progress_bar "
    "enable_model_summary accumulate_grad_batches gradient_clip_val gradient_clip_algorithm "
    "deterministic benchmark inference_mode profiler detect_anomaly barebones plugins "
    "sync_batchnorm reload_dataloaders_every_n_epochs enable_autolog_hparams model_registry"
).split()

WHOLE_TRAINER_NUMBERS = (
    "max_epochs min_epochs max_steps min_steps check_val_every_n_epoch num_sanity_val_steps "
    "log_every_n_steps accumulate_grad_batches num_nodes reload_dataloaders_every_n_epochs"
).split()

# hrseg gives these to the Trainer itself.
OWN_TRAINER_NAMES = ("logger", "callbacks", "default_root_dir", "use_distributed_sampler")


# Stand-in until the pydantic schema is merged, which has both functions.
def register_part(section: str, name: str, model: type) -> None:
    """Let `name` select `model` in a named section."""
    SECTIONS[section][name] = model


def model_from_signature(
    base: type, function: Callable[..., Any], skip: Container[str] = ()
) -> type:
    """Return the dataclass of a section whose arguments are the parameters of a function."""
    constructor = function.__init__ if isinstance(function, type) else function  # type: ignore[misc]
    hints = get_type_hints(constructor)
    known, found = {item.name for item in fields(base)}, []
    for name, parameter in inspect.signature(function).parameters.items():
        variadic = parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if name in skip or variadic or name in known:
            continue
        default = NO_DEFAULT if parameter.default is parameter.empty else parameter.default
        kind = hints.get(name, Any)
        plain = kind in (int, float, str, bool) or get_origin(kind) is Literal
        found.append((name, kind if plain else Any, option(name, default)))
    return make_dataclass(function.__name__, found, bases=(base,))
