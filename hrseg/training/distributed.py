"""The processes of one run: where they compute, what they agree on, how they average gradients.

Who starts them is Lightning's business: itself (one machine), torchrun, or SLURM's srun.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from inspect import signature
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from hrseg.checkpoints.runs import dated_folder
from hrseg.errors import ConfigError, HrsegError

_PLACE = "accelerator devices num_nodes strategy plugins accumulate_grad_batches".split()
_AGREED = "HRSEG_RUN"
_PATIENCE = 2.0  # seconds


def scout(arguments: Mapping[str, Any]) -> pl.Trainer:
    """Return a Trainer that knows where a run computes, and in how many processes; no more.

    Args:
        arguments: the config's section `trainer`.

    Raises:
        ConfigError: devices that are not there, or processes that nobody starts.
    """
    given = {name: arguments[name] for name in _PLACE if name in arguments}
    if arguments.get("fast_dev_run"):
        given["accumulate_grad_batches"] = 1  # it tries single batches, of any size
    with trainer_refusals(arguments):
        place = pl.Trainer(
            **given,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
    _check_started(place)
    return place


@contextmanager
def trainer_refusals(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Turn what Lightning says to arguments into a ConfigError that says what to change."""
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        asked = {key: arguments[key] for key in ("accelerator", "devices") if key in arguments}
        hint = "\nFor another machine: trainer.accelerator=cpu trainer.devices=1." if asked else ""
        raise ConfigError(f"trainer: {error} {asked or ''}{hint}") from error


def agreed(place: pl.Trainer, decide: Callable[[], str]) -> str:
    """Return what the first process decides, in every process of the run.

    torchrun and srun start all of them at once, and each gets here: they meet. Lightning starts
    the others later, and they inherit the answer.
    """
    environment = _environment(place)
    if place.world_size == 1 or environment is None:
        return decide()
    if isinstance(environment, LightningEnvironment):
        if environment.local_rank() == 0:
            os.environ[_AGREED] = decide()
        return os.environ[_AGREED]
    place.strategy.setup_environment()  # the Trainer that trains takes the same process group
    answer: str = place.strategy.broadcast(decide() if place.is_global_zero else "")
    return answer


def new_folder(place: pl.Trainer, home: Path) -> Path:
    """Make `home/<date-time>`, one for all processes."""
    return Path(agreed(place, lambda: str(dated_folder(home))))


def averaging(place: pl.Trainer, arguments: Mapping[str, Any]) -> str | Strategy:
    """Return what is passed on as `trainer.strategy`: DDP set up for hrseg, where DDP is meant."""
    asked: str = arguments.get("strategy") or "auto"
    plain = asked in ("auto", "ddp") and isinstance(place.strategy, DDPStrategy)
    if place.world_size == 1 or not plain:
        return asked
    options: dict[str, Any] = {
        "find_unused_parameters": False,  # every parameter of every model gets a gradient
        "gradient_as_bucket_view": True,  # saves a copy of all gradients
    }
    if arguments.get("sync_batchnorm"):
        # The statistics are the same everywhere: no need to send them at each step.
        known = signature(DistributedDataParallel).parameters
        newer = "forward_sync_buffers"  # since torch 2.13
        options[newer if newer in known else "broadcast_buffers"] = False
    return DDPStrategy(**options)


class SameStatistics(Callback):
    """Let all processes evaluate the model of the first one, which is the one that is saved.

    Without SyncBN the running statistics differ between them; each has seen its own images.
    """

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Take the first process's buffers."""
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, 0)


def end_others(trainer: pl.Trainer) -> None:
    """End the processes that Lightning has started beside this one: asked first, then killed."""
    started = getattr(trainer.strategy.launcher, "procs", [])
    others = list(started)
    started.clear()  # Lightning's watch would take their exit codes for a crash, and kill this one
    for ask in (lambda other: None, Popen.terminate, Popen.kill):
        deadline = time.monotonic() + _PATIENCE
        for other in others:
            ask(other)
        for other in others:
            with suppress(TimeoutExpired):
                other.wait(max(0.0, deadline - time.monotonic()))


def another_ended(trainer: pl.Trainer, error: Exception) -> HrsegError | None:
    """Return what to say of an error that comes of another process's end; None for other errors.

    The exit code is that of the other one, where it is known: Lightning started it.
    """
    if trainer.world_size == 1 or not re.search("by peer|remote process", str(error)):
        return None
    ended = HrsegError("another process of this run has ended: see what it has said.")
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        with suppress(TimeoutExpired):
            if code := process.wait(5):
                ended.exit_code = code if code > 0 else 128 - code
    return ended


def _check_started(place: pl.Trainer) -> None:
    """Refuse processes that nobody starts, and others than were started."""
    environment, nodes = _environment(place), place.num_nodes
    if nodes > 1 and isinstance(environment, LightningEnvironment):
        raise ConfigError(
            f"trainer.num_nodes is {nodes}, but nothing has started processes on the other "
            "machines.\nStart it there too: `torchrun --nnodes ... -m hrseg`, or `srun` "
            "(scripts/slurm.sbatch)."
        )
    if environment is not None:
        try:
            environment.validate_settings(num_devices=place.num_devices, num_nodes=nodes)
        except ValueError as error:
            raise ConfigError(
                f"trainer: {error}\nSay trainer.devices (of a machine) and trainer.num_nodes as "
                "torchrun or srun was told."
            ) from error


def _environment(place: pl.Trainer) -> Any:
    return getattr(place.strategy, "cluster_environment", None)
