"""Construction of the Trainer, and automatic precision of a device."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from timeit import Timer
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.profilers import AdvancedProfiler, SimpleProfiler
from pytorch_lightning.trainer.states import TrainerFn

from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.distributed import (
    Placement,
    ddp_strategy,
    end_others,
    peer_failure,
    trainer_refusals,
)
from hrseg.training.loggers import build_loggers
from hrseg.training.preemption import KeptHandler
from hrseg.utils.memory import OutOfMemory, is_out_of_memory, of_evaluation, of_training
from hrseg.utils.signals import Stopped

# Minimum speedup of convolutions for bf16, because other operations do not become faster.
MIN_SPEEDUP = 1.3
# By default profilers write to Lightning's log, which hrseg hides.
_PROFILERS = {"simple": SimpleProfiler, "advanced": AdvancedProfiler}


class Choice(NamedTuple):
    """A value of `trainer.precision`, and the reason for it."""

    precision: str
    reason: str


def build_trainer(
    config: Config,
    placement: Placement,
    folder: Path,
    callbacks: list[Callback],
    train: bool = True,
) -> pl.Trainer:
    """Return the Trainer of a run folder.

    Args:
        config: the config, whose section `trainer` contains the arguments.
        placement: devices and processes.
        folder: the run folder.
        callbacks: callbacks of the command.
        train: enable the loggers.
    """
    arguments = {"enable_model_summary": False, **config.trainer}
    arguments["accumulate_grad_batches"] = accumulated_batches(config)
    epochs, every = arguments.get("max_epochs"), arguments.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and isinstance(every, int) and 0 < epochs < every:
        arguments["check_val_every_n_epoch"] = epochs
    interval = arguments.get("val_check_interval")
    if isinstance(interval, int) and interval > 1:
        arguments["check_val_every_n_epoch"] = None  # count batches across epochs
    if placement.kind == "cpu":
        arguments.pop("sync_batchnorm", None)  # supported only on GPUs
    arguments["strategy"] = ddp_strategy(placement, arguments)
    plugins: list[Any] = [DurableCheckpointIO()]
    if isinstance(placement.environment, SLURMEnvironment):
        plugins.append(placement.environment)  # without Lightning's own requeue
    if profiler := _PROFILERS.get(str(arguments.get("profiler"))):
        arguments["profiler"] = profiler(dirpath=folder, filename="profile")
    with trainer_refusals(arguments):
        return pl.Trainer(
            **arguments,
            logger=build_loggers(config, folder) if train else False,
            callbacks=[KeptHandler(), *callbacks],
            plugins=plugins,
            default_root_dir=folder,
            use_distributed_sampler=False,
        )


def accumulated_batches(config: Config) -> int:
    """Return the number of batches per optimizer step, 1 for `fast_dev_run`."""
    trainer = config.trainer
    return 1 if trainer.get("fast_dev_run") else int(trainer.get("accumulate_grad_batches", 1))


def settle_precision(config: Config, placement: Placement, resume: Path | None = None) -> str:
    """Set an automatic precision in a config, or that of the resumed run; return the reason."""
    if config.trainer.get("precision") is not None:
        return ""
    started = load_config(resume / "config.yaml").trainer.get("precision") if resume else None
    choice = choose_precision(placement.kind, placement.processes)
    config.trainer["precision"] = started or choice.precision
    return "as in the resumed run" if started else choice.reason


def choose_precision(kind: str, processes: int = 1) -> Choice:
    """Return the fastest precision of a device type: "cuda", "cpu" or "mps"."""
    if kind == "cuda":
        # Use the oldest visible GPU, so that all processes of a machine agree.
        devices = range(torch.cuda.device_count())
        if min(torch.cuda.get_device_capability(device) for device in devices) >= (8, 0):
            return Choice("bf16-mixed", "this GPU has bf16")
        return Choice("16-mixed", "this GPU has no bf16")
    if kind != "cpu":
        return Choice("32", f"mixed precision is untested on {kind}")
    if processes > 1:
        return Choice("32", "several processes on CPUs")  # their measurements could differ
    ratio = bf16_speedup()
    reason = f"convolves {ratio:.1f}x as fast in bf16 as in float32"
    return Choice("bf16-mixed" if ratio >= MIN_SPEEDUP else "32", reason)


@torch.inference_mode()
def bf16_speedup(rounds: int = 7) -> float:
    """Return the speed of bf16 convolutions on one thread of this CPU, relative to float32.

    CPU flags are not sufficient: bf16 is faster on some processors with avx512_bf16, and slower on
    others. The fastest of several alternating rounds (50 ms in total) is robust to other load.
    """
    image = torch.randn(1, 64, 64, 64).to(memory_format=torch.channels_last)
    kernel = torch.randn(64, 64, 3, 3).to(memory_format=torch.channels_last)
    pairs = [(image, kernel), (image.bfloat16(), kernel.bfloat16())]
    timers = [Timer(partial(torch.conv2d, *pair, padding=1)) for pair in pairs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        measured = [[timer.timeit(1) for timer in timers] for _ in range(rounds + 1)][1:]  # warm-up
    finally:
        torch.set_num_threads(threads)
    full, half = (float(min(seconds)) for seconds in zip(*measured, strict=True))
    return full / half


@contextmanager
def user_errors(config: Config, trainer: pl.Trainer) -> Iterator[None]:
    """Convert signals, refused arguments and out of memory to errors for the user."""
    try:
        yield
    except Stopped:
        end_others(trainer)
        raise
    except MisconfigurationException as error:
        raise ConfigError(f"trainer: {str(error).strip()}") from error
    except (MemoryError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise _out_of_memory(config, trainer) from error
        if failure := peer_failure(trainer, error):
            raise failure from error
        raise
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _out_of_memory(config: Config, trainer: pl.Trainer) -> OutOfMemory:
    if trainer.state.fn != TrainerFn.FITTING:
        return of_evaluation(config.inference.protocol)
    shares = trainer.world_size * trainer.accumulate_grad_batches
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    return of_training(config.data.batch_size // shares, config.data.crop_size, last)
