"""The sweep under autograd.

The backward pass is exact for any upstream gradients. What the forward pass prepares (kept logits, or eager
gradients) only makes it cheaper, is used once, and is checked before use: a second backward pass, or
upstream gradients other than those predicted, recompute.

Axes: N rows (all scored), H hidden, V vocabulary, R LoRA rank.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from vertigym.kernels.grads import InputGrads, Needs, VocabularyGrads
from vertigym.kernels.head import Head, Lora
from vertigym.kernels.plan import TilePlan, cut, default_budget, make_plan
from vertigym.kernels.row_stats import RowGrads, RowInputs, RowSums, Scratch
from vertigym.kernels.shard import Shard, merge, total, usual_columns
from vertigym.kernels.sweep import Sweep, TilePasses

# (log-prob [N], entropy [N] or None, token indices [N]) -> upstream gradients of both (the second may be None).
Upstream = Callable[[Tensor, Tensor | None, Tensor], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True, slots=True)
class LogprobCall:
    """What one call fixes besides the differentiable inputs."""

    rows: RowInputs
    token_N: Tensor | None  # which tokens the rows are; None: all, in order
    lora_scale: float
    entropy: bool
    entropy_grad: bool
    upstream: Upstream | None
    backward: bool  # autograd cannot tell the forward pass that it is switched off
    skip_dead_rows: bool
    budget: int | None
    passes: TilePasses
    fused: bool
    dtype: torch.dtype
    shard: Shard | None

    def sweep(self, hidden_NH: Tensor, head: Head, plan: TilePlan) -> Sweep:
        """A sweep over these inputs."""
        x_NH = hidden_NH.to(product_dtype(hidden_NH, head.weight_VH, self.dtype))
        first = 0 if self.shard is None else self.shard.first
        scratch = Scratch(x_NH.device)
        return Sweep(
            x_NH, head.adapter_input(x_NH), head, self.rows, plan, self.passes, self.dtype, first, scratch
        )

    def plan(self, hidden_NH: Tensor, head: Head, needs: Needs) -> TilePlan:
        """Tiles and mode."""
        weight_VH = head.weight_VH
        vocab = usual_columns(weight_VH, self.shard)
        weight_bytes = vocab * weight_VH.shape[1] * weight_VH.itemsize
        return make_plan(
            hidden_NH.shape[0],
            vocab,
            backward=self.backward and needs.any,
            eager=self.upstream is not None or (needs.only_hidden and not (self.entropy and self.entropy_grad)),
            device=hidden_NH.device,
            budget=default_budget(weight_bytes, weight_VH.device) if self.budget is None else self.budget,
            itemsize=self.dtype.itemsize,
        )


@dataclass(frozen=True, slots=True)
class EagerGrads:
    """Gradients taken in the forward pass, for upstream gradients `g_N` and `h_N`; `per_row`: the head is
    frozen, so that the gradient of each row may be scaled on its own."""

    inputs: InputGrads
    vocabulary: VocabularyGrads
    g_N: Tensor
    h_N: Tensor | None
    per_row: bool

    def rescale(self, g_N: Tensor, h_N: Tensor | None) -> bool:
        """Make them those for the real upstream gradients, if a scale can; else return False."""
        if self.per_row:  # planned only where no gradient can come through the entropy
            self.inputs.scale(g_N[:, None])
            return True
        real, predicted = _pair(g_N, h_N), _pair(self.g_N, self.h_N)
        scale = (real * predicted).sum() / (predicted * predicted).sum().clamp(
            min=torch.finfo(predicted.dtype).tiny
        )
        # Rounding of the same loss in another order is let through; it is no larger than that of the sums.
        if (real - scale * predicted).abs().max() > 8 * torch.finfo(predicted.dtype).eps * real.abs().max():
            return False
        if scale != 1:
            self.inputs.scale(scale)
            self.vocabulary.scale(scale)
        return True


def _pair(g_N: Tensor, h_N: Tensor | None) -> Tensor:
    return torch.stack([g_N, torch.zeros_like(g_N) if h_N is None else h_N])


class LinearLogprob(torch.autograd.Function):
    """(hidden, weight, bias, A, B, call) -> (log-prob [N], entropy [N] or None)."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        a_RH: Tensor | None,
        b_VR: Tensor | None,
        call: LogprobCall,
    ) -> tuple[Tensor, Tensor | None]:
        """Sweep once; hold what the plan says."""
        ctx.set_materialize_grads(False)
        head = _head(weight_VH, bias_V, a_RH, b_VR, call)
        needs = Needs(*ctx.needs_input_grad[:5])
        plan = call.plan(hidden_NH, head, needs)
        sweep = call.sweep(hidden_NH, head, plan)
        stats = RowSums.empty(
            hidden_NH.shape[0], entropy=call.entropy, dtype=call.dtype, device=hidden_NH.device
        )
        ctx.kept, ctx.eager = [], None
        with torch.cuda.device_of(hidden_NH):  # Triton launches on the current device
            if plan.eager_rows:
                ctx.eager = _eager(sweep, stats, call, needs)
            else:
                ctx.kept = _forward(sweep, stats, call)
                merge(stats, call.shard)
        entropy_N = stats.entropy()
        if call.backward and needs.any:
            ctx.save_for_backward(hidden_NH, weight_VH, bias_V, a_RH, b_VR, stats.log_sum_exp(), entropy_N)
            ctx.call, ctx.plan = call, plan
        if entropy_N is not None and not call.entropy_grad:
            ctx.mark_non_differentiable(entropy_N)
        return stats.log_prob(), entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g_N: Tensor | None, h_N: Tensor | None) -> tuple[Tensor | None, ...]:
        """Gradients of the first five inputs."""
        hidden_NH, weight_VH, bias_V, a_RH, b_VR, lse_N, entropy_N = ctx.saved_tensors
        call: LogprobCall = ctx.call
        needs = Needs(*ctx.needs_input_grad[:5])
        head = _head(weight_VH, bias_V, a_RH, b_VR, call)
        sweep = call.sweep(hidden_NH, head, ctx.plan)
        kept, ctx.kept, eager, ctx.eager = ctx.kept, [], ctx.eager, None  # spent by this pass
        # What a sum sends back is one number with stride 0.
        g_N = torch.zeros_like(lse_N) if g_N is None else g_N.contiguous()
        h_N = None if h_N is None else h_N.contiguous()
        if eager is not None and eager.rescale(g_N, h_N):
            inputs, vocabulary = eager.inputs, eager.vocabulary
        else:
            inputs, vocabulary = _grads(sweep, needs, again=False)
            grads = RowGrads(lse_N, entropy_N, g_N, h_N)
            (sweep.backward_live if call.skip_dead_rows else sweep.backward)(grads, kept, inputs, vocabulary)
        total(inputs.hidden_NH, call.shard)
        total(inputs.adapter_NR, call.shard)
        d_a = inputs.finish(sweep.x_NH, head.lora, needs)
        d_weight, d_bias, d_b = vocabulary.finish()
        d_hidden = None if inputs.hidden_NH is None else inputs.hidden_NH.to(hidden_NH.dtype)
        return d_hidden, d_weight, d_bias, d_a, d_b, None


def product_dtype(hidden_NH: Tensor, weight_VH: Tensor, sums: torch.dtype) -> torch.dtype:
    """What is multiplied in: on a GPU, the wider of the inputs; on a CPU, the dtype of the sums, because its
    libraries round the results of bf16 matmuls to bf16."""
    return torch.promote_types(hidden_NH.dtype, weight_VH.dtype) if hidden_NH.is_cuda else sums


def _forward(sweep: Sweep, stats: RowSums, call: LogprobCall) -> list[Tensor]:
    """Fill `stats`; returns the logits that were kept."""
    if call.fused and not sweep.plan.kept:
        from vertigym.kernels import triton_fused

        if triton_fused.fits(sweep.x_NH, sweep.head):
            triton_fused.forward(sweep.x_NH, sweep.head, sweep.rows, stats, sweep.first_column)
            return []
    return sweep.forward(stats, sweep.plan.kept)


def _head(
    weight_VH: Tensor, bias_V: Tensor | None, a_RH: Tensor | None, b_VR: Tensor | None, call: LogprobCall
) -> Head:
    lora = None if a_RH is None or b_VR is None else Lora(a_RH, b_VR, call.lora_scale)
    return Head(weight_VH, bias_V, lora)


def _grads(sweep: Sweep, needs: Needs, *, again: bool) -> tuple[InputGrads, VocabularyGrads]:
    """Empty sums for the gradients of a sweep."""
    one_block = sweep.plan.backward_rows >= sweep.x_NH.shape[0]
    direct = sweep.x_NH.dtype if one_block else None
    return (
        InputGrads.zeros(sweep.x_NH, sweep.xa_NR, needs, sweep.dtype),
        VocabularyGrads(sweep.head, needs, sweep.dtype, direct=direct, again=again),
    )


def _eager(sweep: Sweep, stats: RowSums, call: LogprobCall, needs: Needs) -> EagerGrads:
    """Forward and backward over one group of rows after the other, its logits kept in between."""
    rows = sweep.x_NH.shape[0]
    inputs, vocabulary = _grads(sweep, needs, again=rows > sweep.plan.eager_rows)
    predicted_g, predicted_h = [], []
    for group in cut(rows, sweep.plan.eager_rows):
        some, sums = sweep.at(group), stats.at(group)
        kept = some.forward(sums, sweep.plan.tiles(sweep.head.weight_VH.shape[0]))
        merge(sums, call.shard)
        logp_N, entropy_N = sums.log_prob(), sums.entropy()
        if call.upstream is None:
            g_N, h_N = torch.ones_like(logp_N), None
        else:
            token_N = torch.arange(rows, device=stats.max_N.device) if call.token_N is None else call.token_N
            g_N, h_N = call.upstream(logp_N, entropy_N, token_N[group])
            g_N, h_N = g_N.contiguous(), None if h_N is None else h_N.contiguous()
        grads = RowGrads(sums.log_sum_exp(), entropy_N, g_N, h_N)
        (some.backward_live if call.skip_dead_rows else some.backward)(
            grads, kept, inputs.at(group), vocabulary
        )
        predicted_g.append(g_N)
        predicted_h.append(torch.zeros_like(g_N) if h_N is None else h_N)
    return EagerGrads(inputs, vocabulary, torch.cat(predicted_g), torch.cat(predicted_h), call.upstream is None)
