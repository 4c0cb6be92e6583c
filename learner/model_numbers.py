"""What a model is in numbers: parameters, operations, and the bytes that a pass keeps for its backward pass.

The one idea: all of them are read off the model's own code, run on tensors without data (torch's fake tensors).
So an architecture, its adapters, the passes' dtype, checkpointing and shared rows count as they are; there is
no formula for any of them. What a pass takes is a polynomial of the row's length S, of second degree where it
attends to everything or keeps a mask, and three lengths settle it.

Shapes: B rows, S row length.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from vertigym.core.errors import InputError
from vertigym.kernels.plan import default_budget, make_plan
from vertigym.learner.batch import Batch
from vertigym.learner.checkpointing import checkpointed
from vertigym.learner.logit_head import MODEL_ERRORS, trunk_of
from vertigym.learner.samples import TokenColumns
from vertigym.learner.shared_rows import maskless_rows, shared_rows
from vertigym.policies.decoder import supports
from vertigym.policies.lora import LoRAConfig, add_lora

_FUSED = ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")
_STEP = 32  # tokens; the context and the window of every model hold three of them

# torch counts the operations of every attention kernel but the CPU's
_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda q, k, v, *rest, **more: sdpa_flop_count(q, (*q[:1], q[1], *k[2:]), (*q[:1], q[1], *v[2:]))
    )
}


@dataclass(frozen=True, slots=True)
class RowCost:
    """`constant + B (token S + square S²)` of B rows of S tokens."""

    constant: float
    token: float
    square: float

    def of(self, rows: int, length: int) -> float:
        """Of so many rows of one length."""
        return self.constant + rows * length * (self.token + self.square * length)


class ModelNumbers:
    """Counts of the model of a transformers config, its weights in float32.

    Attributes:
        parameters: all, tied ones once; `trained` of them have gradients.
        trunk, head: those of each; a tied embedding is in both.
        block: those of the largest layer, which several ranks hold whole while it is used.
        adapted: those that an export or an engine without adapters needs merged.
        fused: those that our own decoder keeps a copy of.
        layers: how many.
        hidden, vocabulary: the two sizes of the head.
        cache: numbers in the KV cache, a token.
        operations: of the trunk's forward pass; attention counts as if nothing were masked.

    Raises:
        InputError: the model cannot be run on tensors without data.
    """

    def __init__(self, config: Any, lora: LoRAConfig | None = None) -> None:
        from transformers import AutoModelForCausalLM

        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)
            if lora:
                add_lora(model, lora, seed=0)
        self._mode = FakeTensorMode()
        with self._fake(config):
            _without_data(model)
            self._trunk = trunk_of(model.eval())
            kinds = set(getattr(model, "_no_split_modules", None) or ())
            blocks = [module for module in model.modules() if type(module).__name__ in kinds]
            weights = [m.base_layer.weight for m in model.modules() if hasattr(m, "get_delta_weight")]
            fused = [m for name, m in model.named_modules() if name.endswith(_FUSED)] if supports(model) else []
            self.parameters = _size(model.parameters())
            self.trunk = _size(self._trunk.parameters())
            self.trained = _size(p for p in model.parameters() if p.requires_grad)
            self.block = max((_size(block.parameters()) for block in blocks), default=0)
            self.adapted = _size(weights)
            self.fused = _size(p for module in fused for p in module.parameters())
            self.layers = len(blocks) or int(config.get_text_config().num_hidden_layers)
            self.vocabulary, self.hidden = (int(n) for n in model.get_output_embeddings().weight.shape)
            self.head = self.vocabulary * self.hidden
            self.operations = _cost(lambda length: _operations(self._trunk, length))
            self.cache = _cached(self._trunk)
        self._config, self._known = config, {}  # type: tuple[Any, dict[tuple[torch.dtype, bool, bool], RowCost]]

    def kept(self, dtype: torch.dtype, *, checkpointing: bool = False, share: bool = False) -> RowCost:
        """Bytes that a pass in `dtype` keeps. `share`: samples share rows, which takes a mask."""
        key = dtype, checkpointing, share
        if key not in self._known:
            with self._fake(self._config), checkpointed(self._trunk) if checkpointing else nullcontext():
                cost = _cost(lambda length: _kept(self._trunk, length, dtype, share=share))
            if share:  # the mask, and that of layers that are computed again, which is theirs as an argument
                cost = replace(cost, square=max(cost.square, dtype.itemsize) + 1)
            self._known[key] = cost
        return self._known[key]

    def head_cost(self, trained: int, *, cuda: bool) -> tuple[float, int]:
        """Of the log-probs of so many tokens: bytes of logits kept for the backward pass, and how often hidden
        states and head are multiplied, both passes together."""
        device = torch.device("cuda" if cuda else "cpu")
        plan = make_plan(
            trained,
            self.vocabulary,
            backward=True,
            eager=True,
            device=device,
            budget=default_budget(4 * self.head, device),
        )
        kept = plan.kept * plan.columns * trained or plan.eager_rows * self.vocabulary
        again = not plan.eager_rows and plan.kept < plan.tiles(self.vocabulary)
        return 4.0 * kept, 3 + again

    @contextmanager
    def _fake(self, config: Any) -> Iterator[None]:
        try:
            with self._mode:
                yield
        except MODEL_ERRORS as error:
            reason = (str(error).splitlines() or [""])[0]
            raise InputError(
                f"{type(config).__name__}: its memory cannot be computed, only measured: its code does not run "
                f"on tensors without data ({type(error).__name__}: {reason})"
            ) from error


def _without_data(model: nn.Module) -> None:
    """Tensors of the fake CPU in place of the meta device's, on which nothing is cast by itself."""
    found: dict[int, Tensor] = {}  # by what it replaces: tied weights stay one

    def other(tensor: Tensor) -> Tensor:
        empty = torch.empty(tensor.shape, dtype=tensor.dtype)
        is_weight = isinstance(tensor, nn.Parameter)
        return nn.Parameter(empty, tensor.requires_grad) if is_weight else empty

    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in kind.items():
                if tensor is not None:
                    kind[name] = found.setdefault(id(tensor), other(tensor))  # type: ignore[assignment]


def _size(parameters: Iterable[Tensor]) -> int:
    return sum(parameter.numel() for parameter in parameters)


def _cost(measure: Callable[[int], float]) -> RowCost:
    """The polynomial through what is measured of one row of three lengths."""
    one, two, three = (measure(n * _STEP) for n in (1, 2, 3))
    square = (three - 2 * two + one) / (2 * _STEP**2)
    token = (two - one) / _STEP - 3 * _STEP * square
    return RowCost(one - _STEP * (token + square * _STEP), token, square)


def _operations(trunk: nn.Module, length: int) -> float:
    with FlopCounterMode(display=False, custom_mapping=_ATTENTION) as counter, torch.no_grad(), maskless_rows():
        trunk(input_ids=torch.zeros(1, length, dtype=torch.long), use_cache=False)
    return float(counter.get_total_flops())


def _cached(trunk: nn.Module) -> float:
    """Numbers a token that decoding keeps; a recurrent layer's do not grow with it, and are left out."""
    with torch.no_grad(), maskless_rows():
        cache = trunk(input_ids=torch.zeros(1, _STEP, dtype=torch.long), use_cache=True).past_key_values
    states = (
        getattr(layer, name, None) for layer in getattr(cache, "layers", ()) for name in ("keys", "values")
    )
    return _size(state for state in states if isinstance(state, Tensor)) / _STEP


def _kept(trunk: nn.Module, length: int, dtype: torch.dtype, *, share: bool) -> float:
    """Bytes of the tensors that a row's pass keeps, parameters left out."""
    kept: dict[int, tuple[int, Tensor]] = {}  # by storage; the tensor keeps its storage from being used again

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage.nbytes(), tensor
        return tensor

    ids_BS, empty = torch.zeros(1, length, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    batch = Batch(ids_BS, empty, empty, empty, TokenColumns())
    if share:
        batch.positions_BS, batch.mask_B1SS = ids_BS, torch.ones(1, 1, length, length, dtype=torch.bool)
    autocast = torch.autocast("cpu", dtype, enabled=dtype is not torch.float32)
    plain = maskless_rows() if not share else shared_rows(batch)
    with autocast, plain as padding_BS, saved_tensors_hooks(keep, lambda tensor: tensor):
        trunk(input_ids=ids_BS, position_ids=batch.positions_BS, attention_mask=padding_BS, use_cache=False)
    for parameter in trunk.parameters():
        kept.pop(parameter.untyped_storage()._cdata, None)
    return float(sum(size for size, _ in kept.values()))
