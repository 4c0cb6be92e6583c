"""Weights that may lie in shards over several ranks (FSDP2): the whole of a shard, and the shard of a whole.

A sharded parameter is a DTensor. Asking for the whole of it is a collective: every rank asks, in one order.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor; any other is whole as it is."""
    gathered = getattr(tensor, "full_tensor", None)
    return tensor if gathered is None else gathered()


def shard_like(value: Tensor, target: Tensor) -> Tensor:
    """This rank's shard of a whole `value`, laid out as `target` is; `value` itself where that is not sharded.
    Needs no other rank."""
    if not hasattr(target, "full_tensor"):
        return value
    from torch.distributed.tensor import distribute_tensor

    there: Any = target
    value = value.to(there.device, there.dtype)
    return distribute_tensor(value, there.device_mesh, there.placements, src_data_rank=None)


def load_full_state(model: torch.nn.Module, state: Mapping[str, Tensor], *, strict: bool = True) -> None:
    """`model.load_state_dict` of whole tensors, whether the model is sharded or not."""
    now = model.state_dict()
    model.load_state_dict({n: shard_like(v, now[n]) if n in now else v for n, v in state.items()}, strict)
