"""Distributed training: devices and processes of a run, its folder, DDP, and shutdown.

Lightning (on one machine), torchrun, or SLURM's srun starts the processes.
"""

import atexit
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from typing import Any

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.accelerators import Accelerator, AcceleratorRegistry
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy, Strategy
from torch.nn.parallel import DistributedDataParallel

from hrseg.checkpoints.runs import dated_folder
from hrseg.errors import ConfigError, HrsegError

_RUN_FOLDER = "HRSEG_RUN"  # environment variable, inherited by processes that Lightning starts
_TIMEOUT = 2.0  # seconds
_DEVICE_ARGUMENTS = ("accelerator", "devices")  # depend on the machine


@dataclass(frozen=True)
class Placement:
    """Devices and processes of a run, from the config's section `trainer`."""

    devices: Sequence[torch.device]  # of one machine; one device per process
    nodes: int
    environment: ClusterEnvironment  # torchrun, SLURM or Lightning

    @property
    def kind(self) -> str:
        return self.devices[0].type

    @property
    def processes(self) -> int:
        return len(self.devices) * self.nodes


def place(arguments: Mapping[str, Any]) -> Placement:
    """Return the placement for the config's section `trainer`.

    Raises:
        ConfigError: a device is not available, or processes on other machines are missing.
    """
    with trainer_refusals(arguments):
        accelerator = _accelerator(arguments.get("accelerator") or "auto")
        requested = arguments.get("devices", "auto")
        automatic = requested in (None, "auto")
        count = accelerator.auto_device_count() if automatic else requested
        devices = accelerator.get_parallel_devices(accelerator.parse_devices(count))
        environment: ClusterEnvironment = LightningEnvironment()  # chosen as by the Trainer
        if TorchElasticEnvironment.detect():
            environment = TorchElasticEnvironment()
        elif SLURMEnvironment.detect():
            environment = SLURMEnvironment(auto_requeue=False)  # `Interruption` requeues the job
        nodes = arguments.get("num_nodes") or 1
        placement = Placement([torch.device(device) for device in devices], nodes, environment)
    if placement.processes > 1:
        _check_started(placement)
    return placement


@contextmanager
def trainer_refusals(arguments: Mapping[str, Any]) -> Iterator[None]:
    """Convert Lightning's errors about arguments to a ConfigError with the values to change."""
    try:
        yield
    except (MisconfigurationException, ValueError, TypeError, RuntimeError) as error:
        text = str(error).partition(" Find a complete list")[0]
        key = next((f".{key}" for key in arguments if re.search(rf"\b{key}\b", text, re.I)), "")
        fix = f"correct trainer{key}, or remove it."
        if key in ("", ".accelerator", ".devices"):
            requested = [f"trainer.{k}={arguments[k]}" for k in _DEVICE_ARGUMENTS if k in arguments]
            text = f"{text} ({' '.join(requested)})" if requested else text
            fix = "trainer.accelerator=cpu trainer.devices=1, which runs on any machine."
        raise ConfigError(f"trainer{key}: {text}\nFix: {fix}") from error


def new_folder(placement: Placement, home: Path) -> Path:
    """Create the folder `home/<date-time>` for all processes.

    The first process broadcasts the name. Processes that Lightning starts later inherit it.
    """
    if placement.processes == 1:
        return dated_folder(home)
    environment = placement.environment
    if isinstance(environment, LightningEnvironment):
        if environment.local_rank() == 0:
            os.environ[_RUN_FOLDER] = str(dated_folder(home))
        return Path(os.environ[_RUN_FOLDER])
    if not torch.distributed.is_initialized():  # the Trainer uses this process group
        os.environ["MASTER_ADDR"] = environment.main_address
        os.environ["MASTER_PORT"] = str(environment.main_port)
        if placement.kind == "cuda":
            torch.cuda.set_device(placement.devices[environment.local_rank()])
            atexit.register(torch.distributed.destroy_process_group)
        backend = torch.distributed.get_default_backend_for_device(placement.kind)
        torch.distributed.init_process_group(
            backend, rank=environment.global_rank(), world_size=placement.processes
        )
    names = [str(dated_folder(home)) if environment.global_rank() == 0 else ""]
    torch.distributed.broadcast_object_list(names)
    return Path(names[0])


def ddp_strategy(placement: Placement, arguments: Mapping[str, Any]) -> str | Strategy:
    """Return the Trainer's `strategy`: DDP for hrseg's models, or the config's strategy."""
    strategy: str = arguments.get("strategy") or "auto"
    if placement.processes == 1 or strategy not in ("auto", "ddp"):
        return strategy
    options: dict[str, Any] = {"gradient_as_bucket_view": True}  # saves a copy of all gradients
    if arguments.get("sync_batchnorm"):
        # All processes have the same statistics, so a broadcast at each step is unnecessary.
        parameters = signature(DistributedDataParallel).parameters
        newer = "forward_sync_buffers"  # since torch 2.13
        options[newer if newer in parameters else "broadcast_buffers"] = False
    return DDPStrategy(**options)


class SameStatistics(Callback):
    """Broadcast the running statistics of the first process, which saves the model."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.world_size > 1 and torch.distributed.is_initialized():
            for buffer in pl_module.buffers():
                torch.distributed.broadcast(buffer, 0)


def gather(trainer: pl.Trainer, item: Any) -> list[Any]:
    """Return the items of all processes by rank; every process must call this."""
    items = [item] * trainer.world_size
    if trainer.world_size > 1:
        torch.distributed.all_gather_object(items, item)
    return items


def end_others(trainer: pl.Trainer) -> None:
    """Terminate the other processes that Lightning started, and kill them after a timeout."""
    started = getattr(trainer.strategy.launcher, "procs", [])
    others = list(started)
    started.clear()  # at their exit codes Lightning would kill this process
    for end in (lambda other: None, Popen.terminate, Popen.kill):
        deadline = time.monotonic() + _TIMEOUT
        for other in others:
            end(other)
        for other in others:
            with suppress(TimeoutExpired):
                other.wait(max(0.0, deadline - time.monotonic()))


def peer_failure(trainer: pl.Trainer, error: Exception) -> HrsegError | None:
    """Return an error with the exit code of another process whose failure caused `error`."""
    if trainer.world_size == 1 or not re.search("by peer|remote process", str(error)):
        return None
    failure = HrsegError("Another process of this run failed; see its output.")
    for process in getattr(trainer.strategy.launcher, "procs", ()):
        with suppress(TimeoutExpired):
            if code := process.wait(5):
                failure.exit_code = code if code > 0 else 128 - code
    return failure


def _accelerator(name: str) -> Accelerator:
    known = ["cuda", "mps", "cpu"]
    available = [kind for kind in known if AcceleratorRegistry[kind]["accelerator"].is_available()]
    if name == "auto":
        name = available[0]
    elif name == "gpu":
        name = next((kind for kind in available if kind != "cpu"), "gpu")
    if name not in available:
        raise ValueError(f"{name!r} is not available. Expected: {', '.join(available)}")
    accelerator: Accelerator = AcceleratorRegistry.get(name)
    return accelerator


def _check_started(placement: Placement) -> None:
    environment, nodes = placement.environment, placement.nodes
    if nodes > 1 and isinstance(environment, LightningEnvironment):
        raise ConfigError(
            f"trainer.num_nodes is {nodes}, but no processes run on the other machines.\n"
            f"Expected: a start with torchrun or srun. Fix: `torchrun --nnodes {nodes} -m hrseg "
            "...` on each machine, or scripts/maintenance/slurm.sbatch."
        )
    environment.set_world_size(placement.processes)
    try:
        environment.validate_settings(num_devices=len(placement.devices), num_nodes=nodes)
    except ValueError as error:
        raise ConfigError(
            f"trainer: {error}\nExpected: the values of torchrun or srun. "
            "Fix: set trainer.devices (per machine) and trainer.num_nodes"
        ) from error
