"""Free memory, and out-of-memory errors with settings that need less memory."""

import re
from collections.abc import Sequence
from pathlib import Path

import psutil
import torch

from hrseg.errors import ConfigError

# Messages of CUDA, of the allocators of torch and the system, of ONNX Runtime and OpenVINO.
_MESSAGE = (
    "(?i)out of memory|(can't|cannot|failed to) allocate|bad_alloc|bad allocation"
    "|memory allocation failed|STATUS_ALLOC_FAILED|is smaller than requested bytes"
)


class OutOfMemory(ConfigError):
    """The machine or the device is out of memory."""


def of_training(images: int, crop_size: Sequence[int], last: Path) -> OutOfMemory:
    """Return the error of a training step on `images` crops (height, width) of a device.

    `last` is `<run>/checkpoints/last.ckpt`, which may be missing.
    """
    resume = f"\nThen resume: `hrseg fit --resume {last.parents[1]}`" if last.is_file() else ""
    return OutOfMemory(
        f"out of memory: {images} crops of {crop_size[0]}x{crop_size[1]} at once on a device.\n"
        "Fix: a smaller data.batch_size or data.crop_size, a larger "
        "trainer.accumulate_grad_batches,\n"
        f"trainer.precision=bf16-mixed, or model.activation_checkpointing=true.{resume}"
    )


def of_evaluation(protocol: str) -> OutOfMemory:
    """Return the error of an evaluation that failed outside the network."""
    return OutOfMemory(
        f"out of memory: an image by the protocol {protocol}.\n"
        "Fix: smaller inference.scales, trainer.precision=bf16-mixed, or "
        "inference.scale_report=false."
    )


def free_memory() -> tuple[int, bool]:
    """Return (bytes, True) for the free memory of the CUDA device, else (bytes, False)."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0]), True
    return int(psutil.virtual_memory().available), False


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the error of a library means that the machine or device is out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, Exception) and re.search(_MESSAGE, str(error)) is not None


def give_back() -> None:
    """Return unused memory of torch's allocator to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
