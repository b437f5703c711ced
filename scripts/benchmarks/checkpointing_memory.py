#!/usr/bin/env python3
"""Memory and time of a training step with and without activation checkpointing.

    checkpointing_memory.py                     HRNetV2-W48 at 512x1024, batch 1, float32
    checkpointing_memory.py hrnet_w18 ocr       another backbone and head

Each measurement runs in a new process.
"""

import sys

import torch

import hrseg
from hrseg.benchmark.measure import PeakMemory, in_process, timed


def measure(backbone: str, head: str, recompute: bool) -> tuple[float, float]:
    """Return the peak resident memory in MiB, and the seconds of the second of two steps."""
    memory = PeakMemory(torch.device("cpu"))
    model = hrseg.create_model(backbone, head=head).train()
    model = model.to(memory_format=torch.channels_last)
    model.backbone.recompute = recompute
    image = torch.randn(1, 3, 512, 1024).to(memory_format=torch.channels_last)
    mask = torch.randint(0, 19, (1, 512, 1024))
    seconds: list[float] = []
    for _ in range(2):
        with timed(seconds):
            torch.nn.functional.cross_entropy(model(image), mask).backward()
    return memory.read()["peak_mib"] or 0.0, seconds[-1]


def main() -> None:
    """Measure with and without checkpointing in new processes, and print the comparison."""
    backbone, head = (sys.argv[1:] + ["hrnet_w48", "fcn"][len(sys.argv) - 1 :])[:2]
    peak, seconds = in_process(measure, backbone, head, False)
    reduced_peak, longer_seconds = in_process(measure, backbone, head, True)
    print(f"without checkpointing: peak {peak:,.0f} MiB, {seconds:.1f} s per step")
    print(f"with checkpointing: peak {reduced_peak:,.0f} MiB, {longer_seconds:.1f} s per step")
    print(f"memory / {peak / reduced_peak:.2f}, time x {longer_seconds / seconds:.2f}")


if __name__ == "__main__":
    main()
