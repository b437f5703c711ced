"""How much memory training will take, before it begins: counted on tensors without content."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hrseg.models import Segmenter, create_model

GIB = 2**30
# Measured, on a CPU: what is there at the peak for each byte that the forward pass keeps (gradients
# on their way), maps of logits at full size around the loss, and what of the activations is there
# where they are computed twice.
AMID_BACKWARD, AROUND_LOSS, RECOMPUTED = 1.15, 9, 0.45
_STATES = {"sgd": 1, "adamw": 2}  # values that an optimiser keeps of each parameter


def training_bytes(
    model: Segmenter, images: int, crop_size: Sequence[int], precision: str, optimizer: str
) -> int:
    """Return about how many bytes of a device training takes at its peak.

    Parameters, their gradients, what the optimiser keeps, what the backward pass needs of the
    forward one (counted, without computing it), and the loss at full size. What a library takes
    to work with comes on top.

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
    kept, logits = _kept_for_backward(model, images, crop_size)
    if precision.startswith(("16", "bf16")):
        kept //= 2
    if model.backbone.recompute:
        kept = int(RECOMPUTED * kept)
    loss = AROUND_LOSS * 4 * logits * images * crop_size[0] * crop_size[1]
    return int(parameters + states + AMID_BACKWARD * kept + loss)


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
    about = f"about {needed / GIB:.1f} GiB of memory"
    if free is None:
        return about
    said = f"{about}, {free / GIB:.1f} GiB are free"
    if needed <= free:
        return said
    return (
        f"{said}: too little, if the forecast is right. Less is taken by a smaller data.batch_size "
        "or data.crop_size, by trainer.precision=bf16-mixed, or by "
        "model.activation_checkpointing=true"
    )


def _kept_for_backward(model: Segmenter, images: int, crop_size: Sequence[int]) -> tuple[int, int]:
    """Return the bytes that a forward pass in float32 keeps, and the channels of all logits."""
    with torch.device("meta"):
        copy = create_model(**model.architecture).train()
        image = torch.empty(images, 3, *crop_size)
    frozen = not next(model.backbone.parameters()).requires_grad
    copy.backbone.requires_grad_(not frozen)
    own = {id(p) for p in copy.parameters()}
    storages: dict[int, int] = {}
    alive: list[Any] = []  # a storage that went could lend its number to the next

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in own and not isinstance(tensor, nn.Parameter):
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
            alive.append(storage)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = copy.outputs(image)
    return sum(storages.values()), sum(output.shape[1] for output in outputs.values())
