"""Operators of PyTorch, grouped by meaning: seconds and calls per step from profiler events."""

import re
from collections import defaultdict
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

STEP = "ProfilerStep"  # torch.profiler marks each step by an event with this name


class Group(NamedTuple):
    """Operators of one meaning.

    Attributes:
        name: name in the table.
        calls: regular expression of the beginning of a call chain "operator < caller < ... ".
        meaning: meaning of the group, or of its forward pass.
        backward: meaning of its backward pass; if empty, one row has both passes.
    """

    name: str
    calls: str
    meaning: str
    backward: str = ""


# A call chain belongs to the first group that fits its operator, then its caller, and so on.
# The allocations inside of an operator thus belong to the operator.
GROUPS = (
    # Inside of a convolution and of its backward pass, `to` changes the layout, not the type.
    Group(
        "layout copies",
        r"aten::(clone|contiguous) |aten::_to_copy < aten::to < aten::_?convolution(_backward)? ",
        "copies to another layout",
    ),
    Group("type conversions", r"aten::_to_copy (?!.*< aten::_foreach)", "mostly of autocast"),
    Group("optimizer", r"aten::_(foreach|fused|amp)_\w+ ", "weights, gradient norm"),
    Group(
        "convolution",
        r"\w+::\w*conv(olution|\dd|_)\w* ",
        "filters of the network",
        "gradients of convolutions",
    ),
    Group(
        "batch norm",
        r"aten::\w*batch_norm\w* ",
        "mean 0 and deviation 1",
        "gradients of batch norms",
    ),
    Group(
        "ReLU",
        r"aten::(relu_?|clamp_min_?|threshold\w*) ",
        "negative values become 0",
        "gradients of ReLUs",
    ),
    Group(
        "additions",
        r"aten::add_? (?!.*< aten::_foreach)",
        "shortcuts, stream exchange",
        "sums of gradients",
    ),
    Group(
        "upsampling",
        r"aten::\w*upsample\w* ",
        "streams, logits to crop",
        "gradients of upsamplings",
    ),
    Group(
        "matrix products",
        r"aten::(matmul|bmm|mm|addmm|baddbmm) ",
        "OCR head or RMI loss",
        "gradients of the products",
    ),
    Group(
        "softmax, loss",
        r"aten::\w*(softmax|nll_loss|cross_entropy)\w* ",
        "cross-entropy, attention",
        "gradients of the loss",
    ),
    Group("concatenation", r"aten::(cat|stack) ", "streams joined for the head"),
    Group(
        "compiled kernels",
        r"triton_\w+ |## Call CompiledFxGraph ",
        "fused by torch.compile",
        "fused by torch.compile",
    ),
)
OTHER = Group("other operators", r"(?!autograd|torch)\w+::", "operators of no group")
OUTSIDE = Group("outside of operators", "", "Python, autograd, data")
IDLE = Group("outside of operators", "", "the GPU waits for Python")


class Event(Protocol):
    """Part of `torch.autograd.profiler_util.FunctionEvent` that is read; times in microseconds."""

    name: str
    device_type: Any  # an enum of torch with the names "CPU" and "CUDA"
    cpu_parent: "Event | None"
    cpu_time_total: float
    self_cpu_time_total: float
    self_device_time_total: float


def grouped(events: Iterable[Event], steps: int, on_gpu: bool) -> dict[str, Any]:
    """Return the time of each group of operators per step.

    Each moment belongs to one group, because the time of an operator excludes the operators that it
    calls. On a GPU the time of an operator is that of its kernels.

    Args:
        events: result of `torch.profiler.profile.events` for whole steps.
        steps: number of steps.
        on_gpu: use the time of the GPU instead of the CPU.

    Returns:
        "seconds_per_step", and "groups": a list of {group, meaning, seconds_per_step, share, calls}
        in descending order of time. Its last entry is the time outside of operators. The shares add
        up to 1. On a GPU, "cpu_seconds_per_step" is the time in which the CPU starts the kernels.
    """
    cpu, gpu = defaultdict[Key, float](float), defaultdict[Key, float](float)
    calls, recorded = defaultdict[Key, int](int), 0.0
    for event in events:
        if event.device_type.name != "CPU":
            continue  # a kernel, which also belongs to the operator that starts it
        if event.name.startswith(STEP):
            recorded += event.cpu_time_total
        chain = _chain(event)
        if key := _key(chain):
            cpu[key] += event.self_cpu_time_total
            gpu[key] += event.self_device_time_total
            calls[key] += key != _key(_callers(chain))
    time = gpu if on_gpu else cpu
    rows = sorted(time.items(), key=lambda item: -item[1])
    outside = (IDLE if on_gpu else OUTSIDE, False)
    rows.append((outside, max(recorded - sum(time.values()), 0)))
    cpu[outside] = max(recorded - sum(cpu.values()), 0)
    total = sum(microseconds for _, microseconds in rows)
    return {
        "seconds_per_step": total / 1e6 / steps,
        "groups": [
            {
                "group": f"{group.name}, backward" if backward else group.name,
                "meaning": group.backward if backward else group.meaning,
                "seconds_per_step": microseconds / 1e6 / steps,
                "share": microseconds / total,
                "calls": calls[group, backward] / steps,
                **({"cpu_seconds_per_step": cpu[group, backward] / 1e6 / steps} if on_gpu else {}),
            }
            for (group, backward), microseconds in rows
        ],
    }


Key = tuple[Group, bool]  # group, backward pass


def _chain(event: Event) -> str:
    """Return the names of an event and its callers, each followed by a blank."""
    names = []
    caller: Event | None = event
    while caller is not None:
        names.append(caller.name)
        caller = caller.cpu_parent
    return " < ".join(names) + " "


def _callers(chain: str) -> str:
    return chain.partition(" < ")[2]


@lru_cache(maxsize=10_000)
def _key(chain: str) -> Key | None:
    """Return the group of a call chain; None outside of operators."""
    callers = chain
    while callers:
        for group in GROUPS:
            if re.match(group.calls, callers):
                return group, bool(group.backward) and "autograd::engine" in chain
        callers = _callers(callers)
    return (OTHER, False) if re.match(OTHER.calls, chain) else None
