"""Measurements for benchmarks: new processes, seconds, peak memory and multiply-adds."""

import copy
import platform
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from hrseg.config.schema import Config
from hrseg.errors import HrsegError
from hrseg.training.distributed import place, trainer_refusals
from hrseg.training.loggers import quieten
from hrseg.utils.constants import __version__
from hrseg.utils.memory import OutOfMemory, is_out_of_memory
from hrseg.utils.system import exit_with_parent, keep_memory, processor_name, processors

T = TypeVar("T")
WARM_UP = 2  # uncounted first steps, which compile and allocate memory
MIB = 2**20
_CPU = torch.device("cpu")
# Keys of the config's `trainer` that affect a single step.
_STEP_KEYS = "accelerator benchmark deterministic gradient_clip_val gradient_clip_algorithm".split()


def in_process(work: Callable[..., T], *arguments: Any) -> T:
    """Return `work(*arguments)`, called in a new process for an independent peak of memory.

    Raises:
        OutOfMemory: if the process runs out of memory of the machine or the device.
        HrsegError: if `work` raises it.
        RuntimeError: if the process fails for another reason, which it prints.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process_arguments = (sender, torch.get_num_threads(), work, arguments)
    process = context.Process(target=_run_and_send, args=process_arguments, daemon=True)
    # The child ignores Ctrl-C from its start. This process kills it, so it prints no traceback.
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, handler)
    sender.close()
    try:
        result = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise _out_of_memory(work) from None
        raise RuntimeError(f"{work.__name__}: exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(result, HrsegError):
        raise result
    return cast(T, result)


def multiply_adds(model: nn.Module, size: Sequence[int]) -> int:
    """Return the multiply-adds for one image (N, H, W): half of the FLOPs that torch counts.

    Counts convolutions and matrix products, on meta tensors, independently of the device.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        channels = int(getattr(model, "architecture", {}).get("in_channels", 3))
        meta(torch.empty(1, channels, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


def has_enough_steps(seconds: Sequence[float], steps: int | None) -> bool:
    """Return whether to stop: after `steps`, or if None after 10 steps, or 3 steps and 20 s."""
    counted = seconds[WARM_UP:]
    if steps is not None:
        return len(counted) >= steps
    return len(counted) >= 10 or (len(counted) >= 3 and sum(counted) > 20)


@contextmanager
def timed(seconds: list[float], device: torch.device = _CPU) -> Iterator[None]:
    """Append the seconds of the body, including its asynchronous work on the device."""
    wait_for(device)
    start = time.perf_counter()
    yield
    wait_for(device)
    seconds.append(time.perf_counter() - start)


def spread(seconds: Sequence[float], warm_up: int = WARM_UP) -> dict[str, float]:
    """Return the statistics of the seconds after the warm-up, and the very first value."""
    counted = seconds[warm_up:]
    return {
        "median": statistics.median(counted),
        "lowest": min(counted),
        "highest": max(counted),
        "mean": statistics.fmean(counted),
        "steps": len(counted),
        "first": seconds[0],
    }


class PeakMemory:
    """Peak memory since creation: allocated on CUDA, otherwise resident memory of this process."""

    def __init__(self, device: torch.device) -> None:
        """Reset the peak."""
        self.device = device
        if device.type == "cuda":
            # Without it torch refuses a device with an index, such as cuda:0.
            torch.cuda.init()  # type: ignore[no-untyped-call]
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # Linux: resets VmHWM, the peak of resident memory
                Path("/proc/self/clear_refs").write_text("5")
        self.before = self._usage()[0]

    def read(self) -> dict[str, float | None]:
        """Return "before_mib", "peak_mib" and their difference "memory_mib", None if unknown."""
        peak, before = self._usage()[1], self.before
        added = None if peak is None or before is None else max(peak - before, 0.0)
        return {"memory_mib": added, "before_mib": before, "peak_mib": peak}

    def _usage(self) -> tuple[float | None, float | None]:
        """Return the memory in use and its peak, in MiB."""
        if self.device.type == "cuda":
            used = torch.cuda.memory_allocated(self.device)
            return used / MIB, torch.cuda.max_memory_allocated(self.device) / MIB
        try:
            status = Path("/proc/self/status").read_text("utf-8")
        except OSError:
            return None, None
        # psutil has no peak. The peak of getrusage survives exec, so it includes the parent's.
        kib = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status))
        return int(kib["VmRSS"]) / 1024, int(kib["VmHWM"]) / 1024


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished all queued work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device) -> dict[str, Any]:
    """Return the hardware and software of a measurement."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "processor": processor_name(),
        "processors": processors(),
        "threads": torch.get_num_threads(),
        "device": name,
        "torch": torch.__version__,
        "hrseg": __version__,
        "system": platform.platform(),
    }


def on_one_device(config: Config) -> Config:
    """Return a copy of the config for one device, with its share of the batch size."""
    config = copy.deepcopy(config)
    trainer = config.trainer
    accelerator = trainer.get("accelerator", "auto")
    devices, nodes = trainer.pop("devices", "auto"), trainer.pop("num_nodes", 1)
    if not isinstance(devices, int) or devices < 1:
        devices = place({"accelerator": accelerator, "devices": devices}).processes
    shares = devices * nodes * trainer.pop("accumulate_grad_batches", 1)
    for name in ("strategy", "sync_batchnorm"):
        trainer.pop(name, None)
    config.data.batch_size = max(1, config.data.batch_size // shares)
    return config


def device_of(config: Config) -> torch.device:
    """Return the first device of a config.

    Raises:
        ConfigError: if the device does not exist.
    """
    return place({**config.trainer, "devices": 1, "num_nodes": 1}).devices[0]


def trainer_for(config: Config, precision: str, callback: Callback, **options: Any) -> pl.Trainer:
    """Return a silent Trainer on one device, with the config's settings for a single step."""
    arguments = {key: config.trainer[key] for key in _STEP_KEYS if key in config.trainer}
    with trainer_refusals(arguments):
        return pl.Trainer(
            **arguments,
            **options,
            precision=precision,  # type: ignore[arg-type]
            devices=1,
            logger=False,
            callbacks=[callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def _run_and_send(
    sender: Connection, threads: int, work: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """Run `work` in the new process, and send its result or its HrsegError."""
    threading.Thread(target=exit_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_memory()
    quieten()
    result: object
    try:
        result = work(*arguments)
    except (HrsegError, MemoryError, RuntimeError) as error:  # torch raises RuntimeErrors
        if not isinstance(error, HrsegError) and not is_out_of_memory(error):
            raise
        result = error if isinstance(error, HrsegError) else _out_of_memory(work)
    sender.send(result)


def _out_of_memory(work: Callable[..., object]) -> OutOfMemory:
    return OutOfMemory(
        f"{work.__name__.replace('_', ' ')}: out of memory.\n"
        "Fix: a smaller data.batch_size, data.crop_size or image, or "
        "model.activation_checkpointing=true"
    )
