"""Activation checkpointing of the stages of a backbone."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from hrseg.models.blocks import BATCH_NORMS


def recomputed(module: nn.Module, x: Any) -> Any:
    """Return `module(x)` without keeping its activations; gradients and statistics are the same."""
    contexts = lambda: (nullcontext(), _statistics_kept(module))  # noqa: E731
    return checkpoint(module, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let batch norms update copies of their statistics: the forward pass updated them already."""
    norms = (layer for layer in module.modules() if isinstance(layer, BATCH_NORMS))
    buffers = [(norm, *named) for norm in norms for named in norm.named_buffers()]
    for norm, name, buffer in buffers:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in buffers:
            setattr(norm, name, buffer)
