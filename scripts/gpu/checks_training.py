"""Training checks: GradScaler, and DDP with one process."""

from typing import Any

import pytorch_lightning as pl
import torch
from job import Figures, Job, require
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

import hrseg
from hrseg.config.loader import load_config
from hrseg.training.distributed import place
from hrseg.training.factory import build_data, build_task
from hrseg.training.trainer import build_trainer

STEPS = 8  # of the short trainings: two epochs of four batches


def overrides(job: Job, runs: str, *more: str) -> list[str]:
    """Return the overrides of synthetic_tiny for a training of STEPS steps."""
    return [
        f"data.root={job.folder / 'scenes'}", f"runs={job.folder / runs}", "data.num_train=8",
        "data.num_val=2", "data.image_size=[96,128]", "data.batch_size=2",
        "data.crop_size=[64,96]", "data.workers=0", "losses=[cross_entropy]", "loggers=[]",
        "prediction_images=0", "trainer.max_epochs=2", "trainer.check_val_every_n_epoch=1",
        "trainer.log_every_n_steps=1", f"trainer.accelerator={job.device}", "trainer.devices=1",
        *more,
    ]  # fmt: skip


def grad_scaler(job: Job) -> Figures:
    """Train in float16 with an infinite gradient: GradScaler skips that step only."""
    torch.manual_seed(0)
    task = hrseg.SegmentationTask(
        hrseg.create_model("hrnet_w18_small_v1", num_classes=2, bn_momentum=0.1), ["a", "b"]
    )
    size = (64, 96) if job.small else (256, 512)
    image = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    batch = {"image": image, "mask": (image[:, 0] > 127).byte()}
    scaler = torch.amp.GradScaler(job.device, init_scale=2.0**10, growth_interval=3)
    watch, step = _ScalerWatch(scaler, harmed=2), 6
    trainer = pl.Trainer(
        accelerator=job.device, devices=1, max_steps=step, logger=False, callbacks=[watch],
        plugins=[MixedPrecision("16-mixed", job.device, scaler)], enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=job.folder,
    )  # fmt: skip
    trainer.fit(task, DataLoader([batch] * step, batch_size=None))  # type: ignore[arg-type]
    figures: Figures = {"scales": watch.scales, "steps_that_changed_weights": watch.changed}
    expected = [True, True, False, True, True, True]
    require(figures, watch.changed == expected, f"changed weights: {watch.changed}")
    halved = watch.scales[2] == 0.5 * watch.scales[1]
    require(figures, halved, f"the scale after the infinite gradient: {watch.scales}")
    finite = all(bool(p.isfinite().all()) for p in task.model.parameters())
    require(figures, finite, "weights are NaN or infinite")
    text = f"step skipped, scale {watch.scales[1]:g} to {watch.scales[2]:g}; other steps train"
    figures["rows"] = [["float16 with GradScaler, infinite gradient in one of six steps", text]]
    return figures


class _ScalerWatch(Callback):
    """Make a gradient infinite at one step, and record scales and changes of the weights."""

    def __init__(self, scaler: torch.amp.GradScaler, harmed: int) -> None:
        self.scaler, self.harmed = scaler, harmed
        self.scales: list[float] = []
        self.changed: list[bool] = []
        self.before = torch.empty(0)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int
    ) -> None:
        weight = pl_module.model.backbone.conv2.weight
        self.before = weight.detach().clone()
        if batch_idx == self.harmed:
            self.hook = weight.register_hook(lambda gradient: gradient * float("inf"))

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if batch_idx == self.harmed:
            self.hook.remove()
        self.scales.append(self.scaler.get_scale())
        self.changed.append(not pl_module.model.backbone.conv2.weight.equal(self.before))


def ddp(job: Job) -> Figures:
    """Train with DDP in one process, and compare the weights with a training without DDP."""
    backend = "nccl" if job.device == "cuda" else "gloo"
    weights: dict[str, dict[str, Tensor]] = {}
    observer = _Backend()
    for strategy in ("auto", "ddp"):
        words = overrides(
            job, strategy, "trainer.precision=32", f"trainer.strategy={strategy}",
            "trainer.deterministic=warn", "trainer.num_sanity_val_steps=0",
        )  # fmt: skip
        config = load_config("synthetic_tiny", words)
        pl.seed_everything(config.seed, workers=True, verbose=False)
        data = build_data(config)
        task = build_task(config, data)
        folder = job.folder / strategy
        trainer = build_trainer(config, place(config.trainer), folder, [observer], train=False)
        trainer.fit(task, data)
        weights[strategy] = {key: t.cpu() for key, t in task.model.state_dict().items()}
    torch.distributed.destroy_process_group()
    errors = [
        float((weights["ddp"][key].double() - value.double()).abs().max())
        for key, value in weights["auto"].items()
    ]
    figures: Figures = {
        "backend": observer.backend, "strategy": observer.strategy, "steps": observer.steps,
        "largest_difference_of_weights": max(errors),
    }  # fmt: skip
    require(figures, observer.backend == backend, f"the backend is {observer.backend}")
    require(figures, observer.steps == STEPS, f"{observer.steps} steps instead of {STEPS}")
    require(figures, max(errors) <= 1e-3, f"the weights differ by {max(errors):.1e}")
    text = f"{STEPS} steps; weights within {max(errors):.1e} of a training without DDP"
    figures["rows"] = [[f"DDP, one process, {observer.backend}", text]]
    return figures


class _Backend(Callback):
    """Record strategy, backend and number of steps of the last training."""

    backend, strategy, steps = "none", "none", 0

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.strategy, self.steps = type(trainer.strategy).__name__, trainer.global_step
        if torch.distributed.is_initialized():
            self.backend = torch.distributed.get_backend()
