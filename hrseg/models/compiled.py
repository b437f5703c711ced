"""torch.compile for the network: what it needs, and how it is asked for."""

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from hrseg.errors import ConfigError
from hrseg.models.segmenter import Segmenter

Outputs = Callable[[Tensor], dict[str, Tensor]]


def compiled_for_training(model: Segmenter) -> Outputs:
    """Return `model.outputs`, compiled at its first call for the one shape of training crops.

    The network alone: Lightning's logging does not compile.
    """
    return torch.compile(model.outputs, dynamic=False)


def compiled_for_inference(model: Segmenter) -> Outputs:
    """Return `model.outputs` with its weights frozen, compiled at its first call.

    The second size of image compiles once more, for every size; so does a batch of one.
    """
    return torch.compile(model.outputs, options={"freezing": True})


def check_compiler(model: Segmenter) -> None:
    """Look for what compiling needs, which it would miss minutes later.

    Raises:
        ConfigError: no C++ compiler, or a model that computes activations twice.
    """
    if model.backbone.recompute:
        raise ConfigError(
            "model.compile and model.activation_checkpointing do not go together: leave one out.\n"
            "Compiling saves memory as well; checkpointing saves more, and takes time."
        )
    candidates = (os.environ.get("CXX"), "g++", "clang++", "cl")
    if not any(shutil.which(name) for name in candidates if name):
        raise ConfigError(
            "model.compile needs a C++ compiler (g++ or clang++), and there is none.\n"
            "Install one (Debian: apt install g++), or leave model.compile out."
        )
