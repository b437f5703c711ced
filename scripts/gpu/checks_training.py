"""Training checks: GradScaler, torch.compile, exact resume, and DDP with one process."""

import os
import signal
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from checks_golden import drawn_network, use_tf32
from job import Figures, Job, Skipped, require
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor, nn
from torch.utils.data import DataLoader

import hrseg
from hrseg.cli import main as hrseg_main
from hrseg.config.loader import load_config
from hrseg.errors import ConfigError
from hrseg.models.fcn import FCNHead
from hrseg.models.optimize import (
    check_compiler,
    compiled_for_inference,
    compiled_for_training,
    fold,
)
from hrseg.training.distributed import place
from hrseg.training.factory import build_data, build_task
from hrseg.training.trainer import build_trainer

STEPS = 8  # of the short trainings: two epochs of four batches
STOPPED_AT = 6  # step at which the first part of a training is stopped


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


class _Convolution(nn.Module):
    """Backbone of one convolution, which compiles in seconds on a CPU."""

    channels, strides = (8,), (4,)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())

    def forward(self, image: Tensor) -> list[Tensor]:
        return [self.layers(image)]


def small_network(job: Job) -> tuple[str, hrseg.models.Segmenter]:
    """Return the name and the network of checks that compile or export."""
    torch.manual_seed(0)
    if job.small:
        head = FCNHead([8], num_classes=19)
        model = hrseg.models.Segmenter(_Convolution(), head, align_corners=False)
        model.architecture = {"backbone": "one convolution", "head": "fcn", "num_classes": 19}
        return "one convolution", model
    return "W18-small-v1", drawn_network("w18_small_v1")


def torch_compile(job: Job) -> Figures:
    """Compare compiled training steps and inference with eager ones."""
    use_tf32(False)
    name, model = small_network(job)
    try:
        check_compiler(model)
    except ConfigError as error:
        raise Skipped(str(error).partition("\n")[0]) from error
    size = (64, 96) if job.small else (512, 1024)
    image = torch.randn(2, 3, *size, device=job.device)
    mask = torch.randint(0, 19, (2, size[0] // 4, size[1] // 4), device=job.device)
    losses, seconds = {}, {}
    for form in ("eager", "compiled"):
        network = small_network(job)[1].to(job.device, memory_format=torch.channels_last).train()
        outputs = compiled_for_training(network) if form == "compiled" else network.outputs
        optimizer = torch.optim.SGD(network.parameters(), 0.01)
        losses[form], seconds[form] = [], []
        for _ in range(6):
            start = time.perf_counter()
            loss = nn.functional.cross_entropy(outputs(image)["out"], mask)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses[form].append(float(loss))  # waits for the device
            seconds[form].append(time.perf_counter() - start)
    evaluated = fold(network.eval())
    start = time.perf_counter()
    with torch.inference_mode():
        logits = compiled_for_inference(evaluated)(image)["out"]
        expected = evaluated.outputs(image)["out"]
    error = float((logits - expected).abs().max() / expected.abs().max())
    pairs = zip(losses["compiled"], losses["eager"], strict=True)
    first, *later = (abs(a / b - 1) for a, b in pairs)
    speedup = min(seconds["eager"][1:]) / min(seconds["compiled"][1:])
    figures: Figures = {
        "network": name, "size": size, "tf32": False, "loss_differences": [first, *later],
        "logit_difference": error, "first_step_seconds": seconds["compiled"][0],
        "inference_seconds": time.perf_counter() - start, "step_speedup": speedup,
    }  # fmt: skip
    require(figures, first <= 1e-4, f"the first compiled loss differs by {first:.1e}")
    require(figures, max(later) <= 1e-2, f"compiled losses differ by {max(later):.1e}")
    require(figures, error <= 1e-3, f"compiled logits differ by {error:.1e}")
    text = (
        f"losses of six steps within {max(first, *later):.1e}, logits within {error:.1e}; a step "
        f"{speedup:.2f}x as fast, {seconds['compiled'][0]:.0f} s to compile"
    )
    figures["rows"] = [[f"`torch.compile`, {name}, 2x{size[0]}x{size[1]}, float32", text]]
    return figures


def resume(job: Job) -> Figures:
    """Stop a training by SIGTERM in the middle, resume it, and compare with a whole training."""
    precision = "16-mixed" if job.device == "cuda" else "bf16-mixed"
    settings = (f"trainer.precision={precision}", "model.head={name: ocr}")
    warned: set[str] = set()
    whole = _fit(job, "whole", warned, *settings)
    with _sigterm_at(STOPPED_AT):
        _fit(job, "parts", warned, *settings, code=143)
    part = torch.load(_checkpoint(job, "parts"), weights_only=True)["global_step"]
    resumed = _fit(job, "parts", warned, "--resume")
    unequal = differences(whole, resumed)
    scaler = whole["MixedPrecision"]
    figures: Figures = {
        "precision": precision, "deterministic": "warn", "stopped_after_step": part,
        "steps": STEPS, "values": len(dict(leaves(whole))), "unequal": unequal[:8],
        "cuda_random_state": whole["random"][0]["cuda"] is not None, "scaler": scaler,
        "nondeterministic_operations": sorted(warned),
        "metrics_equal": _metrics(job, "whole") == _metrics(job, "parts"),
    }  # fmt: skip
    if job.device == "cuda":
        require(figures, figures["cuda_random_state"], "the CUDA random state was not saved")
        require(figures, bool(scaler), "the state of GradScaler was not saved")
    require(figures, 0 < part < STEPS, f"the training was not interrupted, but ended at {part}")
    if unequal:
        again = differences(whole, _fit(job, "again", warned, *settings))
        figures["two_whole_trainings_equal"] = not again
        figures["error"] = f"{len(unequal)} values differ, first {unequal[0]}"
    figures["deterministic_true"] = _with_deterministic_only(job, *settings)
    text = f"{figures['values']} values equal to the bit; deterministic=warn names " + (
        ", ".join(sorted(warned)) or "no operation"
    )
    case = f"Resume after step {part} of {STEPS}, {precision}, OCR head with dropout"
    figures["rows"] = [
        [case, text],
        ["`trainer.deterministic=true`", figures["deterministic_true"]],
    ]
    return figures


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


def _fit(job: Job, runs: str, warned: set[str], *more: str, code: int = 0) -> dict[str, Any]:
    """Run `hrseg fit`, and return weights, optimizer, schedule, scaler and random states.

    Adds the operations that torch calls nondeterministic to `warned`.
    """
    words = overrides(job, runs, "trainer.deterministic=warn", *more)
    command = ["fit", "--config", "synthetic_tiny", *words]
    if "--resume" in more:
        command = ["fit", "--resume", str(_checkpoint(job, runs).parents[1])]
    with warnings.catch_warnings(record=True, action="always") as messages:
        result = hrseg_main(command)
    if result != code:
        raise RuntimeError(f"`hrseg {' '.join(command)}` returned {result}")
    for message in messages:
        text = str(message.message)
        if "does not have a deterministic implementation" in text:
            warned.add(text.split()[0])
    content = torch.load(_checkpoint(job, runs), weights_only=True, map_location="cpu")
    keys = ("state_dict", "optimizer_states", "lr_schedulers")
    state = {key: content[key] for key in keys}
    return {
        **state,
        "MixedPrecision": content.get("MixedPrecision"),
        "random": content["resume"]["random"],
    }


def _with_deterministic_only(job: Job, *settings: str) -> str:
    """Return the outcome of a training step with `trainer.deterministic=true`."""
    more = (*settings, "trainer.deterministic=true", "trainer.fast_dev_run=true")
    try:
        code = hrseg_main(["fit", "--config", "synthetic_tiny", *overrides(job, "strict", *more)])
    except RuntimeError as error:
        return f"refused: {str(error).partition('.')[0][:150]}"
    return "trains" if code == 0 else f"exit code {code}"


@contextmanager
def _sigterm_at(step: int) -> Iterator[None]:
    """Send SIGTERM to this process during training step `step`, counted from 1."""
    original, calls = hrseg.SegmentationTask.training_step, count(1)

    def counted(self: Any, *arguments: Any) -> Tensor:
        if next(calls) == step:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, *arguments)

    hrseg.SegmentationTask.training_step = counted  # type: ignore[method-assign]
    try:
        yield
    finally:
        hrseg.SegmentationTask.training_step = original  # type: ignore[method-assign]


def _checkpoint(job: Job, runs: str) -> Path:
    return (job.folder / runs / "synthetic_tiny" / "latest").resolve() / "checkpoints" / "last.ckpt"


def _metrics(job: Job, runs: str) -> str:
    return (_checkpoint(job, runs).parents[1] / "metrics.csv").read_text()


def differences(first: Any, second: Any) -> list[str]:
    """Return the keys of values that are not equal to the bit."""
    a, b = dict(leaves(first)), dict(leaves(second))
    return [key for key in a | b if not _equal(a.get(key), b.get(key))]


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings and sequences with their keys."""
    if isinstance(value, Mapping | list | tuple):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for name, item in items:
            yield from leaves(item, f"{key}/{name}".lstrip("/"))
    else:
        yield key, value


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and bool(a == b)
