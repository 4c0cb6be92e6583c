"""Activation checkpointing: a layer keeps its inputs only, and is computed again for the backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from vertigym.core.errors import InputError


def checkpoint_layers(trunk: Any) -> list[Any]:
    """Let the trunk's layers keep no activations; the layers. transformers' own switch works in training mode
    only, where dropout is on.

    Raises:
        InputError: there are no such layers.
    """
    layers = [module for module in trunk.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers:
        raise InputError(
            f"gradient_checkpointing: {type(trunk).__name__} has no layers for it: set it to false"
        )
    for layer in layers:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False)
    return layers


@contextmanager
def checkpointed(trunk: Any) -> Iterator[None]:
    """The same for as long as the context lasts."""
    layers = checkpoint_layers(trunk)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
