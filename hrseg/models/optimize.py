"""Network optimisation: batch norm folding for inference, and torch.compile."""

import copy
import os
import shutil
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hrseg.errors import ConfigError
from hrseg.models.blocks import BATCH_NORMS
from hrseg.models.segmenter import Segmenter

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

Model = TypeVar("Model", bound=nn.Module)


def fold(model: Model, precision: str = "32") -> Model:
    """Return a copy in eval mode with batch norms folded into convolutions.

    The logits differ only by rounding. Folding covers `nn.Sequential` and the modules of hrseg,
    which call their children in order.

    Args:
        model: the network; it stays unchanged.
        precision: a key of PRECISIONS, of the autocast around the copy. The copy stores the weights
            of its convolutions in it. The logits stay equal to the bit, but autocast no longer
            converts every weight for every image, which takes a quarter of the time of a small one.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        kind = type(module)
        if kind is not nn.Sequential and not kind.__module__.startswith("hrseg.models."):
            continue
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if not isinstance(norm, BATCH_NORMS) or norm.running_mean is None:
                continue  # without running statistics the norm uses those of each batch
            if isinstance(conv, nn.Conv2d):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    for module in folded.modules():
        if precision != "32" and isinstance(module, nn.Conv2d):
            module.to(PRECISIONS[precision])
    return folded


def inference_network(
    model: Segmenter, precision: str = "32", compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return a faster copy that maps normalised images (B, 3, H, W) to logits at head resolution.

    Args:
        model: the network; it stays unchanged.
        precision: a key of PRECISIONS.
        compile: compile the copy at its first call.
    """
    folded = fold(model, precision)
    folded = folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    outputs = compiled_for_inference(folded) if compile else folded.outputs
    device_type = next(model.parameters()).device.type

    def logits(image: Tensor) -> Tensor:
        with torch.autocast(device_type, PRECISIONS[precision], enabled=precision != "32"):
            return outputs(image)["out"]

    return logits


Outputs = Callable[[Tensor], dict[str, Tensor]]


def compiled_for_training(model: Segmenter) -> Outputs:
    """Return `model.outputs`, compiled at its first call for the shape of the training crops."""
    return torch.compile(model.outputs, dynamic=False)


def compiled_for_inference(model: Segmenter) -> Outputs:
    """Return `model.outputs` with frozen weights, compiled at its first and second image size."""
    return torch.compile(model.outputs, options={"freezing": True})


def check_compiler(model: Segmenter) -> None:
    """Raise ConfigError if a C++ compiler is missing, or activation checkpointing is enabled."""
    if model.recompute:
        raise ConfigError(
            "model.compile and model.activation_checkpointing cannot be combined.\n"
            "Expected: at most one of them. Fix: model.activation_checkpointing=false\n"
            "Compilation also saves memory. Activation checkpointing saves more, but is slower."
        )
    candidates = (os.environ.get("CXX"), "g++", "clang++", "cl")
    if not any(shutil.which(name) for name in candidates if name):
        raise ConfigError(
            "model.compile needs a C++ compiler, but g++ and clang++ are missing.\n"
            "Fix: install one (Debian: `apt install g++`), or set model.compile=false"
        )
