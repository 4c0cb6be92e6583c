"""One decoding step at a time, over a batch: three ways, from the fastest to the one that is always right.

A stepper holds a batch. `prefill` reads left-padded prompts, `step` appends one token a row, `keep` drops or
repeats rows. All give logits `[B, V]` in float32 for the next token.

    DecoderStepper      our own decoder, for the Llama family
    CacheStepper        the model's forward pass and its cache
    ForwardStepper      the model's forward pass over all tokens again, rows of one length at a time
"""

import inspect
from collections import defaultdict
from typing import Any, Protocol

import torch
from torch import Tensor

from vertigym.policies.decoder import Cache, Decoder

_MASKED = -1e9  # finite, so that a fully masked (padding) row gives no NaN
_CACHES = ("past_key_values", "cache_params")  # what models call their cache


class Stepper(Protocol):
    """A batch that is being decoded."""

    def prefill(self, ids_BS: Tensor, pads_B: Tensor, room: int) -> Tensor:
        """Read prompts with `pads_B` pads on the left; make room for `room` more tokens."""
        ...

    def keep(self, rows_R: Tensor) -> None:
        """Keep these rows, in this order; a row may repeat."""
        ...

    def step(self, tokens_B: Tensor) -> Tensor:
        """Append one token a row."""
        ...


class DecoderStepper:
    """Steps with `Decoder`."""

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder

    def prefill(self, ids_BS: Tensor, pads_B: Tensor, room: int) -> Tensor:
        """Read the prompts."""
        B, S = ids_BS.shape
        columns = torch.arange(S + room, device=ids_BS.device)
        real_BT = columns >= pads_B[:, None]
        self._bias_BT = torch.where(real_BT, 0.0, _MASKED).to(self._decoder.dtype)
        causal_SS = columns[:S, None] >= columns[:S]
        bias_BSS = torch.where(causal_SS & real_BT[:, None, :S], 0.0, _MASKED).to(self._decoder.dtype)
        self._pads_B = pads_B
        self._cache: Cache = self._decoder.new_cache(B, S + room)
        positions_BS = (columns[:S] - pads_B[:, None]).clamp(min=0)
        return self._append(ids_BS, positions_BS, bias_BSS)

    def keep(self, rows_R: Tensor) -> None:
        """Keep these rows."""
        self._cache = self._cache.select(rows_R)
        self._bias_BT, self._pads_B = self._bias_BT[rows_R], self._pads_B[rows_R]

    def step(self, tokens_B: Tensor) -> Tensor:
        """Append one token a row."""
        length = self._cache.length
        bias_B1T = self._bias_BT[:, None, : length + 1]
        positions_B1 = (length - self._pads_B)[:, None]
        return self._append(tokens_B[:, None], positions_B1, bias_B1T)

    def _append(self, ids_BS: Tensor, positions_BS: Tensor, bias_BST: Tensor) -> Tensor:
        hidden_BH = self._decoder.forward(ids_BS, positions_BS, bias_BST, self._cache)
        self._cache.length += ids_BS.shape[1]
        return self._decoder.logits(hidden_BH)


class CacheStepper:
    """Steps with the model's own forward pass and cache."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._accepts = inspect.signature(model.forward).parameters
        self._name = next((name for name in _CACHES if name in self._accepts), _CACHES[0])

    def prefill(self, ids_BS: Tensor, pads_B: Tensor, room: int) -> Tensor:
        """Read the prompts."""
        columns = torch.arange(ids_BS.shape[1], device=ids_BS.device)
        self._mask_BT = (columns >= pads_B[:, None]).long()
        self._pads_B = pads_B
        self._cache: Any = None
        return self._forward(ids_BS, (columns - pads_B[:, None]).clamp(min=0))

    def keep(self, rows_R: Tensor) -> None:
        """Keep these rows."""
        self._cache.reorder_cache(rows_R)
        self._mask_BT, self._pads_B = self._mask_BT[rows_R], self._pads_B[rows_R]

    def step(self, tokens_B: Tensor) -> Tensor:
        """Append one token a row."""
        positions_B1 = (self._mask_BT.shape[1] - self._pads_B)[:, None]
        self._mask_BT = torch.cat([self._mask_BT, torch.ones_like(tokens_B[:, None])], 1)
        return self._forward(tokens_B[:, None], positions_B1)

    def _forward(self, ids_BS: Tensor, positions_BS: Tensor) -> Tensor:
        given = {
            "attention_mask": self._mask_BT,
            "position_ids": positions_BS,
            "logits_to_keep": 1,
            self._name: self._cache,
        }
        accepted = {name: value for name, value in given.items() if name in self._accepts}
        out = self._model(input_ids=ids_BS, use_cache=True, **accepted)
        self._cache = out[self._name]
        logits: Tensor = out.logits[:, -1].float()
        return logits


class ForwardStepper:
    """Steps with the model's own forward pass, without a cache and without padding."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def prefill(self, ids_BS: Tensor, pads_B: Tensor, room: int) -> Tensor:
        """Read the prompts."""
        self._rows = [ids[pads:] for ids, pads in zip(ids_BS, pads_B.tolist(), strict=True)]
        return self._forward()

    def keep(self, rows_R: Tensor) -> None:
        """Keep these rows."""
        self._rows = [self._rows[row] for row in rows_R.tolist()]

    def step(self, tokens_B: Tensor) -> Tensor:
        """Append one token a row."""
        self._rows = [torch.cat([row, token]) for row, token in zip(self._rows, tokens_B[:, None], strict=True)]
        return self._forward()

    def _forward(self) -> Tensor:
        by_length = defaultdict(list)
        for place, row in enumerate(self._rows):
            by_length[len(row)].append(place)
        found: dict[int, Tensor] = {}
        for places in by_length.values():
            ids_BS = torch.stack([self._rows[place] for place in places])
            found |= zip(
                places, self._model(input_ids=ids_BS, use_cache=False).logits[:, -1].float(), strict=True
            )
        return torch.stack([found[place] for place in range(len(self._rows))])
