"""Loss functions by name: logits (B, K, H, W) and mask (B, H, W), 255 = ignored, to a scalar.

The scalar is float32, and 0 if every pixel is ignored. Logits and mask have the same height and
width; the mask is int64 in training. `@hrseg.losses.register("name")` adds a class or function that
returns such a module.
"""

from collections.abc import Callable

from torch import nn

from hrseg.losses.boundary import Boundary
from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.losses.dice import Dice
from hrseg.losses.focal import Focal
from hrseg.losses.lovasz import Lovasz
from hrseg.losses.ohem import OHEM
from hrseg.losses.rmi import RMI
from hrseg.losses.tversky import Tversky
from hrseg.utils.registry import Registry

LOSSES: Registry[Callable[..., nn.Module]] = Registry(
    "losses",
    {
        "cross_entropy": CrossEntropy,
        "ohem": OHEM,
        "focal": Focal,
        "dice": Dice,
        "tversky": Tversky,
        "lovasz": Lovasz,
        "boundary": Boundary,
        "rmi": RMI,
    },
)
register = LOSSES.register

__all__ = [
    "LOSSES",
    "OHEM",
    "RMI",
    "Boundary",
    "CrossEntropy",
    "Dice",
    "Focal",
    "Lovasz",
    "Tversky",
    "register",
]
