"""Weights that may be sharded over several ranks (FSDP2): full tensors of shards, and back.

A sharded parameter is a DTensor. Gathering it is a collective: every rank must call it, in one order.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The full tensor of a sharded one; any other as it is."""
    gathered = getattr(tensor, "full_tensor", None)
    return tensor if gathered is None else gathered()


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """This rank's shard of a full `value`, with the layout of `target`; `value` itself where that is not
    sharded. Not a collective."""
    if not hasattr(target, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    there: Any = target
    value = value.to(there.device, there.dtype)
    return distribute_tensor(value, there.device_mesh, there.placements, src_data_rank=None)


def load_full_state(model: torch.nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """`model.load_state_dict` of full tensors, whether the model is sharded or not."""
    now = model.state_dict()
    model.load_state_dict({n: shard_like(v, now[n]) if n in now else v for n, v in state.items()}, strict)
