"""Log-prob, entropy and every gradient against float64, and the properties they must have
whatever the tiles."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vertigym.kernels import function, grads, head, plan
from vertigym.kernels.linear_logprob import Impl, Lora, linear_logprob

from .logprob_cases import (
    IMPLS,
    assert_as_exact_as_torch,
    make,
    shifted,
    small_tiles,
)

OPTIONS = [
    {"bias": bias, "temperature": temperature, "softcap": softcap, "lora": lora}
    for bias, temperature, softcap, lora in itertools.product(
        (False, True), (1.0, 0.7, None), (None, 2.0), (False, True)
    )
]


@pytest.mark.parametrize("budget", [0, 60_000, None], ids=["recompute", "some kept", "all kept"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_option_is_as_exact_as_torch(options: dict[str, object], budget: int | None) -> None:
    assert_as_exact_as_torch(make(**options), budget_bytes=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("impl", ["triton", "fused"])
@pytest.mark.parametrize("options", OPTIONS[::5] + OPTIONS[-1:], ids=str)
def test_triton_is_as_exact_as_torch(options: dict[str, object], impl: Impl) -> None:
    pytest.importorskip("triton")
    assert_as_exact_as_torch(make(9, 24, 333, **options), impl=impl, budget_bytes=0)  # type: ignore[arg-type]


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("options", [{}, OPTIONS[-1]], ids=["plain", "all"])
def test_bf16_inputs(options: dict[str, object], impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(19, 32, 300, **options)  # type: ignore[arg-type]
    assert_as_exact_as_torch(case, torch.bfloat16, impl=impl, budget_bytes=0)


@given(
    tokens=st.sampled_from([0, 1, 127, 129]),
    width=st.sampled_from([33, 64, 1000]),
    vocab=st.sampled_from([1, 77, 1000, 1152]),
    options=st.sampled_from(OPTIONS),
    budget=st.sampled_from([0, 300_000, None]),
)
@settings(max_examples=25, derandomize=True)
def test_ragged_shapes(
    tokens: int, width: int, vocab: int, options: dict[str, object], budget: int | None
) -> None:
    assert_as_exact_as_torch(make(tokens, width, vocab, **options), budget_bytes=budget)  # type: ignore[arg-type]


@pytest.mark.parametrize("vocab", [77, 1000, 1152, 1187])
@pytest.mark.parametrize("impl", ["triton", "fused"])
def test_no_phantom_columns(impl: Impl, vocab: int) -> None:
    """A kernel that pads the vocabulary with zero logits is far off when all real logits are low."""
    pytest.importorskip("triton")
    case = make(5, 8, vocab, bias=True)
    low = shifted(case, -40)
    assert_as_exact_as_torch(low, impl=impl, budget_bytes=0)


def test_a_slice_of_a_real_vocabulary() -> None:
    assert_as_exact_as_torch(make(5, 16, 151_936), budget_bytes=1_000_000)


def test_gradcheck_through_both_outputs() -> None:
    case = make(4, 3, 7, bias=True, temperature=None, softcap=1.5, lora=True).to(torch.float64)

    def both(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        hidden, weight, bias, a, b = leaves
        lora = Lora(a, b, 0.5)
        return replace(case, hidden=hidden, weight=weight, bias=bias, lora=lora).run(budget_bytes=0)

    assert torch.autograd.gradcheck(both, case.leaves)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize(("g", "h"), [(1, 0), (0, 1), (-2, 3)])
def test_either_output_alone_and_both(g: float, h: float, impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(9, 8, 200, bias=True)
    assert_as_exact_as_torch(replace(case, g=case.g * g, h=case.h * h), impl=impl)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("shift", [-1e4, -30.0, 30.0, 1e4])
def test_shifting_all_logits_changes_nothing(shift: float, impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(7, 8, 300, bias=True)
    moved = shifted(case, shift)
    rounding = 1e-6 * max(1.0, abs(shift))  # of the logits themselves
    for ours, same in zip(moved.results(moved.run(impl=impl)), case.results(case.run(impl=impl)), strict=True):
        torch.testing.assert_close(ours, same, atol=rounding, rtol=rounding)


@pytest.mark.parametrize("size", [1e4, 3e4])
def test_huge_logits_stay_finite_and_right(size: float) -> None:
    assert_as_exact_as_torch(make(size=size), budget_bytes=0)


def test_a_bias_of_minus_infinity_masks_a_column() -> None:
    case = make(vocab=50, bias=True)
    case = replace(case, target=case.target.clamp(max=39))
    assert case.bias is not None
    short = replace(case, weight=case.weight[:40], bias=case.bias[:40])
    masked = case.bias.detach().clone()
    masked[40:] = -torch.inf
    ours = replace(case, bias=masked.requires_grad_())
    torch.testing.assert_close(ours.run(), short.run())
    assert all(r.isfinite().all() for r in ours.results(ours.run()))


@pytest.mark.parametrize("impl", IMPLS)
def test_gradients_over_the_vocabulary_sum_to_zero(impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(11, 8, 300, bias=True, temperature=0.7)
    _, _, _, weight, bias = case.results(case.run(impl=impl))
    assert abs(bias.sum()) < 1e-5 * bias.abs().sum()
    assert weight.sum(0).abs().max() < 1e-5 * weight.abs().sum()


@pytest.fixture
def poisoned() -> Iterator[None]:
    """Uninitialised memory is NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("budget", [0, None])
def test_nothing_reads_uninitialised_memory(poisoned: None, budget: int | None, impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    assert torch.empty(3).isnan().all()
    case = make(7, 8, 1100, bias=True, lora=True)
    assert all(r.isfinite().all() for r in case.results(case.run(impl=impl, budget_bytes=budget)))


@pytest.mark.parametrize("impl", IMPLS)
@pytest.mark.parametrize("tokens", [0, 5])
def test_a_batch_without_a_scored_token_gives_zeros(tokens: int, impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(tokens, 8, 300, bias=True, lora=True)
    case = replace(case, target=torch.full((tokens,), -100))
    for result in case.results(case.run(impl=impl)):
        assert not result.any()


def test_skipped_tokens_give_zero_and_get_no_gradient() -> None:
    case = make()
    skipped = case.target == -100
    logp, entropy, hidden, _ = case.results(case.run())
    assert not logp[skipped].any()
    assert not entropy[skipped].any()
    assert not hidden[skipped].any()


@pytest.mark.parametrize("budget", [0, None])
def test_a_second_backward_pass_gives_the_same(budget: int | None) -> None:
    case = make(bias=True, lora=True, softcap=3.0)
    logp, entropy = case.run(budget_bytes=budget)
    loss = (logp * case.g).sum() + (entropy * case.h).sum()
    first, second = (torch.autograd.grad(loss, case.leaves, retain_graph=True) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("impl", IMPLS)
def test_any_strides_will_do(impl: Impl) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(9, 8, 200)
    strided = replace(
        case,
        hidden=case.hidden.detach().T.contiguous().T.requires_grad_(),
        weight=case.weight.detach().repeat(1, 2)[:, :8].requires_grad_(),
        target=case.target.repeat_interleave(2)[::2],
        g=case.g.repeat_interleave(2)[::2],
    )
    for ours, same in zip(strided.results(strided.run(impl=impl)), case.results(case.run()), strict=True):
        torch.testing.assert_close(ours, same, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("impl", IMPLS)
def test_upstream_gradients_without_memory_of_their_own(impl: Impl) -> None:
    """`sum` sends back one number with stride 0; targets and temperatures may be views too."""
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(9, 8, 200)
    target = case.target.clamp(min=0)
    views = replace(case, target=target.repeat_interleave(2)[::2], temperature=torch.tensor(0.7))
    ours = torch.autograd.grad(torch.stack(views.run(impl=impl, budget_bytes=0)).sum(), case.leaves)
    plain = replace(case, target=target, temperature=0.7)
    same = torch.autograd.grad(torch.stack(plain.plain()).sum(), case.leaves)
    for a, b in zip(ours, same, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("impl", ["triton", "fused"])
@pytest.mark.parametrize("mode", ["recompute", "kept", "eager"])
def test_the_dtypes_of_a_gpu(mode: str, impl: Impl, monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of bf16 summed to fp32, gradients of logits in bf16: emulated, for want of such matmuls here."""
    small_tiles(monkeypatch)
    pytest.importorskip("triton")

    def matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
        assert a.dtype == b.dtype == torch.bfloat16 or a.dtype == b.dtype == out.dtype
        out.copy_(a.float() @ b.float())

    def add_matmul(a: Tensor, b: Tensor, out: Tensor) -> None:
        assert a.dtype == b.dtype == torch.bfloat16
        assert out.dtype == torch.float32
        out.add_(a.float() @ b.float())

    for module in (head, grads):
        monkeypatch.setattr(module, "matmul", matmul)
        monkeypatch.setattr(module, "add_matmul", add_matmul)
    monkeypatch.setattr(function, "product_dtype", lambda *args: torch.bfloat16)
    monkeypatch.setattr(plan, "LEAST_EAGER_ROWS", 4)
    case = make(13, 16, 250, bias=True, lora=True, temperature=None, softcap=3.0)
    if mode == "eager":
        options = {"upstream": lambda logp, entropy, i: (case.g[i], case.h[i]), "budget_bytes": 5 * 250 * 4}
    else:
        options = {"budget_bytes": 0 if mode == "recompute" else None}
    assert_as_exact_as_torch(case, torch.bfloat16, impl=impl, **options)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 100), (16, 649), (64, 4096)])
def test_the_cut_changes_nothing(rows: int, columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(20, 8, 1300 if columns > 1 else 60, bias=True, lora=True, temperature=None)
    whole = case.results(case.run())
    monkeypatch.setattr(plan, "CPU_ROWS", rows)
    monkeypatch.setattr(plan, "CPU_COLUMNS", columns)
    for budget in (0, 20_000, None):
        for ours, same in zip(case.results(case.run(budget_bytes=budget)), whole, strict=True):
            torch.testing.assert_close(ours, same, atol=2e-6, rtol=2e-5)


def test_bf16_weight_gradients_are_summed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded once, though made of many blocks of rows."""
    small_tiles(monkeypatch)
    case = make(240, 16, 300)
    low = case.to(torch.bfloat16)
    ours = torch.autograd.grad((low.run()[0] * low.g).sum(), low.weight)[0]
    exact = torch.autograd.grad((case.run()[0] * case.g).sum(), case.weight)[0]
    torch.testing.assert_close(ours, exact.bfloat16(), rtol=8e-3, atol=1e-6)


def test_permuted_tokens_give_permuted_results() -> None:
    case = make()
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    logp, entropy, hidden, weight = case.results(case.run())
    mixed = replace(
        case, hidden=case.hidden[order], target=case.target[order], g=case.g[order], h=case.h[order]
    )
    for ours, same in zip(mixed.run(), (logp[order], entropy[order]), strict=True):
        torch.testing.assert_close(ours.double(), same, atol=1e-6, rtol=1e-6)
    outputs = mixed.run()
    loss = (outputs[0] * mixed.g).sum() + (outputs[1] * mixed.h).sum()
    for ours, same in zip(torch.autograd.grad(loss, case.leaves), (hidden, weight), strict=True):
        torch.testing.assert_close(ours.double(), same, atol=1e-5, rtol=1e-5)


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    case = make()
    logp, _ = case.run()
    alone, _ = replace(case, hidden=case.hidden[4:5], target=case.target[4:5]).run()
    torch.testing.assert_close(alone[0], logp[4])


def test_no_entropy_when_it_is_not_wanted() -> None:
    case = make()
    logp, entropy = linear_logprob(case.hidden, case.weight, case.target, entropy=False)
    assert entropy is None
    torch.testing.assert_close(logp, case.run()[0])


def test_a_frozen_head_gets_no_gradient() -> None:
    case = make()
    logp, _ = linear_logprob(case.hidden, case.weight.detach(), case.target)
    (ours,) = torch.autograd.grad((logp * case.g).sum(), case.hidden)
    (same,) = torch.autograd.grad((case.run()[0] * case.g).sum(), case.hidden)
    torch.testing.assert_close(ours, same)
