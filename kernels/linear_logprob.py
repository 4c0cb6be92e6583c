"""Log-prob and entropy of given tokens from hidden states, without the [T, V] logits.

    u = x Wᵀ + s (x Aᵀ) Bᵀ + b        z = cap·tanh(u / cap) / τ        logp = z_y − log Σ e^z

The head is swept in tiles of the vocabulary: a matmul into a small buffer, then one pass that folds the tile
into running sums. The backward pass sweeps again, from logits it kept where the byte budget allowed and
recomputed elsewhere (`plan.py` lists the ways). It gives log-prob and entropy only; the loss maths belongs to
the caller.

Axes: T tokens, N those that are scored, H hidden, V vocabulary (this rank's shard of it), R LoRA rank.
"""

import importlib.util
from dataclasses import replace
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from vertigym.kernels import torch_passes
from vertigym.kernels.function import LinearLogprob, LogprobCall, Upstream
from vertigym.kernels.head import Lora
from vertigym.kernels.row_stats import RowInputs
from vertigym.kernels.shard import Shard
from vertigym.kernels.sweep import TilePasses

__all__ = ["IGNORE", "Impl", "Lora", "Shard", "Upstream", "linear_logprob"]

IGNORE = -100
Impl = Literal["auto", "torch", "triton", "fused"]
Rows = Tensor | Literal["all"]


def linear_logprob(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    lora: Lora | None = None,
    entropy: bool = True,
    entropy_grad: bool = True,
    rows: Rows | None = None,
    grad_rows: Rows | None = None,
    upstream: Upstream | None = None,
    shard: Shard | None = None,
    budget_bytes: int | None = None,
    impl: Impl = "auto",
) -> tuple[Tensor, Tensor | None]:
    """Log-prob of `target_T` and entropy of its distribution, [T] each, in nats, fp32 (fp64 for fp64 input).

    Tokens whose target is -100 get 0, 0 and no gradient, and are never multiplied. Differentiable once in
    hidden, weight, bias and the LoRA factors, through both outputs; what has `requires_grad` False costs
    nothing, and the backward pass multiplies only rows whose upstream gradient is not 0.

    Memory: one tile of logits and, when a gradient is wanted, at most `budget_bytes` of kept logits, beside the
    inputs and their gradients; `plan.py` says what the budget buys.

    Args:
        hidden_TH: hidden states that predict `target_T` (already shifted), any float dtype.
        weight_VH: the head's weight; products are taken in the wider dtype of the two, sums in fp32.
        target_T: token ids, or -100.
        bias: [V]; -inf masks a column.
        temperature: τ > 0, one for all or [T]; no gradient flows to it.
        softcap: Gemma's logit soft-cap, before the temperature.
        lora: `Lora(a_RH, b_VR, scale)`, an adapter on the head.
        entropy: False leaves it out (the second result is None), and its cost.
        entropy_grad: False for an entropy that is only reported; cheaper where the head is frozen.
        rows: indices of the tokens to score (the others get 0); default: those whose target is not -100. An
            index tensor on the CPU saves a GPU the wait for the count, and "all", where no target is -100, the
            copy of the hidden states too.
        grad_rows: those of `rows` that gradients may flow to, the others count as constants; default: all. Also
            saves a GPU the search for rows without gradient, and so does "all".
        upstream: predicts the upstream gradients, so that the gradients are taken in the forward pass and
            nothing is computed twice: `upstream(logp_N, entropy_N, tokens_N)` gives dL/dlogp and dL/dentropy
            (or None) for the tokens with those indices. Up to one common factor it must be what the loss
            sends back; if it is not, that is noticed, and the price is a recomputation, not a wrong gradient.
        shard: this rank's part of a vocabulary split over ranks. All ranks pass the same hidden states and
            targets, get the same results, and the hidden states' gradient comes back summed over ranks.
        budget_bytes: logits to hold for the backward pass; default 8 GiB on a GPU, and on a CPU the size of
            the weight, or 32 MiB if that is more.
        impl: "torch"; "triton" (on a GPU, or Triton's interpreter); "fused": the same, and where no logits are
            kept the forward pass is one kernel; "auto": "triton" on a GPU that has it, else "torch".

    Raises:
        ValueError: shapes, dtypes, ids, temperatures or an `impl` that do not fit; the message says which. (On
            a GPU, values are checked by a device-side assert, so that nothing waits.)
    """
    _check_shapes(hidden_TH, weight_VH, target_T, bias, temperature, softcap, lora)
    all_scored = _check_values(target_T, temperature, weight_VH.shape[0] if shard is None else shard.vocab)
    softcap = None if softcap is None else float(softcap)
    dtype = torch.float64 if torch.float64 in (hidden_TH.dtype, weight_VH.dtype) else torch.float32
    call = LogprobCall(
        rows=RowInputs(target_T.contiguous(), _inverse(temperature, hidden_TH, dtype), softcap),
        token_N=None,
        lora_scale=1.0 if lora is None else lora.scale,
        entropy=entropy,
        entropy_grad=entropy_grad,
        upstream=upstream,
        backward=torch.is_grad_enabled(),
        skip_dead_rows=grad_rows is None or not hidden_TH.is_cuda,
        budget=budget_bytes,
        passes=_passes(impl, hidden_TH),
        fused=impl == "fused",
        dtype=dtype,
        shard=shard,
    )
    head = (weight_VH, bias, None if lora is None else lora.a_RH, None if lora is None else lora.b_VR)
    if isinstance(rows, str):
        _require((target_T != IGNORE).all(), f'rows is "all", and a target is {IGNORE}: leave rows out')
        rows, all_scored = None, True
    grad_rows = None if isinstance(grad_rows, str) else grad_rows
    if rows is None and grad_rows is None and all_scored:
        logp_T, entropy_T = LinearLogprob.apply(hidden_TH, *head, call)  # type: ignore[no-untyped-call]
        return logp_T, entropy_T
    logp_T = hidden_TH.new_zeros(hidden_TH.shape[0], dtype=dtype)
    entropy_T = torch.zeros_like(logp_T) if entropy else None
    for index, grad in _parts(target_T, rows, grad_rows):
        some = replace(call, rows=call.rows.at(index), token_N=index, backward=call.backward and grad)
        with torch.set_grad_enabled(some.backward):
            logp_N, entropy_N = LinearLogprob.apply(hidden_TH[index], *head, some)  # type: ignore[no-untyped-call]
        logp_T = logp_T.index_copy(0, index, logp_N)
        entropy_T = None if entropy_T is None else entropy_T.index_copy(0, index, entropy_N)
    if rows is None:
        return logp_T, entropy_T
    skipped_T = target_T == IGNORE
    return logp_T.masked_fill(skipped_T, 0), None if entropy_T is None else entropy_T.masked_fill(skipped_T, 0)


def _parts(target_T: Tensor, rows: Tensor | None, grad_rows: Tensor | None) -> list[tuple[Tensor, bool]]:
    """Token indices to score, on the targets' device, with gradient and without."""
    device = target_T.device
    if rows is None:
        rows = (target_T != IGNORE).nonzero()[:, 0]
    if grad_rows is None:
        return [(rows.to(device, non_blocking=True), True)]
    flows = torch.isin(rows, grad_rows.to(rows.device))
    return [(rows[mask].to(device, non_blocking=True), grad) for mask, grad in ((flows, True), (~flows, False))]


def _inverse(temperature: float | Tensor, hidden_TH: Tensor, dtype: torch.dtype) -> Tensor | None:
    """1/τ [T], or None when that is 1."""
    if isinstance(temperature, (int, float)):
        return (
            None if temperature == 1 else hidden_TH.new_full(hidden_TH.shape[:1], 1 / temperature, dtype=dtype)
        )
    return (1 / temperature.detach().to(dtype)).expand(hidden_TH.shape[0]).contiguous()


def _passes(impl: Impl, hidden_TH: Tensor) -> TilePasses:
    """The implementation asked for.

    Raises:
        ValueError: it is unknown, or cannot run here.
    """
    if impl not in get_args(Impl):
        raise ValueError(f"impl is {impl!r}; known: {', '.join(get_args(Impl))}")
    if impl == "torch" or (impl == "auto" and not (hidden_TH.is_cuda and _triton_installed())):
        return torch_passes
    if not _triton_installed():
        raise ValueError(f"impl {impl!r} needs triton: pip install 'vertigym[triton]', or use 'torch'")
    from vertigym.kernels import triton_passes

    if not hidden_TH.is_cuda and not triton_passes.INTERPRETED:
        raise ValueError(f"impl {impl!r} needs a GPU; on a CPU use 'torch' (tests set TRITON_INTERPRET=1)")
    return triton_passes


@cache
def _triton_installed() -> bool:
    return importlib.util.find_spec("triton") is not None


def _check_shapes(
    hidden_TH: Tensor,
    weight_VH: Tensor,
    target_T: Tensor,
    bias: Tensor | None,
    temperature: float | Tensor,
    softcap: float | None,
    lora: Lora | None,
) -> None:
    """Each misfit refused in words."""
    (tokens, width), vocab = _matrix("hidden", hidden_TH), _matrix("weight", weight_VH)[0]
    wanted: list[tuple[str, Tensor, tuple[int, ...]]] = [
        ("weight", weight_VH, (vocab, width)),
        ("target", target_T, (tokens,)),
    ]
    if bias is not None:
        wanted.append(("bias", bias, (vocab,)))
    if lora is not None:
        rank = _matrix("lora.a", lora.a_RH)[0]
        wanted += [("lora.a", lora.a_RH, (rank, width)), ("lora.b", lora.b_VR, (vocab, rank))]
    if isinstance(temperature, Tensor) and temperature.dim():
        wanted.append(("temperature", temperature, (tokens,)))
    for name, tensor, shape in wanted:
        if tuple(tensor.shape) != shape:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}; {shape} goes with the other inputs")
    if target_T.dtype != torch.int64:
        raise ValueError(f"target has dtype {target_T.dtype}; token ids are int64")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap is {softcap}; it must be above 0, or None")


def _matrix(name: str, tensor: Tensor) -> tuple[int, int]:
    if tensor.dim() != 2 or not tensor.is_floating_point():
        raise ValueError(f"{name} is {tensor.dtype} {tuple(tensor.shape)}; a floating-point matrix is needed")
    return tensor.shape[0], tensor.shape[1]


def _check_values(target_T: Tensor, temperature: float | Tensor, vocab: int) -> bool:
    """Ids and temperatures in range; returns whether no target is -100, as far as that is known at once."""
    if isinstance(temperature, Tensor):
        _require((temperature > 0).all(), "temperature must be above 0; score greedy samples at 1")
    elif not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0: score greedy samples at 1")
    if target_T.shape[0] == 0:
        return True
    if not target_T.is_cuda:
        low, high = (int(v) for v in target_T.aminmax())
        if low >= 0 and high < vocab:
            return True
    allowed = (target_T < vocab) & ((target_T >= 0) | (target_T == IGNORE))
    _require(allowed.all(), f"a target id is outside 0 … {vocab - 1} (and not {IGNORE}, which skips a token)")
    return False


def _require(holds: Tensor, message: str) -> None:
    if holds.is_cuda:
        torch._assert_async(holds, message)
    elif not holds:
        raise ValueError(message)
