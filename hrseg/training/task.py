"""SegmentationTask: model, losses, optimizer and evaluation as a LightningModule."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast

import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from hrseg.checkpoints.loading import load_model
from hrseg.checkpoints.metadata import build_metadata
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.data import DATASETS
from hrseg.errors import ConfigError
from hrseg.inference.exported_model import Engine
from hrseg.models import Segmenter
from hrseg.models.normalize import Normalize, default_mean_and_std
from hrseg.models.optimize import (
    Outputs,
    check_compiler,
    compiled_for_training,
)
from hrseg.training.batches import checked_batch
from hrseg.training.evaluation_steps import EvaluationSteps
from hrseg.training.loss_guard import POLICIES, LossGuard, Policy
from hrseg.training.loss_terms import Loss, LossTerm
from hrseg.training.optimizers import (
    OPTIMIZERS,
    SCHEDULES,
    OptimizerFunction,
    ScheduleFunction,
    Spec,
    check_part,
    make_optimizer,
    make_schedule,
)
from hrseg.training.skipped_images import SkippedFiles
from hrseg.utils.channels import Channels
from hrseg.utils.registry import find, plugins_of
from hrseg.utils.validation import check_different
from hrseg.visualize import default_palette


class SegmentationTask(EvaluationSteps):
    """Training and evaluation of a Segmenter as a LightningModule.

    Batches are `{"image": uint8 RGB (B, 3, H, W), "mask": integer ids (B, H, W), 255 = ignored}`;
    "name", a list of strings, is optional. `hrseg.data.from_datasets` makes such batches from other
    datasets. The task normalises the images. Masks of evaluation batches may have another size
    than the images; they are scored at their own size. Invalid batches raise DataError.

    Logs `train/loss`, `train/lr`, `val/miou`, `val/pixel_accuracy`, and `test/...` likewise;
    `scores` contains the last evaluation in the layout of scores.json. `trainer.predict` returns
    class ids (B, H, W), uint8, of batches or images.

    Losses, optimizer and schedule can be names, `{"name": ..., argument: value}`, or objects.

    Args:
        model: the network; an exported file can be scored, but not trained.
        class_names: one unique name per output channel.
        palette: an RGB colour per class; if empty, easily distinguished colours.
        flip_pairs: pairs of ids that a mirrored image swaps, for example left arm and right arm.
        losses: entries of `hrseg.losses.LOSSES`, with optional `on` (an output) and `weight`; or
            modules or functions (logits (B, K, H, W), mask (B, H, W) int64) -> scalar.
        optimizer: an entry of `hrseg.optimizers`, a function of the trained parameters such as
            `torch.optim.Adam`, or an optimizer.
        schedule: an entry of `hrseg.schedules`, or a function (optimizer) or (optimizer, steps)
            that returns a scheduler, which is stepped once per optimizer step.
        protocol: the evaluation protocol.
        scale_report: score also every subset of the protocol's scales, at most 8.
        window_batch: maximum number of windows and mirror images per forward pass.
        freeze_backbone: train only the head, with fixed batch norm statistics of the backbone.
        activation_checkpointing: compute activations twice; training is equal, needs less memory
            and more time.
        compile: compile the network for training, and for evaluation outside training.
        on_bad_loss: "stop", or "skip" the step, if the loss of a training step is NaN or infinite.
        mean: of the normalisation, per channel, for images in 0..1; None: ImageNet's for three
            channels, 0.5 for others.
        std: of the normalisation, per channel, for images in 0..1; None: ImageNet's, or 0.25.
        channels: bands, data type and value ranges of the images; None: RGB uint8, or the first
            `in_channels` bands of 8 bits.
    """

    compiled: Outputs | None = None
    warned = False  # about parts that create_model does not build

    def __init__(
        self,
        model: Segmenter | Engine,
        class_names: Sequence[str],
        palette: Sequence[Sequence[int]] = (),
        flip_pairs: Sequence[tuple[int, int]] = (),
        losses: Loss | Sequence[Loss] = ("cross_entropy",),
        optimizer: Spec | Optimizer | OptimizerFunction = "sgd",
        schedule: Spec | ScheduleFunction = "poly",
        protocol: str | Protocol = "plain",
        scale_report: bool = False,
        window_batch: int = 4,
        freeze_backbone: bool = False,
        activation_checkpointing: bool = False,
        compile: bool = False,
        on_bad_loss: Policy = "stop",
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        channels: Channels | None = None,
    ) -> None:
        super().__init__()
        _check_model(model, len(class_names))
        num_classes = int(model.architecture["num_classes"])
        if len(class_names) != num_classes:
            raise ConfigError(
                f"The model has {num_classes} classes, but class_names has {len(class_names)}: "
                f"{', '.join(class_names)}.\nExpected: one name per output channel."
            )
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = _normalize(model, mean, std, channels)
        # Plain numbers and strings, because loading refuses checkpoints with other types.
        self.class_names = [str(name) for name in class_names]
        check_different(self.class_names)
        colors = palette if len(palette) else default_palette(num_classes)
        self.palette = [[int(value) for value in color] for color in colors]
        self.flip_pairs = [(int(a), int(b)) for a, b in flip_pairs]
        is_list = isinstance(losses, Sequence) and not isinstance(losses, str)
        self.loss_specs = list(cast(Sequence[Loss], losses if is_list else [losses]))
        self.loss_terms = nn.ModuleList(LossTerm(spec, model) for spec in self.loss_specs)
        check_part(OPTIMIZERS, optimizer, "optimizer")
        check_part(SCHEDULES, schedule, "schedule")
        self.optimizer_spec, self.schedule_spec = optimizer, schedule
        if isinstance(protocol, str):
            protocol = find(PROTOCOLS, protocol, "protocol")
        self.window_batch = window_batch
        self.score_by(protocol, scale_report, num_classes)
        self.on_bad_loss: Policy = find(POLICIES, on_bad_loss, "on_bad_loss")
        self.data_names: list[str] = []
        self.compiles = compile and isinstance(model, Segmenter)
        self.freeze_backbone = freeze_backbone
        if isinstance(model, Segmenter):
            model.recompute = activation_checkpointing
            if compile:
                check_compiler(model)
            if freeze_backbone:
                model.backbone.requires_grad_(False).eval()

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (B, K, H, W) of images (B, N, H, W), such as uint8 RGB (B, 3, H, W)."""
        logits: Tensor = self.model(self.normalize(image))
        return logits

    def setup(self, stage: str) -> None:
        # Lightning warns about this hook if there is a DataModule; here it is intended.
        message = "You have overridden `on_before_batch_transfer` in `LightningModule` but"
        warnings.filterwarnings("ignore", message)

    def on_fit_start(self) -> None:
        data = getattr(self.trainer, "datamodule", None)
        self.data_names = [name for name, kind in DATASETS.items() if type(data) is kind]
        if self.compiles:
            self.compiled = compiled_for_training(self.model)

    def configure_callbacks(self) -> list[Callback]:
        guards = [LossGuard(self.on_bad_loss), SkippedFiles()]
        present = {type(callback) for callback in self.trainer.callbacks}  # type: ignore[attr-defined]
        return [guard for guard in guards if type(guard) not in present]

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        outputs = (self.compiled or self.model.outputs)(self.normalize(batch["image"]))
        mask = batch["mask"].long()
        logits = {
            name: self.model.upsample(output, mask.shape[-2:]) for name, output in outputs.items()
        }
        losses = [term(logits, mask) for term in self.loss_terms]
        total = torch.stack(losses).sum()
        size = len(mask)
        self.log("train/loss", total, batch_size=size)
        if len(losses) > 1:
            for index, loss in enumerate(losses):
                self.log(f"train/loss_{index}", loss, batch_size=size)
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], batch_size=size)
        return total

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        if self.trainer.predicting:
            return batch
        channels = self.normalize.channels
        return checked_batch(batch, len(self.class_names), self.trainer.training, channels)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = make_optimizer(self.optimizer_spec, self.model)
        steps = self.trainer.estimated_stepping_batches
        schedule = make_schedule(self.schedule_spec, optimizer, steps)
        step_schedule: Any = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": step_schedule}

    def train(self, mode: bool = True) -> "SegmentationTask":
        super().train(mode)
        if self.freeze_backbone and isinstance(self.model, Segmenter):
            self.model.backbone.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata for prediction to the checkpoint, as plain data."""
        architecture = self.model.architecture
        parts = {
            "data": self.data_names,
            "model.backbone": [architecture.get("backbone", "")],
            "model.head": [architecture.get("head", "")],
            "losses": self.loss_specs,
            "optimizer": [self.optimizer_spec],
            "schedule": [self.schedule_spec],
        }
        named = {
            section: [spec for spec in specs if isinstance(spec, str | Mapping)]
            for section, specs in parts.items()
        }
        checkpoint["hrseg"] = build_metadata(
            architecture,
            self.class_names,
            self.palette,
            self.flip_pairs,
            self.normalize.mean,
            self.normalize.std,
            self.protocol,
            plugin=plugins_of(named),
            replaced=self._replaced_parts(),
            channels=self.normalize.channels,
        )

    def _replaced_parts(self) -> str | None:
        """Return the parts that create_model does not build, and warn about them once."""
        changed = self.model.changed_parts() if isinstance(self.model, Segmenter) else []
        if changed and not self.warned:
            self.warned = True
            warnings.warn(
                f"create_model does not build this network ({', '.join(changed)}): hrseg.load "
                "refuses its checkpoints.\nFix: SegmentationTask.load_from_checkpoint(path, "
                "model=...), or register the part (hrseg.models.register_head).",
                stacklevel=2,
            )
        return ", ".join(changed) or None

    @classmethod
    def load_from_checkpoint(
        cls,
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: Any = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return the task of a checkpoint: network, weights, names, colours and protocol.

        Args:
            checkpoint_path: a checkpoint of hrseg, or a run folder, whose best checkpoint is used.
            map_location: device of the task.
            hparams_file: argument of Lightning; not used.
            strict: argument of Lightning; not used, because all tensors must match.
            weights_only: argument of Lightning; not used, because only plain data is read.
            kwargs: other arguments of the task, such as losses and optimizer, which checkpoints do
                not contain; `model` is a network that create_model does not build.

        Raises:
            ConfigError: a missing file, a file of other software, or weights of another network.
        """
        model, metadata = load_model(checkpoint_path, kwargs.pop("model", None))
        names = ("class_names", "palette", "flip_pairs", "mean", "std")
        stored = {name: metadata[name] for name in names}
        stored["channels"] = Channels.from_dict(metadata.get("channels"))
        task = cls(model, **{**stored, "protocol": Protocol(**metadata["protocol"]), **kwargs})
        return task if map_location is None else task.to(map_location)


def _normalize(
    model: Segmenter | Engine,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    channels: Channels | None,
) -> Normalize:
    """Return the normalisation; ConfigError: another number of channels than the model's."""
    count = int(model.architecture.get("in_channels", 3))
    if channels is None and count != 3:
        channels = Channels.of(range(1, count + 1))
    default_mean, default_std = default_mean_and_std(count)
    mean, std = mean or default_mean, std or default_std
    if {len(mean), len(std), channels.count if channels else 3} != {count}:
        raise ConfigError(
            f"The model has {count} input channels, but the images have "
            f"{channels.count if channels else 3}, mean {len(mean)} and std {len(std)} values.\n"
            "Expected: equal numbers. Fix: hrseg.create_model(..., in_channels=N)"
        )
    return Normalize(mean, std, channels)


def _check_model(model: Any, num_classes: int) -> None:
    """Raise ConfigError for other networks than Segmenters; set a missing `architecture`."""
    if missing := [name for name in ("outputs", "upsample") if not hasattr(model, name)]:
        raise ConfigError(
            f"The model {type(model).__name__} has no {' and no '.join(missing)}.\n"
            "Expected: hrseg.create_model(...), or hrseg.models.Segmenter(backbone, head) with a "
            'backbone as hrseg.models.Backbone and a head that returns {"out": logits}.'
        )
    if not model.architecture:
        model.architecture = {
            "backbone": type(model.backbone).__name__,
            "head": type(model.head).__name__,
            "num_classes": num_classes,
            "align_corners": model.align_corners,
        }
        if (count := getattr(model.backbone, "in_channels", 3)) != 3:
            model.architecture["in_channels"] = count
