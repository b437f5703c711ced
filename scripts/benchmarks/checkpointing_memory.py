#!/usr/bin/env python3
"""Memory and time of a training step with and without activation checkpointing.

HRNetV2-W48 at 512x1024, batch 1, float32: `checkpointing_memory.py`; another backbone and head:
`checkpointing_memory.py hrnet_w18 ocr`. Each figure is of a fresh process.
"""

import resource
import subprocess
import sys
import time

import torch

import hrseg


def measure(backbone: str, head: str, recompute: bool) -> None:
    """Print the peak resident memory in MiB, and the seconds of the second of two steps."""
    model = hrseg.create_model(backbone, head=head).train()
    model = model.to(memory_format=torch.channels_last)
    model.backbone.recompute = recompute
    image = torch.randn(1, 3, 512, 1024).to(memory_format=torch.channels_last)
    mask = torch.randint(0, 19, (1, 512, 1024))
    for _ in range(2):
        began = time.perf_counter()
        torch.nn.functional.cross_entropy(model(image), mask).backward()
        seconds = time.perf_counter() - began
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, seconds)


def main() -> None:
    """Measure both ways in fresh processes, and compare."""
    backbone, head = (sys.argv[1:] + ["hrnet_w48", "fcn"][len(sys.argv) - 1 :])[:2]
    found = []
    for recompute in ("", "recompute"):
        command = [sys.executable, __file__, backbone, head, recompute]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        found.append([float(word) for word in out.split()])
        peak, seconds = found[-1]
        print(f"{recompute or 'as it is':10} peak {peak:,.0f} MiB, {seconds:.1f} s per step")
    (before, slow), (after, slower) = found
    print(f"{before / after:.2f} times less memory, {slower / slow:.2f} times the time")


if __name__ == "__main__":
    if len(sys.argv) == 4:
        measure(sys.argv[1], sys.argv[2], bool(sys.argv[3]))
    else:
        main()
