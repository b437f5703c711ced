"""Checkpoints: reading, loading, conversion, metadata, integrity, and run folders.

The public names are imported on first use, so that finding a run folder does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hrseg.checkpoints.loading import load_weights as load_weights
    from hrseg.checkpoints.loading import to_official as to_official

__all__ = ["load_weights", "to_official"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module("hrseg.checkpoints.loading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
