"""Measurement for benchmarks: fresh processes, seconds, peak memory, multiply-adds."""

import copy
import os
import platform
import re
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import get_context, parent_process
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
from hrseg.utils.system import keep_memory, processor_name, processors

T = TypeVar("T")
WARM_UP = 2  # uncounted steps, which compile and allocate
MIB = 2**20
_CPU = torch.device("cpu")
_OF_A_STEP = "accelerator benchmark deterministic gradient_clip_val gradient_clip_algorithm".split()


def in_process(work: Callable[..., T], *arguments: Any) -> T:
    """Return `work(*arguments)`, called in a fresh process, whose peak memory is its own.

    Raises:
        OutOfMemory: the memory of the machine or the device did not suffice.
        HrsegError: an error of `work`.
        RuntimeError: the process ended otherwise; it has printed the reason.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    given = (sender, torch.get_num_threads(), work, arguments)
    process = context.Process(target=_answer, args=given, daemon=True)
    # The process ignores Ctrl-C from its start, and is ended by this one, without a traceback.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    process.start()
    signal.signal(signal.SIGINT, before)
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        if process.exitcode == -signal.SIGKILL:
            raise _out_of_memory(work) from None
        raise RuntimeError(f"{work.__name__}: exit code {process.exitcode}") from None
    finally:
        process.kill()
        process.join()
    if isinstance(answer, HrsegError):
        raise answer
    return cast(T, answer)


def multiply_adds(model: nn.Module, size: Sequence[int]) -> int:
    """Return the multiply-adds of one image (3, H, W): half of the operations that torch counts.

    Only convolutions and matrix products are counted, on tensors without content; shortcuts of a
    device are not.
    """
    meta = copy.deepcopy(model).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        meta(torch.empty(1, 3, *size, device="meta"))
    return int(counter.get_total_flops()) // 2


def enough(seconds: Sequence[float], steps: int | None) -> bool:
    """Return whether to stop: after so many steps, else after 10, or 3 that took 20 seconds."""
    counted = seconds[WARM_UP:]
    if steps is not None:
        return len(counted) >= steps
    return len(counted) >= 10 or (len(counted) >= 3 and sum(counted) > 20)


@contextmanager
def timed(seconds: list[float], device: torch.device = _CPU) -> Iterator[None]:
    """Append the seconds of the body, with the work that it gives the device."""
    wait_for(device)
    began = time.perf_counter()
    yield
    wait_for(device)
    seconds.append(time.perf_counter() - began)


def by_turns(
    ways: Mapping[str, Callable[[], T]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[T]]]:
    """Return the seconds and the results of functions that take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, list[T]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            with timed(seconds[name]):
                results[name].append(way())
    return seconds, results


def ratio(slow: Sequence[float], fast: Sequence[float]) -> dict[str, Any]:
    """Return the median "ratio" of the rounds, and its "spread" [lowest, highest]."""
    ratios = [a / b for a, b in zip(slow, fast, strict=True)]
    return {"ratio": statistics.median(ratios), "spread": [min(ratios), max(ratios)]}


def spread(seconds: Sequence[float], warm_up: int = WARM_UP) -> dict[str, float]:
    """Return median, lowest, highest and mean after the warm-up, and the first of all."""
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
    """Peak memory since creation: the allocator's on CUDA, else this process's resident memory."""

    def __init__(self, device: torch.device) -> None:
        """Reset the peak."""
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        else:
            with suppress(OSError):  # else the peak of the preparation would stay
                Path("/proc/self/clear_refs").write_text("5")
        self.before = self._now()[0]

    def read(self) -> dict[str, float | None]:
        """Return MiB: "memory_mib" above "before_mib"; "peak_mib". None: unknown."""
        peak, before = self._now()[1], self.before
        added = None if peak is None or before is None else max(peak - before, 0.0)
        return {"memory_mib": added, "before_mib": before, "peak_mib": peak}

    def _now(self) -> tuple[float | None, float | None]:
        """Return the memory in use, and its peak."""
        if self.device.type == "cuda":
            used = torch.cuda.memory_allocated(self.device)
            return used / MIB, torch.cuda.max_memory_allocated(self.device) / MIB
        try:
            status = Path("/proc/self/status").read_text("utf-8")
        except OSError:
            return None, None
        # psutil has no peak, and that of getrusage outlives exec: it is the parent process's.
        kib = dict(re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status))
        return int(kib["VmRSS"]) / 1024, int(kib["VmHWM"]) / 1024


def wait_for(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def machine(device: torch.device) -> dict[str, Any]:
    """Return the "processor", "threads", "device", "torch" and the like of a figure."""
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
    """Return a copy for one device, with its share of the batch and without accumulation."""
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
        ConfigError: it is missing.
    """
    return place({**config.trainer, "devices": 1, "num_nodes": 1}).devices[0]


def trainer_for(config: Config, precision: str, watch: Callback, **more: Any) -> pl.Trainer:
    """Return a silent Trainer on one device, with the config's settings of a single step."""
    arguments = {key: config.trainer[key] for key in _OF_A_STEP if key in config.trainer}
    with trainer_refusals(arguments):
        return pl.Trainer(
            **arguments,
            **more,
            precision=precision,  # type: ignore[arg-type]
            devices=1,
            logger=False,
            callbacks=[watch],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )


def _answer(
    sender: Connection, threads: int, work: Callable[..., object], arguments: tuple[Any, ...]
) -> None:
    """Do the work in the new process, and send its result or the user's error."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    keep_memory()
    quieten()
    answer: object
    try:
        answer = work(*arguments)
    except (HrsegError, MemoryError, RuntimeError) as error:  # torch raises RuntimeErrors
        if not isinstance(error, HrsegError) and not is_out_of_memory(error):
            raise
        answer = error if isinstance(error, HrsegError) else _out_of_memory(work)
    sender.send(answer)


def _end_with_parent() -> None:
    """Exit when the parent ends, for example by `timeout` or a closed terminal."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _out_of_memory(work: Callable[..., object]) -> OutOfMemory:
    return OutOfMemory(
        f"{work.__name__.replace('_', ' ')}: out of memory.\nLess is taken by a smaller "
        "data.batch_size, data.crop_size or image, or by model.activation_checkpointing=true."
    )
