"""Benchmark of the model: training step and inference on this machine.

Each measurement runs in a new process.
"""

import copy
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from rich import get_console
from torch.utils.data import DataLoader

from hrseg.benchmark import measure, profile
from hrseg.benchmark.measure import device_of, has_enough_steps, timed, trainer_for
from hrseg.checkpoints.loading import build_model
from hrseg.config.schema import Config
from hrseg.models.normalize import Normalize, default_mean_and_std
from hrseg.models.optimize import PRECISIONS, inference_network
from hrseg.training.factory import build_data, build_task
from hrseg.training.loggers import quieten
from hrseg.training.trainer import choose_precision
from hrseg.utils.channels import RGB, Channels
from hrseg.utils.console import echo, number_table
from hrseg.utils.memory import OutOfMemory

MEMORY_NOTE = (
    "memory: increase during the work, of the peak (CPU: resident memory, CUDA: allocated memory)"
)
AfterStep = Callable[[], None]
_TRAINER_PRECISIONS = {"32": "32-true", "bf16": "bf16-mixed", "16": "16-mixed"}


def benchmark_model(
    config: Config,
    size: Sequence[int] | None = None,
    batch: int | None = None,
    steps: int | None = None,
    with_profile: bool = False,
) -> dict[str, Any]:
    """Measure training steps and inference in each precision of the device, and print a table.

    Args:
        config: a config; its data set may be missing.
        size: (height, width) of the images; None: `data.crop_size`.
        batch: batch size; None: `data.batch_size` for training, 1 for inference.
        steps: number of measured steps; None: see `has_enough_steps`.
        with_profile: profile both works in the precision of `hrseg fit`.

    Returns:
        The content of the file of `--json`.

    Raises:
        ConfigError: if a profile is impossible on the device.
    """
    quieten()
    device, train = device_of(config), measure.on_one_device(config)
    if with_profile:
        profile.check_device(device)
    height, width = size or train.data.crop_size
    train.data.crop_size = (height, width)
    train.data.batch_size = batch or train.data.batch_size
    infer = copy.deepcopy(train)
    infer.data.batch_size = batch or 1
    with torch.device("meta"):
        data = build_data(train)
        model = build_model(train, data)
    macs = measure.multiply_adds(model, (height, width))
    works = ((train_step, train), (inference, infer))
    result: dict[str, Any] = {
        "command": "benchmark model",
        "config": config.name,
        "machine": measure.machine(device),
        "size": [height, width],
        "classes": data.num_classes,
        "compile": config.model.compile,
        "trained_in": trained_in(config, device),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": macs,
        "flops": 2 * macs,
        "measurements": {
            work.__name__: {name: _measured(work, part, name, steps) for name in precisions(device)}
            for work, part in works
        },
    }
    if with_profile:
        result["profile"] = {
            work.__name__: _profiled(work, part, result["trained_in"], steps, macs)
            for work, part in works
        }
    _show(result)
    return result


def train_step(
    config: Config, precision: str, steps: int | None = None, after_step: AfterStep | None = None
) -> dict[str, Any]:
    """Measure training steps of the config's task on random crops, with random weights.

    Args:
        config: the config.
        precision: a precision of the Trainer, or a key of `_TRAINER_PRECISIONS`.
        steps: number of measured steps; None: see `has_enough_steps`.
        after_step: function to call after each step.

    Returns:
        "seconds" (the result of `spread`), and the result of `PeakMemory`.
    """
    config = copy.deepcopy(config)
    config.optimizer.lr = 1e-9  # training on noise must not diverge
    timer, precision = _StepTimer(steps, after_step), _TRAINER_PRECISIONS.get(precision, precision)
    max_steps = measure.WARM_UP + (steps or 10)
    trainer = trainer_for(config, precision, timer, max_steps=max_steps, limit_val_batches=0)
    memory = measure.PeakMemory(trainer.strategy.root_device)
    data = build_data(config)
    batch = _random_batch(data.num_classes, config)
    loader = DataLoader(cast(Any, [batch] * max_steps), batch_size=None)
    warnings.filterwarnings("ignore", ".*no `val_dataloader`.*")
    trainer.fit(build_task(config, data, weights=False), loader)
    return {"seconds": measure.spread(timer.seconds), **memory.read()}


def inference(
    config: Config, precision: str, steps: int | None = None, after_step: AfterStep | None = None
) -> dict[str, Any]:
    """Measure inference with random weights: uint8 images -> logits at a quarter of the size.

    Args:
        config: the config; `data.crop_size` is the size of the images.
        precision: a key of `hrseg.models.optimize.PRECISIONS`.
        steps: number of measured steps; None: see `has_enough_steps`.
        after_step: function to call after each step.

    Returns:
        "seconds" (the result of `spread`), and the result of `PeakMemory`.
    """
    device = device_of(config)
    memory = measure.PeakMemory(device)
    model = build_model(config, build_data(config)).to(device)
    network = inference_network(model, precision, config.model.compile)
    count = len(config.data.channels or RGB)
    channels = Channels.of(range(1, count + 1)) if count != 3 else None
    normalize = Normalize(*default_mean_and_std(count), channels).to(device)
    image = _random_batch(2, config)["image"].to(device)
    seconds: list[float] = []
    with torch.inference_mode():
        while not has_enough_steps(seconds, steps):
            with timed(seconds, device):
                network(normalize(image))
            if after_step:
                after_step()
    return {"seconds": measure.spread(seconds), **memory.read()}


def precisions(device: torch.device) -> list[str]:
    """Return the precisions that a device supports."""
    if device.type == "cuda":
        bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
        return ["32", "bf16", "16"] if bf16 else ["32", "16"]
    return ["32", "bf16"] if device.type == "cpu" else ["32"]


def trained_in(config: Config, device: torch.device) -> str:
    """Return the precision of `hrseg fit` on a device.

    Raises:
        ConfigError: if the config's precision is unknown.
    """
    precision = str(config.trainer.get("precision") or choose_precision(device.type).precision)
    trainer_for(config, precision, Callback())
    return precision


def header(result: Mapping[str, Any]) -> str:
    """Return the header of a table: the command and the machine."""
    machine = result["machine"]
    return (
        f"hrseg {result['command']} {result['config']}\n"
        f"{machine['processor']}, {machine['threads']} threads on {machine['processors']} "
        f"processors; device {machine['device']}; torch {machine['torch']}"
    )


def milliseconds(seconds: Mapping[str, float]) -> tuple[str, str]:
    """Return the median and the range of a result of `spread`, in ms."""
    median, low, high = (three_digits(1000 * seconds[k]) for k in ("median", "lowest", "highest"))
    return median, f"{low}..{high}"


def memory_text(measured: Mapping[str, Any]) -> str:
    """Return the memory of a measurement as text; MEMORY_NOTE explains the figures."""
    if measured["memory_mib"] is None:
        return "-"
    return f"{measured['memory_mib']:,.0f} of {measured['peak_mib']:,.0f}"


def three_digits(value: float) -> str:
    """Return a number with three significant digits, or as an integer from 100 on."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _measured(
    work: Callable[..., dict[str, Any]], config: Config, precision: str, steps: int | None
) -> dict[str, Any]:
    """Return a row of the table, measured in a new process."""
    batch = config.data.batch_size
    with get_console().status(f"{work.__name__}, precision {precision}"):
        try:
            figures = measure.in_process(work, config, precision, steps)
        except OutOfMemory:
            return {"batch": batch, "error": "out of memory"}
    return {"batch": batch, "images_per_second": batch / figures["seconds"]["median"], **figures}


def _profiled(
    work: Callable[..., dict[str, Any]],
    config: Config,
    precision: str,
    steps: int | None,
    macs: int,
) -> dict[str, Any]:
    """Return the profile of a work in a precision of the Trainer, recorded in a new process."""
    if work is inference:
        precision = precision.partition("-")[0]
        precision = precision if precision in PRECISIONS else "32"
    with get_console().status(f"profile of {work.__name__}, precision {precision}"):
        try:
            return measure.in_process(profile.profiled, work, config, precision, steps, macs)
        except OutOfMemory:
            return {"precision": precision, "error": "out of memory"}


def _show(result: Mapping[str, Any]) -> None:
    table = number_table("work", "ms, median", "lowest..highest", "images/s", "memory, MiB")
    batches, notes = [], [MEMORY_NOTE]
    for work, rows in result["measurements"].items():
        name = work.replace("_", " ")
        batches.append(f"{name}: batch {rows['32']['batch']}")
        for precision, row in rows.items():
            cells = [row.get("error", ""), *"---"]
            if "seconds" in row:
                rate = three_digits(row["images_per_second"])
                cells = [*milliseconds(row["seconds"]), rate, memory_text(row)]
                if result["compile"]:
                    first = three_digits(row["seconds"]["first"])
                    notes.append(f"{name}, {precision}: compilation took {first} s")
            table.add_row(f"{name}, {precision}", *cells)
    height, width = result["size"]
    echo(
        header(result),
        f"{result['classes']} classes, {height}x{width}; {', '.join(batches)}; "
        f"`hrseg fit` trains in {result['trained_in']}{', compiled' if result['compile'] else ''}",
        f"{result['parameters'] / 1e6:.2f} M parameters; "
        f"{result['macs'] / 1e9:.4g} GMACs = {result['flops'] / 1e9:.4g} GFLOPs per image "
        f"({result['macs'] / 2**30:.4g} by the authors' count, MACs / 2^30)",
    )
    get_console().print(table)
    echo(*notes)
    for work, recorded in result.get("profile", {}).items():
        profile.show(work.replace("_", " "), recorded, result["compile"])


class _StepTimer(Callback):
    """Measure each training step, and stop the training after enough steps."""

    def __init__(self, steps: int | None, after_step: AfterStep | None) -> None:
        self.steps, self.seconds, self.stack = steps, list[float](), ExitStack()
        self.after_step = after_step

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        self.stack.enter_context(timed(self.seconds, trainer.strategy.root_device))

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.stack.close()
        if self.after_step:
            self.after_step()
        trainer.should_stop = trainer.should_stop or has_enough_steps(self.seconds, self.steps)


def _random_batch(num_classes: int, config: Config) -> dict[str, Any]:
    """Return a batch of a DataLoader with noise images, and masks of 32x32 squares."""
    batch, (height, width) = config.data.batch_size, config.data.crop_size
    channels = len(config.data.channels or RGB)
    squares = torch.randint(num_classes, (batch, -(-height // 32), -(-width // 32)))
    mask = squares.repeat_interleave(32, 1).repeat_interleave(32, 2)[:, :height, :width]
    return {
        "image": torch.randint(256, (batch, channels, height, width), dtype=torch.uint8),
        "mask": mask.to(torch.uint8).contiguous(),
        "name": ["random"] * batch,
    }
