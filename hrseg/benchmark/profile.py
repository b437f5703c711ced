"""Profile of the training step and of inference: shares of the operators, and advice."""

import os
from collections.abc import Callable, Mapping
from timeit import Timer
from typing import Any

import torch
from rich import get_console
from torch.profiler import ProfilerActivity, schedule
from torch.profiler import profile as record

from hrseg.benchmark.measure import WARM_UP, device_of, wait_for
from hrseg.benchmark.operators import OTHER, OUTSIDE, grouped
from hrseg.config.schema import Config
from hrseg.errors import ConfigError
from hrseg.models.optimize import PRECISIONS
from hrseg.utils.console import echo, number_table

STEPS = 3  # default number of profiled steps
ROWS = 10  # groups in the table
# Smallest shares of a step that lead to advice.
MIN_OUTSIDE, MIN_ELEMENTWISE, MIN_CONVERSIONS, MIN_OPTIMIZER = 0.25, 0.25, 0.1, 0.15
MIN_CONVOLUTIONS, MIN_RATE = 0.5, 0.5
_RATES = ("convolution", "large_convolution")  # keys, with the suffix "_flops_per_second"
# Fused by torch.compile. Most layout copies remain: those of weights and gradients.
_ELEMENTWISE = ("batch norm", "ReLU", "additions", "type conversions")


def check_device(device: torch.device) -> None:
    """Raise ConfigError for a device that the profiler does not measure."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            f"--profile does not measure the device {device.type}.\n"
            "Expected: a CPU or a CUDA GPU. Fix: trainer.accelerator=cpu"
        )


def profiled(
    work: Callable[..., object], config: Config, precision: str, steps: int | None, macs: int
) -> dict[str, Any]:
    """Profile a work of `hrseg benchmark model` after its warm-up.

    Args:
        work: a function (config, precision, steps, after_step).
        config: the config.
        precision: the precision of the work.
        steps: number of profiled steps; None: STEPS.
        macs: multiply-adds of the forward pass for one image.

    Returns:
        The precision, the number of steps, the result of `grouped`, and FLOPs per second of the
        convolutions in the forward pass and of a large convolution.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # no lines about start and stop
    device, steps = device_of(config), steps or STEPS
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    plan = schedule(wait=WARM_UP - 1, warmup=1, active=steps, repeat=1)
    with record(activities=activities, schedule=plan) as recorder:
        work(config, precision, steps, recorder.step)
    result = grouped(recorder.events(), steps, on_gpu)
    seconds = _sum_of(result, "seconds_per_step", "convolution", "matrix products")
    flops = 2 * macs * config.data.batch_size
    return {
        "precision": precision,
        "steps": steps,
        **result,
        "convolution_flops_per_second": flops / seconds if seconds else None,
        "large_convolution_flops_per_second": _large_convolution(device, precision),
    }


def show(work: str, profile: Mapping[str, Any], compiled: bool) -> None:
    """Print the table of a work, the FLOP rates and the advice.

    Args:
        work: name of the work.
        profile: result of `profiled`.
        compiled: the network is compiled.
    """
    title = f"{work}, precision {profile['precision']}"
    if "error" in profile:
        return echo(f"{title}: {profile['error']}")
    echo(f"{title}: {1000 * profile['seconds_per_step']:.4g} ms per step with the profiler")
    on_gpu = "cpu_seconds_per_step" in profile["groups"][0]
    columns = ("GPU ms", "CPU ms") if on_gpu else ("ms",)
    table = number_table("operators", "share", *columns, "calls")
    table.add_column("meaning")
    for row in _table_rows(profile["groups"]):
        times = [row[key] for key in ("seconds_per_step", "cpu_seconds_per_step") if key in row]
        table.add_row(
            row["group"],
            f"{100 * row['share']:.1f} %",
            *(f"{1000 * seconds:,.1f}" for seconds in times),
            f"{row['calls']:,.0f}" if row["calls"] else "-",
            row["meaning"],
        )
    get_console().print(table)
    rate, large = (profile[f"{name}_flops_per_second"] for name in _RATES)
    if rate:
        echo(
            f"convolutions of the forward pass: {rate / 1e9:,.0f} GFLOP/s; "
            f"a large convolution: {large / 1e9:,.0f} GFLOP/s"
        )
    echo(*advice(profile, compiled))


def advice(profile: Mapping[str, Any], compiled: bool) -> list[str]:
    """Return at most two lines of advice that follow from the shares, the largest share first.

    Args:
        profile: result of `profiled`.
        compiled: the network is compiled.
    """
    outside = _sum_of(profile, "share", OUTSIDE.name)
    elementwise = _sum_of(profile, "share", *_ELEMENTWISE, backward=True)
    conversions = _sum_of(profile, "share", "type conversions")
    optimizer = _sum_of(profile, "share", "optimizer")
    convolutions = _sum_of(profile, "share", "convolution", backward=True)
    rate, large = (profile[f"{name}_flops_per_second"] for name in _RATES)
    idle = "cpu_seconds_per_step" in profile["groups"][0]
    fuse = "" if compiled else "model.compile=true or "
    lines = []
    if outside >= MIN_OUTSIDE and idle:
        lines.append((outside, f"of the step the GPU waits for Python: try {fuse}a larger batch."))
    elif outside >= MIN_OUTSIDE:
        text = "is Python, which takes as long for a small batch: try a larger data.batch_size."
        lines.append((outside, text))
    if elementwise >= MIN_ELEMENTWISE and not compiled:
        text = "are steps between convolutions, limited by memory: try model.compile=true."
        lines.append((elementwise, text))
    if conversions >= MIN_CONVERSIONS:
        lines.append((conversions, "are type conversions: compare with precision 32 above."))
    if optimizer >= MIN_OPTIMIZER:
        text = "is the optimizer, which takes as long for a small batch: try a larger one."
        lines.append((optimizer, text))
    if convolutions >= MIN_CONVOLUTIONS and rate and rate >= MIN_RATE * large:
        text = (
            f"are convolutions, at {100 * rate / large:.0f} % of the rate of a large one: "
            "a smaller crop or network has the largest effect."
        )
        lines.append((convolutions, text))
    return [f"{100 * share:.0f} % {text}" for share, text in sorted(lines, reverse=True)[:2]]


def _table_rows(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the largest groups, the sum of the others, and the time outside of operators."""
    *operators, outside = groups
    named = [row for row in operators if row["group"] != OTHER.name][:ROWS]
    rest: dict[str, Any] = {"group": "everything else", "meaning": "all other operators"}
    others = [row for row in operators if row not in named]
    sums = {key: sum(row[key] for row in others) for key in outside if key not in rest}
    return [*named, {**rest, **sums}, outside]


def _sum_of(profile: Mapping[str, Any], key: str, *names: str, backward: bool = False) -> float:
    """Return the sum of a key over groups, with or without their backward passes."""
    wanted = {*names, *(f"{name}, backward" for name in names if backward)}
    return float(sum(row[key] for row in profile["groups"] if row["group"] in wanted))


def _large_convolution(device: torch.device, precision: str) -> float:
    """Return the FLOPs per second of 3x3 convolutions from 256 to 256 channels."""
    dtype = PRECISIONS.get(precision.partition("-")[0], torch.float32)
    batch = 32 if device.type == "cuda" else 1
    image, kernel = (
        torch.randn(shape, device=device).to(dtype, memory_format=torch.channels_last)
        for shape in ((batch, 256, 64, 64), (256, 256, 3, 3))
    )

    def convolve() -> None:
        torch.conv2d(image, kernel, padding=1)
        wait_for(device)

    with torch.inference_mode():
        _, *seconds = Timer(convolve).repeat(6, 1)  # the first one is the warm-up
    return 2 * image.numel() * 256 * 9 / min(seconds)
