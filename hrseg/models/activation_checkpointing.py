"""Activation checkpointing of network parts."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from hrseg.models.blocks import BATCH_NORMS


def recomputed(module: nn.Module, x: Any) -> Any:
    """Return `module(x)`, and compute its activations again in the backward pass.

    Gradients and batch norm statistics are the same as without activation checkpointing.
    """
    contexts = lambda: (nullcontext(), _preserved_statistics(module))  # noqa: E731
    return checkpoint(module, x, use_reentrant=False, context_fn=contexts)


@contextmanager
def _preserved_statistics(module: nn.Module) -> Iterator[None]:
    """Preserve the batch norm statistics, which the forward pass updated already."""
    norms = (layer for layer in module.modules() if isinstance(layer, BATCH_NORMS))
    buffers = [(norm, *named) for norm in norms for named in norm.named_buffers()]
    for norm, name, buffer in buffers:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in buffers:
            setattr(norm, name, buffer)
