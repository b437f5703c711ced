"""How much memory training will take, before it begins: counted on a small image."""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hrseg.models import Segmenter

GIB = 2**30
# Fitted to what was measured on a CPU: what is there at the peak for each byte that the forward
# pass keeps (gradients on their way), maps of logits at full size around the loss, what libraries
# work with, and what of the activations is there where they are computed twice.
AMID_BACKWARD, AROUND_LOSS, WORKSPACE, RECOMPUTED = 1.25, 5, 80 * 2**20, 0.45
SMALL = 2, 3, 32, 64  # the image that is counted on
_STATES = {"sgd": 1, "adamw": 2}  # values that an optimiser keeps of each parameter


def training_bytes(
    model: Segmenter, images: int, crop_size: Sequence[int], precision: str, optimizer: str
) -> int:
    """Return about how many bytes of a device training takes at its peak.

    Parameters, their gradients, what the optimiser keeps, what the backward pass needs of the
    forward one, and the loss at full size: within a fifth of what was measured.

    Args:
        model: the network, on any device.
        images: the batch of a device and a forward pass.
        crop_size: (height, width).
        precision: of the Trainer, "32-true", "bf16-mixed", ...
        optimizer: its name in the config.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    parameters = sum(p.numel() * p.element_size() for p in model.parameters())
    states = sum(p.numel() * p.element_size() for p in trained) * (1 + _STATES.get(optimizer, 2))
    kept, logits = _kept_for_backward(model)
    if precision.startswith(("16", "bf16")):
        kept /= 2
        parameters += parameters // 2  # a copy in this precision
    if model.backbone.recompute:
        kept *= RECOMPUTED
    pixel = AMID_BACKWARD * kept + AROUND_LOSS * 4 * logits
    return int(parameters + states + WORKSPACE + pixel * images * crop_size[0] * crop_size[1])


def free_bytes(device: torch.device) -> int | None:
    """Return how much memory a device has left; None where nobody tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        try:
            lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
        except OSError:
            return None
        told = dict(line.split(":", 1) for line in lines if ":" in line)
        return int(told["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in told else None
    return None


def forecast(needed: int, free: int | None) -> str:
    """Return what to say before training."""
    about = f"about {needed / GIB:.1f} GiB needed"
    if free is None:
        return about
    said = f"{about}, {free / GIB:.1f} GiB free"
    if needed <= free:
        return said
    return (
        f"{said}: too little, if the forecast is right. Less is taken by a smaller data.batch_size "
        "or data.crop_size, by trainer.precision=bf16-mixed, or by "
        "model.activation_checkpointing=true"
    )


def _kept_for_backward(model: Segmenter) -> tuple[float, int]:
    """Return the bytes that a forward pass in float32 keeps of a pixel, and the logits of one.

    Counted on a small image, since each grows with the number of pixels.
    """
    copy = deepcopy(model).train()
    copy.backbone.recompute = False
    own = {t.untyped_storage()._cdata for t in (*copy.parameters(), *copy.buffers())}
    storages: dict[int, int] = {}
    alive: list[Any] = []  # a storage that went could lend its number to the next

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            storages[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    image = torch.zeros(SMALL, device=next(copy.parameters()).device)
    with (
        torch.random.fork_rng(devices=[]),  # dropout draws
        torch.autograd.graph.saved_tensors_hooks(keep, lambda kept: kept),
    ):
        outputs = copy.outputs(image)
    logits = sum(output.shape[1] for output in outputs.values())
    return sum(storages.values()) / image[:, 0].numel(), logits
