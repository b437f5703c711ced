"""Optimizers and learning rate schedules by name: `hrseg.optimizers` and `hrseg.schedules`.

`@hrseg.optimizers.register("name")` adds a function (model, ...) -> Optimizer.
`@hrseg.schedules.register("name")` adds a function (optimizer, steps, ...) -> scheduler, which is
stepped once per optimizer step.
"""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from hrseg.errors import ConfigError
from hrseg.utils.registry import Registry, build, find

T = TypeVar("T")


def sgd(
    model: nn.Module,
    lr: float = 0.01,
    weight_decay: float = 5e-4,
    head_lr_multiplier: float = 1.0,
    momentum: float = 0.9,
) -> Optimizer:
    """Return SGD. Weight decay acts on every parameter, as in the authors' recipe."""
    groups = _groups(model, lr, head_lr_multiplier)
    return SGD(groups, lr=lr, weight_decay=weight_decay, momentum=momentum, fused=_fused(model))


def adamw(
    model: nn.Module,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    head_lr_multiplier: float = 1.0,
) -> Optimizer:
    """Return AdamW. Weight decay acts on every parameter."""
    groups = _groups(model, lr, head_lr_multiplier)
    return AdamW(groups, lr=lr, weight_decay=weight_decay, fused=_fused(model))


def poly(optimizer: Optimizer, steps: float, warmup_steps: int = 0, power: float = 0.9) -> LambdaLR:
    """Return the schedule lr x (1 - step / steps) ^ power with a linear warm-up.

    Step t uses the rate of step t. The authors' loop (HRNet-Semantic-Segmentation,
    lib/core/function.py) sets the rate after the step, so its first two steps have the same rate.

    Args:
        optimizer: its learning rates are the base rates.
        steps: optimizer steps of the whole training.
        warmup_steps: optimizer steps with a rising rate.
        power: exponent of the decay.

    Raises:
        ConfigError: the number of steps is infinite.
    """
    _check_finite(steps, "poly")
    return _with_warmup(optimizer, warmup_steps, lambda step: max(0.0, 1 - step / steps) ** power)


def cosine(optimizer: Optimizer, steps: float, warmup_steps: int = 0) -> LambdaLR:
    """Return the schedule lr x (1 + cos(pi x step / steps)) / 2 with a linear warm-up.

    One half period without restarts (SGDR, arXiv 1608.03983). Arguments and errors as for `poly`.
    """
    _check_finite(steps, "cosine")
    return _with_warmup(
        optimizer, warmup_steps, lambda step: (1 + math.cos(math.pi * min(1.0, step / steps))) / 2
    )


def constant(optimizer: Optimizer, warmup_steps: int = 0) -> LambdaLR:
    """Return a constant learning rate after a linear warm-up, also for endless training."""
    return _with_warmup(optimizer, warmup_steps, lambda step: 1.0)


def _check_finite(steps: float, name: str) -> None:
    if not 0 < steps < float("inf"):
        raise ConfigError(
            f"The {name} schedule needs a finite training.\n"
            "Expected: trainer.max_epochs or trainer.max_steps above 0."
        )


def _with_warmup(
    optimizer: Optimizer, warmup_steps: int, decay: Callable[[int], float]
) -> LambdaLR:
    """Return the schedule lr x decay(step), whose first steps rise linearly."""

    def factor(step: int) -> float:
        return float(min(1.0, (step + 1) / (warmup_steps + 1)) * decay(step))

    return LambdaLR(optimizer, factor)


def _fused(model: nn.Module) -> bool | None:
    """Return True on a CPU, where fused steps need a third to a half of the time; else None."""
    return True if all(p.device.type == "cpu" for p in model.parameters()) else None


def _groups(model: nn.Module, lr: float, head_lr_multiplier: float) -> list[dict[str, Any]]:
    """Return the trained parameters of backbone and head as parameter groups."""
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
    "schedule",
    {"poly": poly, "cosine": cosine, "constant": constant},
    given=["optimizer", "steps"],
)
OptimizerFunction = Callable[..., Optimizer]
ScheduleFunction = Callable[..., LRScheduler]
Spec = str | Mapping[str, Any]


def check_part(table: Registry[Callable[..., Any]], part: Any, kind: str) -> None:
    """Raise ConfigError for an unknown name, and for an object of an invalid type."""
    if isinstance(part, str | Mapping):
        find(table, part if isinstance(part, str) else str(part.get("name")), kind)
    elif not callable(part) and not isinstance(part, Optimizer):
        raise ConfigError(
            f"The {kind} is a {type(part).__name__}.\n"
            f"Expected: a name ({', '.join(table)}), or a function that returns one."
        )


def make_optimizer(part: Spec | Optimizer | OptimizerFunction, model: nn.Module) -> Optimizer:
    """Return the optimizer for a name, a function of the trained parameters, or an optimizer."""
    if isinstance(part, Optimizer):
        return part
    if isinstance(part, str | Mapping):
        return build(OPTIMIZERS, part, "optimizer", model=model)
    return _call(part, Optimizer, [p for p in model.parameters() if p.requires_grad])


def make_schedule(part: Spec | ScheduleFunction, optimizer: Optimizer, steps: float) -> LRScheduler:
    """Return the schedule for a name, or a function (optimizer) or (optimizer, steps)."""
    if isinstance(part, str | Mapping):
        return build(SCHEDULES, part, "schedule", optimizer=optimizer, steps=steps)
    needs_steps = "steps" in inspect.signature(part).parameters
    return _call(part, LRScheduler, optimizer, **({"steps": steps} if needs_steps else {}))


def _call(function: Callable[..., T], kind: type[T], *arguments: Any, **named: Any) -> T:
    result = function(*arguments, **named)
    if not isinstance(result, kind):
        raise ConfigError(
            f"{getattr(function, '__name__', function)} returned a {type(result).__name__}.\n"
            f"Expected: a torch {kind.__name__}."
        )
    return result
