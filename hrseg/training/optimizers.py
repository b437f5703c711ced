"""Optimizers and learning rate schedules by name: `hrseg.optimizers` and `hrseg.schedules`.

`@hrseg.optimizers.register("name")` adds a function (model, ...) -> Optimizer, and
`@hrseg.schedules.register("name")` one (optimizer, steps, ...) -> scheduler, stepped per
optimiser step.
"""

from collections.abc import Callable
from typing import Any

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hrseg.errors import ConfigError
from hrseg.utils.registry import Registry


def sgd(
    model: nn.Module,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    head_lr_multiplier: float = 1.0,
    momentum: float = 0.9,
) -> Optimizer:
    """Return SGD; weight decay acts on every parameter, as in the authors' recipe."""
    groups = _groups(model, lr, head_lr_multiplier)
    return SGD(groups, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=_fused(model))


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    head_lr_multiplier: float = 1.0,
) -> Optimizer:
    """Return AdamW."""
    groups = _groups(model, lr, head_lr_multiplier)
    return AdamW(groups, lr=lr, weight_decay=weight_decay, fused=_fused(model))


def poly(optimizer: Optimizer, steps: float, warmup_steps: int = 0, power: float = 0.9) -> LambdaLR:
    """Return lr x (1 - step / steps) ^ power per optimiser step, after a linear warm-up.

    The authors' loop sets the rate after the step, so that its first two steps share one rate
    (HRNet-Semantic-Segmentation, lib/core/function.py); here step t has the rate of step t.
    """
    if not 0 < steps < float("inf"):
        raise ConfigError(
            "the poly schedule needs an end of training: set trainer.max_epochs or max_steps."
        )

    def factor(step: int) -> float:
        rise = min(1.0, (step + 1) / (warmup_steps + 1))
        return float(rise * max(0.0, 1 - step / steps) ** power)

    return LambdaLR(optimizer, factor)


def _fused(model: nn.Module) -> bool | None:
    """Return True on a CPU: a half to a third of the time. On GPUs PyTorch's choice is as fast."""
    return True if all(p.device.type == "cpu" for p in model.parameters()) else None


def _groups(model: nn.Module, lr: float, head_lr_multiplier: float) -> list[dict[str, Any]]:
    """Return backbone and head as two groups, without frozen parameters."""
    trained = [item for item in model.named_parameters() if item[1].requires_grad]
    head = [parameter for name, parameter in trained if name.startswith("head.")]
    backbone = [parameter for name, parameter in trained if not name.startswith("head.")]
    groups = [(lr, backbone), (lr * head_lr_multiplier, head)]
    if head_lr_multiplier == 1:
        groups = [(lr, backbone + head)]
    return [{"params": parameters, "lr": rate} for rate, parameters in groups if parameters]


OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry(
    "optimizer", {"sgd": sgd, "adamw": adamw}, given=["model"]
)
SCHEDULES: Registry[Callable[..., LRScheduler]] = Registry(
    "schedule", {"poly": poly}, given=["optimizer", "steps"]
)
