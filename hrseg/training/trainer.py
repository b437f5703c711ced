"""The Trainer of a command, and the default precision of a device."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.trainer.states import TrainerFn

from hrseg.config.loader import load_config
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.training.checkpointing import DurableCheckpointIO
from hrseg.training.distributed import (
    Placement,
    another_ended,
    ddp_strategy,
    end_others,
    trainer_refusals,
)
from hrseg.training.loggers import build_loggers
from hrseg.training.preemption import KeptHandler
from hrseg.utils.memory import OutOfMemory, is_out_of_memory, of_evaluation, of_training
from hrseg.utils.signals import Stopped

# Convolutions are most of a step, not all of it: a processor must gain this much in them.
WORTHWHILE = 1.3


class Choice(NamedTuple):
    """A value of `trainer.precision`, and why it was chosen."""

    precision: str
    reason: str


def build_trainer(
    config: Config,
    placement: Placement,
    folder: Path,
    callbacks: list[Callback],
    train: bool = True,
) -> pl.Trainer:
    """Return the Trainer with the config's arguments and hrseg's own parts.

    Args:
        config: the config; its precision is decided, see `settle_precision`.
        placement: the devices and processes of the run.
        folder: the run folder.
        callbacks: all callbacks, in their order.
        train: whether metrics are logged.

    Raises:
        ConfigError: Lightning refuses an argument, for example devices that are not there.
    """
    arguments = {"enable_model_summary": False, **config.trainer}
    arguments["accumulate_grad_batches"] = accumulated_batches(config)
    epochs, every = arguments.get("max_epochs"), arguments.get("check_val_every_n_epoch")
    if isinstance(epochs, int) and isinstance(every, int) and 0 < epochs < every:
        arguments["check_val_every_n_epoch"] = epochs
    interval = arguments.get("val_check_interval")
    if isinstance(interval, int) and interval > 1:
        arguments["check_val_every_n_epoch"] = None  # every so many steps, across epochs
    if placement.kind == "cpu":
        arguments.pop("sync_batchnorm", None)  # it exists for GPUs only
    arguments["strategy"] = ddp_strategy(placement, arguments)
    given = arguments.pop("plugins", None) or []
    plugins = [*(given if isinstance(given, list | tuple) else [given]), DurableCheckpointIO()]
    if isinstance(placement.environment, SLURMEnvironment):
        plugins.append(placement.environment)  # without Lightning's own requeue
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
    """Return the number of batches per optimizer step; a fast_dev_run takes single batches."""
    trainer = config.trainer
    return 1 if trainer.get("fast_dev_run") else int(trainer.get("accumulate_grad_batches", 1))


def settle_precision(config: Config, placement: Placement, resume: Path | None = None) -> str:
    """Write the precision into a config without one; return the reason for the choice.

    A resumed run keeps the precision that it was started with.
    """
    if config.trainer.get("precision") is not None:
        return ""
    started = load_config(resume / "config.yaml").trainer.get("precision") if resume else None
    choice = choose_precision(placement.kind, placement.processes)
    config.trainer["precision"] = started or choice.precision
    return "as the run was started" if started else choice.reason


def choose_precision(kind: str, processes: int = 1) -> Choice:
    """Return the precision that pays on a device: a function of it alone, not of the moment.

    Args:
        kind: of the device, as torch names it: "cuda", "cpu", "mps".
        processes: of the run. Several processes on CPUs are not probed: they might answer
            differently.
    """
    if kind == "cuda":
        return _on_cuda()
    if kind != "cpu":
        return Choice("32", f"mixed precision is not proven on {kind}")
    if processes > 1:
        return Choice("32", "several processes on CPUs")
    ratio = bf16_speedup()
    if ratio >= WORTHWHILE:
        return Choice("bf16-mixed", f"convolves {ratio:.1f}x as fast in bf16 as in float32")
    return Choice("32", f"convolves {ratio:.1f}x as fast in bf16 as in float32")


def _on_cuda() -> Choice:
    # The oldest GPU that is to be seen decides, so that all processes of a machine agree.
    devices = range(torch.cuda.device_count())
    if min(torch.cuda.get_device_capability(device) for device in devices) >= (8, 0):
        return Choice("bf16-mixed", "this GPU has bf16")
    return Choice("16-mixed", "this GPU has no bf16")


@torch.inference_mode()
def bf16_speedup(rounds: int = 7) -> float:
    """Return how many times as fast one thread of this CPU convolves in bf16 as in float32.

    Flags do not tell: of two processors with avx512_bf16 one gains, the other loses. The fastest
    of several alternating rounds on one thread (some 50 ms in all) says the same beside other
    work.
    """
    image = torch.randn(1, 64, 64, 64).to(memory_format=torch.channels_last)
    kernel = torch.randn(64, 64, 3, 3).to(memory_format=torch.channels_last)
    reduced, weight = image.bfloat16(), kernel.bfloat16()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        pairs = [
            (
                _seconds(lambda: torch.conv2d(image, kernel, padding=1)),
                _seconds(lambda: torch.conv2d(reduced, weight, padding=1)),
            )
            for _ in range(rounds + 1)
        ]
    finally:
        torch.set_num_threads(threads)
    measured = pairs[1:]  # the first round prepares the kernels
    return min(full for full, _ in measured) / min(half for _, half in measured)


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@contextmanager
def user_errors(config: Config, trainer: pl.Trainer) -> Iterator[None]:
    """Turn signals, refused arguments, and memory that ran out into errors for the user."""
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
        if ended := another_ended(trainer, error):
            raise ended from error
        raise
    except SystemExit:
        if trainer.interrupted:
            raise KeyboardInterrupt from None
        raise


def _out_of_memory(config: Config, trainer: pl.Trainer) -> OutOfMemory:
    """Return the error with the settings that take less memory."""
    if trainer.state.fn != TrainerFn.FITTING:
        return of_evaluation(config.inference.protocol)
    shares = trainer.world_size * trainer.accumulate_grad_batches
    last = Path(trainer.default_root_dir) / "checkpoints" / "last.ckpt"
    return of_training(config.data.batch_size // shares, config.data.crop_size, last)
