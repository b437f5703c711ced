"""SegmentationTask: model, losses, optimizer and evaluation as a LightningModule."""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from hrseg.checkpoints.metadata import build_metadata
from hrseg.config.protocols import PROTOCOLS, Protocol
from hrseg.data import DATASETS
from hrseg.errors import ConfigError, DataError
from hrseg.inference.evaluator import Evaluator
from hrseg.inference.exported_model import Engine
from hrseg.inference.windows import seen_pixels
from hrseg.losses import LOSSES
from hrseg.metrics.confusion import ConfusionMatrix, summarize
from hrseg.metrics.scale_selection import scale_report
from hrseg.models import Segmenter
from hrseg.models.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize
from hrseg.models.optimize import (
    Outputs,
    check_compiler,
    compiled_for_inference,
    compiled_for_training,
    fold,
)
from hrseg.training.loss_guard import POLICIES, LossGuard, Policy
from hrseg.training.optimizers import OPTIMIZERS, SCHEDULES
from hrseg.training.skipped_images import SkippedFiles
from hrseg.utils.registry import build, find, plugins_of
from hrseg.visualize import default_palette

Spec = str | Mapping[str, Any]


class SegmentationTask(pl.LightningModule):
    """Train and score a Segmenter. Wiring only: every step is owned by another module.

    Batches are `{"image": uint8 RGB (B, 3, H, W), "mask": (B, H, W) ids, 255 = ignored, "name"}`;
    evaluation takes one image at a time. Logs `train/loss`, `train/lr`, `val/miou`,
    `val/pixel_accuracy`; `scores` contains the last evaluation in the layout of scores.json.

    Losses, optimizer and schedule are names or `{"name": ..., argument: value}`.

    Args:
        model: the network; an exported file can be scored, not trained.
        class_names: a name per output channel.
        palette: an RGB colour per class; empty: colours that are easy to distinguish.
        flip_pairs: ids that swap in a mirrored image (left arm, right arm).
        losses: entries of `hrseg.losses.LOSSES`, with optional `on` (an output) and `weight`.
        optimizer, schedule: entries of `hrseg.optimizers` and `hrseg.schedules`.
        protocol: the evaluation protocol.
        scale_report: score every subset of the protocol's scales as well, at most 8 scales.
        window_batch: maximum of windows and mirror images that go through the model together.
        freeze_backbone: train only the head; the batch norm statistics stay as they are.
        activation_checkpointing: the same training in less memory, with more time.
        compile: compile the network, for training and for evaluation without training.
        on_bad_loss: "stop", or "skip" the step, if the loss of a training step is NaN or infinite.
        mean, std: of the normalisation, per channel, of images in 0..1.
    """

    evaluator: Evaluator | None = None
    compiled: Outputs | None = None
    unread = 0  # validation images that were skipped

    def __init__(
        self,
        model: Segmenter | Engine,
        class_names: Sequence[str],
        palette: Sequence[Sequence[int]] = (),
        flip_pairs: Sequence[tuple[int, int]] = (),
        losses: Sequence[Spec] = ("cross_entropy",),
        optimizer: Spec = "sgd",
        schedule: Spec = "poly",
        protocol: str | Protocol = "plain",
        scale_report: bool = False,
        window_batch: int = 4,
        freeze_backbone: bool = False,
        activation_checkpointing: bool = False,
        compile: bool = False,
        on_bad_loss: Policy = "stop",
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        super().__init__()
        num_classes = int(model.architecture["num_classes"])
        if len(class_names) != num_classes:
            raise ConfigError(
                f"the model has {num_classes} classes, "
                f"class_names has {len(class_names)}: {', '.join(class_names)}"
            )
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.normalize = Normalize(mean, std)
        # Plain numbers and strings: a checkpoint with others would be refused when it is loaded.
        self.class_names = [str(name) for name in class_names]
        colors = palette if len(palette) else default_palette(num_classes)
        self.palette = [[int(value) for value in color] for color in colors]
        self.flip_pairs = [(int(a), int(b)) for a, b in flip_pairs]
        self.loss_specs = [losses] if isinstance(losses, str) else list(losses)
        self.loss_terms = nn.ModuleList(_LossTerm(spec, model) for spec in self.loss_specs)
        self.optimizer_spec, self.schedule_spec = optimizer, schedule
        find(OPTIMIZERS, _name(optimizer), "optimizer")
        find(SCHEDULES, _name(schedule), "schedule")
        if isinstance(protocol, str):
            protocol = find(PROTOCOLS, protocol, "protocol")
        self.protocol = protocol
        self.window_batch, self.scale_report = window_batch, scale_report
        self.on_bad_loss: Policy = find(POLICIES, on_bad_loss, "on_bad_loss")
        self.scored_scales = _scored_scales(self.protocol, scale_report)
        self.matrices = nn.ModuleList(ConfusionMatrix(num_classes) for _ in self.scored_scales)
        self.seen_pixels: Counter[float] = Counter()
        self.scores: dict[str, Any] = {}
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
        """Return logits (B, K, H, W) of uint8 RGB images (B, 3, H, W)."""
        logits: Tensor = self.model(self.normalize(image))
        return logits

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

    def on_validation_epoch_start(self) -> None:
        self.evaluator = self._make_evaluator()
        self.seen_pixels.clear()
        self.unread = 0
        for matrix in self._matrices.values():
            matrix.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Score one image; return its fused prediction (H, W) for callbacks that draw it."""
        image, mask = batch["image"], batch["mask"][0]
        if any(batch.get("fault", ())):
            self.unread += 1
            return {"pred": torch.zeros_like(mask)}
        assert self.evaluator is not None
        if self.scale_report:
            preds = self.evaluator.subsets(image, mask.shape)
        else:
            preds = self.evaluator(image, mask.shape).preds
        for scales, matrix in self._matrices.items():
            matrix.update(preds[scales], mask)
        for scale in self.protocol.scales:
            self.seen_pixels[scale] += seen_pixels(image.shape[-2:], scale, self.protocol)
        return {"pred": preds[self.protocol.scales]}

    def on_validation_epoch_end(self) -> None:
        assert self.evaluator is not None
        self.window_batch = self.evaluator.batch  # reduced if the memory was short
        self.evaluator = None  # frees its copy of the model
        summaries = {
            scales: summarize(matrix.compute(), self.class_names, self.protocol.absent_classes)
            for scales, matrix in self._matrices.items()
        }
        keys = ("miou", "pixel_accuracy", "mean_accuracy", "classes")
        self.scores = dict(summaries[self.protocol.scales])
        self.scores["per_scale"] = {
            str(scale): {key: summaries[(scale,)][key] for key in keys}
            for scale in self.protocol.scales
        }
        if self.scale_report:
            miou = {scales: summary["miou"] or 0.0 for scales, summary in summaries.items()}
            self.scores["scale_report"] = scale_report(miou, self.seen_pixels)
        self.scores["protocol"] = self.protocol.to_dict()
        unread = torch.tensor(float(self.unread), device=self.device)
        skipped = int(self.trainer.strategy.reduce(unread, reduce_op="sum"))
        self.scores["images"] = self._images() - skipped
        if skipped:
            self.scores["skipped"] = skipped
            if not self.scores["images"] and not self.trainer.sanity_checking:
                raise DataError(
                    f"none of the {skipped} validation images could be read: there is no score.\n"
                    "`hrseg data check` says what is wrong with each."
                )
        self.log("val/miou", self.scores["miou"] or 0.0)
        self.log("val/pixel_accuracy", self.scores["pixel_accuracy"] or 0.0)

    def _images(self) -> int:
        """Return the number of scored images, over all processes; repeats do not count."""
        seen = int(sum(self.trainer.num_val_batches)) * self.trainer.world_size
        loaders = self.trainer.val_dataloaders
        loaders = loaders if isinstance(loaders, list | tuple) else [loaders]
        return min(seen, sum(len(loader.dataset) for loader in loaders))

    @property
    def _matrices(self) -> dict[tuple[float, ...], ConfusionMatrix]:
        matrices = cast(list[ConfusionMatrix], list(self.matrices))
        return dict(zip(self.scored_scales, matrices, strict=True))

    def _make_evaluator(self) -> Evaluator:
        model = fold(self.model)
        outputs = model.outputs
        # During training each evaluation has other weights: no time to compile them in.
        if self.compiles and self.trainer.state.fn != TrainerFn.FITTING:
            outputs = compiled_for_inference(model)
        return Evaluator(
            lambda image: outputs(image)["out"],
            self.normalize,
            self.protocol,
            self.flip_pairs,
            model.align_corners,
            self.window_batch,
        )

    def on_test_epoch_start(self) -> None:
        self.evaluator = self._make_evaluator()

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Any]:
        """Return the fused prediction (H, W) of one image for callbacks that write it."""
        assert self.evaluator is not None
        return {"pred": self.evaluator(batch["image"]).pred}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = build(OPTIMIZERS, self.optimizer_spec, "optimizer", model=self.model)
        steps = self.trainer.estimated_stepping_batches
        schedule = build(
            SCHEDULES, self.schedule_spec, "schedule", optimizer=optimizer, steps=steps
        )
        per_step: Any = {"scheduler": schedule, "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": per_step}

    def train(self, mode: bool = True) -> "SegmentationTask":
        super().train(mode)
        if self.freeze_backbone and isinstance(self.model, Segmenter):
            self.model.backbone.eval()
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the metadata that prediction with this file needs, as plain data."""
        architecture = self.model.architecture
        parts = {
            "data": self.data_names,
            "model.backbone": [architecture.get("backbone", "")],
            "model.head": [architecture.get("head", "")],
            "losses": self.loss_specs,
            "optimizer": [self.optimizer_spec],
            "schedule": [self.schedule_spec],
        }
        checkpoint["hrseg"] = build_metadata(
            architecture,
            self.class_names,
            self.palette,
            self.flip_pairs,
            self.normalize.mean,
            self.normalize.std,
            self.protocol,
            plugin=plugins_of(parts),
        )


class _LossTerm(nn.Module):
    def __init__(self, spec: Spec, model: nn.Module) -> None:
        super().__init__()
        arguments = {"name": spec} if isinstance(spec, str) else dict(spec)
        self.on = str(arguments.pop("on", "out"))
        outputs = getattr(getattr(model, "head", None), "output_names", ("out",))
        find(dict.fromkeys(outputs), self.on, "output of the model")
        self.weight = float(arguments.pop("weight", 1.0))
        self.loss = build(LOSSES, arguments, "loss")

    def forward(self, logits: Mapping[str, Tensor], mask: Tensor) -> Tensor:
        loss: Tensor = self.loss(logits[self.on], mask)
        return self.weight * loss


def _scored_scales(protocol: Protocol, every_subset: bool) -> list[tuple[float, ...]]:
    """Return the scored subsets of the scales: all of them and each single one, or every subset."""
    scales = protocol.scales
    if not every_subset:
        return list(dict.fromkeys([scales, *((scale,) for scale in scales)]))
    if len(scales) > 8:
        raise ConfigError(
            f"inference.scale_report scores every subset: {len(scales)} scales have "
            f"{2 ** len(scales) - 1}.\nExpected at most 8 scales."
        )
    return [subset for count in range(len(scales)) for subset in combinations(scales, count + 1)]


def _name(spec: Spec) -> str:
    return spec if isinstance(spec, str) else str(spec.get("name"))
