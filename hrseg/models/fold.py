"""What runs for inference: a copy whose batch norms are part of their convolutions."""

import copy
from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hrseg.models.compiled import compiled_for_inference
from hrseg.models.segmenter import Segmenter

PRECISIONS = {"32": torch.float32, "bf16": torch.bfloat16, "16": torch.float16}

Model = TypeVar("Model", bound=nn.Module)


def fold(model: Model) -> Model:
    """Return a copy in eval mode without batch norms; logits differ by rounding alone.

    A convolution and the batch norm that stands next after it belong together.
    """
    folded = copy.deepcopy(model).eval()
    for module in folded.modules():
        for (name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
            if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, fuse_conv_bn_eval(conv, norm))
                setattr(module, norm_name, nn.Identity())
    return folded


def inference_network(
    model: Segmenter, precision: str = "32", compile: bool = False
) -> Callable[[Tensor], Tensor]:
    """Return a faster copy: normalised images (B, 3, H, W) -> logits at head resolution.

    Args:
        model: whose weights are copied.
        precision: a key of PRECISIONS.
        compile: compile the copy at its first call.
    """
    folded = fold(model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    outputs = compiled_for_inference(folded) if compile else folded.outputs
    kind = next(model.parameters()).device.type

    def logits(image: Tensor) -> Tensor:
        with torch.autocast(kind, PRECISIONS[precision], enabled=precision != "32"):
            return outputs(image)["out"]

    return logits
