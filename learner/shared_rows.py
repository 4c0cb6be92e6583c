"""The attention mask of rows that samples share, on top of the model's own.

The one idea: a model itself says which earlier positions a token sees (all, a window, a chunk). transformers
builds each of its masks through one registered function, and that asks a mask function by index. For a shared
row it is asked by the positions that each sample's tokens would have alone; then what belongs to another branch
or tree is taken away. A model that builds its masks in another way computes something else in shared rows: that
shows, and its rows then hold one sample each (`own_forward`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from vertigym.learner.batch import Batch

_shared: ContextVar[tuple[Tensor, Tensor] | None] = ContextVar("shared rows", default=None)
_maskless: ContextVar[bool] = ContextVar("rows without a mask", default=False)


@contextmanager
def shared_rows(batch: Batch) -> Iterator[Tensor | None]:
    """Masks made inside are those of the batch's rows. Gives the padding mask to pass to the model."""
    if batch.mask_B1SS is None or batch.positions_BS is None:
        yield None
        return
    token = _shared.set((batch.positions_BS, batch.mask_B1SS))
    try:
        yield torch.ones_like(batch.ids_BS)  # with none, transformers looks for packed samples itself
    finally:
        _shared.reset(token)


@contextmanager
def maskless_rows() -> Iterator[None]:
    """No masks are made inside but those of windows. transformers makes one for tensors without data, where it
    cannot see that each row is one causal sequence."""
    token = _maskless.set(True)
    try:
        yield
    finally:
        _maskless.reset(token)


def _mask(
    *, mask_function: Callable[..., Tensor], dtype: torch.dtype = torch.float32, **arguments: Any
) -> Tensor | None:
    """The mask `[B, 1, S, S]` that transformers asks for: for shared rows 0 where a token (third axis) sees
    another and -inf elsewhere. A mask of bits each layer would turn into this, and keep one of its own."""
    shared = _shared.get()
    if _maskless.get() and arguments.get("local_size") is None:
        return None
    if shared is None:
        return sdpa_mask(mask_function=mask_function, dtype=dtype, **arguments)
    positions_BS, mask_B1SS = shared
    batch_B111 = torch.arange(len(positions_BS), device=positions_BS.device)[:, None, None, None]
    own = mask_function(batch_B111, 0, positions_BS[:, None, :, None], positions_BS[:, None, None, :])
    device = mask_B1SS.device.type
    if torch.is_autocast_enabled(device):
        dtype = torch.get_autocast_dtype(device)
    return torch.zeros_like(mask_B1SS, dtype=dtype).masked_fill_(~(own & mask_B1SS), -torch.inf)


AttentionMaskInterface.register("sdpa", _mask)
