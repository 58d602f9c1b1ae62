"""Trading time for memory: what a layer computes inside is not kept for the backward pass, but computed again in it."""

from __future__ import annotations

from functools import partial

from torch.utils.checkpoint import checkpoint

from inference.model import GPT


def recompute(model: GPT) -> None:
    """Has each layer keep only what goes into it. What is drawn inside, as for dropout, is drawn alike the second time."""
    for layer in model.layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
