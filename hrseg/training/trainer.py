"""What there is to compute on, and the precision where a config says none: that of the device."""

import time
from collections.abc import Callable
from typing import NamedTuple

import torch

# Convolutions are most of a step, not all of it: a processor must gain this much in them.
WORTHWHILE = 1.3


class Choice(NamedTuple):
    """A value of `trainer.precision`, and why it was chosen."""

    precision: str
    reason: str


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
