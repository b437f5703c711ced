"""Losses by name, each from logits (B, K, H, W) and a mask (B, H, W) with 255 = ignore.

A loss is a float32 scalar, 0 if no pixel counts. `@hrseg.losses.register("name")` adds a class or
function that returns such a module. Logits and mask, int64 in training, have the same size.
"""

from collections.abc import Callable

from torch import nn

from hrseg.losses.boundary import Boundary
from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.losses.dice import Dice
from hrseg.losses.lovasz import Lovasz
from hrseg.losses.ohem import OHEM
from hrseg.losses.rmi import RMI
from hrseg.utils.registry import Registry

LOSSES: Registry[Callable[..., nn.Module]] = Registry(
    "losses",
    {
        "cross_entropy": CrossEntropy,
        "ohem": OHEM,
        "dice": Dice,
        "lovasz": Lovasz,
        "boundary": Boundary,
        "rmi": RMI,
    },
)
register = LOSSES.register

__all__ = ["LOSSES", "OHEM", "RMI", "Boundary", "CrossEntropy", "Dice", "Lovasz", "register"]
