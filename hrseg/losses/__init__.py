"""Losses by name, each from logits (B, K, H, W) and a mask (B, H, W) with 255 = ignore."""

from torch import nn

from hrseg.losses.boundary import Boundary
from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.losses.dice import Dice
from hrseg.losses.lovasz import Lovasz
from hrseg.losses.ohem import OHEM
from hrseg.losses.rmi import RMI

LOSSES: dict[str, type[nn.Module]] = {
    "cross_entropy": CrossEntropy,
    "ohem": OHEM,
    "dice": Dice,
    "lovasz": Lovasz,
    "boundary": Boundary,
    "rmi": RMI,
}

__all__ = ["LOSSES", "OHEM", "RMI", "Boundary", "CrossEntropy", "Dice", "Lovasz"]
