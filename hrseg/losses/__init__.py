"""Losses by short name. Each takes logits (B, K, H, W) and a mask (B, H, W), 255 = ignore."""

from torch import nn

from hrseg.losses.cross_entropy import CrossEntropy
from hrseg.losses.ohem import OHEM

LOSSES: dict[str, type[nn.Module]] = {"cross_entropy": CrossEntropy, "ohem": OHEM}

__all__ = ["LOSSES", "OHEM", "CrossEntropy"]
