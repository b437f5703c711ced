"""Out-of-memory errors: detection, and messages with the settings that take less."""

import re
from collections.abc import Sequence
from pathlib import Path

import torch

from hrseg.errors import ConfigError

# By CUDA, by torch's and the system's allocators, by ONNX Runtime, by OpenVINO.
_SAID = "(?i)out of memory|(can't|cannot|failed to) allocate|bad_alloc|bad allocation"


class OutOfMemory(ConfigError):
    """The memory of the machine, or of the device, did not suffice."""


def of_training(images: int, crop_size: Sequence[int], last: Path) -> OutOfMemory:
    """Return the error of a training step.

    Args:
        images: of a device and a forward pass.
        crop_size: (height, width).
        last: the state of a run, `<run>/checkpoints/last.ckpt`, if there is one.
    """
    again = f"\nThen go on: hrseg fit --resume {last.parents[1]}" if last.is_file() else ""
    return OutOfMemory(
        f"out of memory: {images} crops of {crop_size[0]}x{crop_size[1]} at once on a device.\n"
        "Less is taken by a smaller data.batch_size or data.crop_size, a larger "
        "trainer.accumulate_grad_batches, trainer.precision=bf16-mixed, or "
        f"model.activation_checkpointing=true.{again}"
    )


def of_evaluation(protocol: str) -> OutOfMemory:
    """Return the error of an evaluation, where it was not the network that took too much."""
    return OutOfMemory(
        f"out of memory: an image by the protocol {protocol}.\nLess is taken by smaller "
        "inference.scales, trainer.precision=bf16-mixed, or inference.scale_report=false."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a library ran out of memory, of the device or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, Exception) and re.search(_SAID, str(error)) is not None


def give_back() -> None:
    """Return to the device what the allocator holds without need."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
