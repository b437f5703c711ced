"""Memory that does not suffice: how it is recognised, and said."""

import re

import torch

from hrseg.errors import ConfigError

# By CUDA, by torch's and the system's allocators, by ONNX Runtime, by OpenVINO.
_SAID = "(?i)out of memory|(can't|cannot|failed to) allocate|bad_alloc|bad allocation"


OUT_OF_MEMORY = (
    "out of memory.\nLess is taken by a smaller data.batch_size or data.crop_size, more devices, "
    "trainer.precision=bf16-mixed, or model.activation_checkpointing=true.\n"
    "A run that had begun goes on from its last checkpoint: hrseg fit --resume."
)


class OutOfMemory(ConfigError):
    """The memory of the machine, or of the device, did not suffice."""


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether a library ran out of memory, of the device or of the machine."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, Exception) and re.search(_SAID, str(error)) is not None


def give_back() -> None:
    """Return to the device what the allocator holds without need."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
