#!/usr/bin/env python3
"""Memory and time of a training step with and without activation checkpointing.

HRNetV2-W48 at 512x1024, batch 1, float32: `checkpointing_memory.py`; another backbone and head:
`checkpointing_memory.py hrnet_w18 ocr`. Each figure is of a fresh process.
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
    """Measure both ways in fresh processes, and compare."""
    backbone, head = (sys.argv[1:] + ["hrnet_w48", "fcn"][len(sys.argv) - 1 :])[:2]
    before, slow = in_process(measure, backbone, head, False)
    after, slower = in_process(measure, backbone, head, True)
    print(f"without    peak {before:,.0f} MiB, {slow:.1f} s per step")
    print(f"recompute  peak {after:,.0f} MiB, {slower:.1f} s per step")
    print(f"{before / after:.2f} times less memory, {slower / slow:.2f} times the time")


if __name__ == "__main__":
    main()
