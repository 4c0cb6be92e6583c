"""Log-prob, entropy and every gradient against float64, and the properties they must have whatever the tiles.

The bound is relative, by norm: our error is at most that of torch's own way (logits in the input's dtype,
log_softmax in fp32) plus `TOLERANCE`: a few fp32 roundings, or one bf16 rounding of a gradient.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import log_softmax

from vertigym.kernels import function, grads, head, plan
from vertigym.kernels.linear_logprob import Impl, Lora, linear_logprob

TOLERANCE = {torch.float32: 3e-6, torch.bfloat16: 4e-3}
IMPLS: tuple[Impl, ...] = ("torch", "triton", "fused")


@dataclass(frozen=True)
class Case:
    """Inputs of one call, and upstream gradients of both outputs."""

    hidden: Tensor
    weight: Tensor
    target: Tensor
    bias: Tensor | None
    temperature: float | Tensor
    softcap: float | None
    lora: Lora | None
    g: Tensor
    h: Tensor

    @property
    def leaves(self) -> list[Tensor]:
        return [t for t in (self.hidden, self.weight, self.bias, *(self.lora or ())[:2]) if t is not None]

    def to(self, dtype: torch.dtype) -> "Case":
        def leaf(t: Tensor) -> Tensor:
            return t.detach().to(dtype).requires_grad_()

        lora = self.lora and Lora(leaf(self.lora.a_RH), leaf(self.lora.b_VR), self.lora.scale)
        bias = None if self.bias is None else leaf(self.bias)
        return replace(self, hidden=leaf(self.hidden), weight=leaf(self.weight), bias=bias, lora=lora)

    def run(self, **options: object) -> tuple[Tensor, Tensor]:
        logp, entropy = linear_logprob(
            self.hidden,
            self.weight,
            self.target,
            **{
                "bias": self.bias,
                "temperature": self.temperature,
                "softcap": self.softcap,
                "lora": self.lora,
                **options,
            },  # type: ignore[arg-type]
        )
        assert entropy is not None
        return logp, entropy

    def plain(self) -> tuple[Tensor, Tensor]:
        """The textbook way: all logits, in the dtype of the inputs."""
        u = self.hidden @ self.weight.T
        if self.lora is not None:
            u = u + self.lora.scale * (self.hidden @ self.lora.a_RH.T) @ self.lora.b_VR.T
        if self.bias is not None:
            u = u + self.bias
        u = u if u.dtype == torch.float64 else u.float()
        if self.softcap is not None:
            u = self.softcap * torch.tanh(u / self.softcap)
        tau = self.temperature[:, None] if isinstance(self.temperature, Tensor) else self.temperature
        logp_TV = log_softmax(u / tau, -1)
        live = self.target != -100
        logp = logp_TV.gather(1, self.target.clamp(min=0)[:, None])[:, 0].where(live, 0.0)
        return logp, (-(logp_TV.exp() * logp_TV).sum(1)).where(live, 0.0)

    def results(self, outputs: tuple[Tensor, Tensor]) -> list[Tensor]:
        """Both outputs and all gradients, in float64."""
        logp, entropy = outputs
        loss = (logp * self.g).sum() + (entropy * self.h).sum()
        flows = torch.autograd.grad(loss, self.leaves, allow_unused=True)
        return [t.detach().double() for t in (logp, entropy, *flows) if t is not None]


def make(
    tokens: int = 37,
    width: int = 24,
    vocab: int = 1300,
    *,
    bias: bool = False,
    temperature: float | None = 1.0,
    softcap: float | None = None,
    lora: bool = False,
    seed: int = 0,
    size: float = 1.0,
) -> Case:
    """Random inputs; `temperature` None is one a token; about a sixth of the tokens are skipped."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:  # representable in bf16, so that all dtypes see the same problem
        return torch.randn(*shape, generator=rng).bfloat16().float()

    target = torch.randint(0, vocab, (tokens,), generator=rng)
    target[::6] = -100
    target[1:3] = torch.tensor([0, vocab - 1])[: max(0, tokens - 1)]
    return Case(
        normal(tokens, width),
        normal(vocab, width) * size / width**0.5,
        target,
        normal(vocab) if bias else None,
        temperature if temperature is not None else torch.rand(tokens, generator=rng) + 0.5,
        softcap,
        Lora(normal(5, width), normal(vocab, 5) / 8, 0.5) if lora else None,
        torch.randn(tokens, generator=rng),
        torch.randn(tokens, generator=rng),
    ).to(torch.float32)


def error(ours: Tensor, truth: Tensor) -> float:
    return float((ours - truth).norm() / truth.norm().clamp(min=1e-30)) if truth.numel() else 0.0


def assert_as_exact_as_torch(case: Case, dtype: torch.dtype = torch.float32, **options: object) -> None:
    exact = case.to(torch.float64)
    truth = exact.results(exact.plain())
    low = case.to(dtype)
    theirs, ours = low.results(low.plain()), low.results(low.run(**options))
    for number, (mine, their, true) in enumerate(zip(ours, theirs, truth, strict=True)):
        bound = error(their, true) + TOLERANCE[dtype]
        assert error(mine, true) <= bound, f"result {number}: {error(mine, true):.2e}, allowed {bound:.2e}"


def shifted(case: Case, shift: float) -> Case:
    """All logits moved by a constant."""
    assert case.bias is not None
    return replace(case, bias=(case.bias + shift).detach().requires_grad_())


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles and blocks, none of them even."""
    monkeypatch.setattr(plan, "CPU_ROWS", 3)
    monkeypatch.setattr(plan, "CPU_COLUMNS", 100)


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
def test_the_dtypes_of_a_gpu(mode: str, impl: Impl, monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> None:
    """Products of bf16 summed to fp32, gradients of logits in bf16: emulated, for want of such matmuls here."""
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


def test_bf16_weight_gradients_are_summed_in_fp32(small_tiles: None) -> None:
    """Rounded once, though made of many blocks of rows."""
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


class Multiplied:
    """Counts multiply-adds in units of one row times the whole head."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
        self.count = 0.0
        self.unit = case.weight.numel()
        for module, name in itertools.product((head, grads), ("matmul", "add_matmul")):
            monkeypatch.setattr(module, name, self.counted(getattr(module, name)))

    def counted(self, multiply: object) -> object:
        def counting(a: Tensor, b: Tensor, out: Tensor) -> None:
            self.count += a.shape[0] * a.shape[1] * b.shape[1] / self.unit
            multiply(a, b, out)  # type: ignore[operator]

        return counting

    def take(self) -> int:
        count, self.count = self.count, 0.0
        return round(count)


def test_tokens_without_gradient_are_never_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(30, 16, 1300)
    multiplied = Multiplied(monkeypatch, case)
    logp, _ = case.run(budget_bytes=0)
    assert multiplied.take() == 25  # five of thirty are skipped
    loss = (logp[:10] * 3).sum() + logp[10:].sum() * 0
    torch.autograd.grad(loss, case.leaves)
    assert multiplied.take() == 8 * 3  # eight scored tokens among the first ten: recompute, dX, dW


def test_rows_and_grad_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(30, 16, 1300)
    multiplied = Multiplied(monkeypatch, case)
    rows, grad_rows = torch.tensor([0, 1, 2, 5, 9, 20]), torch.tensor([5, 20])  # 0 has target -100
    logp, entropy = case.run(rows=rows, grad_rows=grad_rows, budget_bytes=0)
    assert multiplied.take() == 6
    ours = torch.autograd.grad(logp.sum() + entropy.sum(), case.leaves)
    assert multiplied.take() == 2 * 3
    full_logp, full_entropy = case.run()
    scored = torch.zeros(30, dtype=torch.bool).index_fill(0, rows[1:], True)
    torch.testing.assert_close(logp, full_logp.where(scored, 0.0))
    torch.testing.assert_close(entropy, full_entropy.where(scored, 0.0))
    same = torch.autograd.grad(full_logp[grad_rows].sum() + full_entropy[grad_rows].sum(), case.leaves)
    for a, b in zip(ours, same, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)


def test_a_frozen_head_is_multiplied_twice_in_all(monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> None:
    case = make(30, 16, 1300, bias=True)
    assert case.bias is not None
    frozen = replace(case, weight=case.weight.detach(), bias=case.bias.detach())
    monkeypatch.setattr(plan, "LEAST_EAGER_ROWS", 4)
    multiplied = Multiplied(monkeypatch, case)
    logp, entropy = frozen.run(entropy_grad=False, budget_bytes=7 * 1300 * 4)
    assert not entropy.requires_grad
    (ours,) = torch.autograd.grad((logp * case.g).sum(), case.hidden, retain_graph=True)
    assert multiplied.take() == 25 * 2
    (again,) = torch.autograd.grad((logp * case.g).sum(), case.hidden)
    (same,) = torch.autograd.grad((case.run()[0] * case.g).sum(), case.hidden)
    torch.testing.assert_close(ours, same, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(again, same, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("impl", ["torch", "triton"])
@pytest.mark.parametrize("factor", [1.0, -0.3], ids=["as predicted", "scaled"])
def test_foretold_gradients_are_taken_forward(
    factor: float, impl: Impl, monkeypatch: pytest.MonkeyPatch, small_tiles: None
) -> None:
    if impl != "torch":
        pytest.importorskip("triton")
    case = make(30, 16, 700, bias=True, lora=True)
    monkeypatch.setattr(plan, "LEAST_EAGER_ROWS", 4)
    g = case.g * (torch.arange(30) % 3 == 1)  # two tokens of three carry no gradient
    live = ((case.target != -100) & (g != 0)).sum()

    def upstream(logp: Tensor, entropy: Tensor | None, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        assert entropy is not None
        assert not logp.requires_grad
        return g[tokens], 0.1 * g[tokens]

    multiplied = Multiplied(monkeypatch, case)
    logp, entropy = case.run(upstream=upstream, budget_bytes=7 * 700 * 4, impl=impl)
    loss = factor * ((logp * g).sum() + 0.1 * (entropy * g).sum())
    ours = torch.autograd.grad(loss, case.leaves)
    lora_share = 1 + 5 / 16 * 1.01  # the adapter's rank beside the width
    assert multiplied.take() <= (25 + 2 * live) * lora_share
    logp, entropy = case.run()
    same = torch.autograd.grad(factor * ((logp * g).sum() + 0.1 * (entropy * g).sum()), case.leaves)
    for a, b in zip(ours, same, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_clipped_policy_loss_foretold(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in docs/kernels.md; tokens whose ratio is clipped, or without advantage, are not multiplied again."""
    case = make(40, 16, 1300)
    advantage = torch.tensor([1.0, -1.0, 0.0, 2.0]).repeat(10)
    old = case.run()[0].detach() + 0.3 * torch.randn(40, generator=torch.Generator().manual_seed(2))

    def token_loss(logp: Tensor, old: Tensor, advantage: Tensor) -> Tensor:
        ratio = (logp - old).exp()
        return -torch.minimum(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)

    def upstream(logp: Tensor, entropy: Tensor | None, tokens: Tensor) -> tuple[Tensor, None]:
        with torch.enable_grad():
            value = token_loss(logp.requires_grad_(), old[tokens], advantage[tokens]).sum()
        return torch.autograd.grad(value, logp)[0], None

    scored = case.target != -100
    plain_logp, _ = case.run()
    same = torch.autograd.grad(
        token_loss(plain_logp, old, advantage).sum() / 33, case.leaves, retain_graph=True
    )
    (g,) = torch.autograd.grad(token_loss(plain_logp, old, advantage).sum(), plain_logp)
    live = int(((g != 0) & scored).sum())
    assert live < 25 < scored.sum()
    monkeypatch.setattr(plan, "LEAST_EAGER_ROWS", 4)
    multiplied = Multiplied(monkeypatch, case)
    logp, _ = case.run(upstream=upstream, budget_bytes=7 * 1300 * 4)
    ours = torch.autograd.grad(token_loss(logp, old, advantage).sum() / 33, case.leaves)
    assert multiplied.take() == int(scored.sum()) + 2 * live
    for a, b in zip(ours, same, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_a_wrong_forecast_costs_time_but_not_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make(bias=True)
    monkeypatch.setattr(plan, "LEAST_EAGER_ROWS", 4)

    def upstream(logp: Tensor, entropy: Tensor | None, tokens: Tensor) -> tuple[Tensor, None]:
        return torch.ones_like(logp), None

    multiplied = Multiplied(monkeypatch, case)
    logp, entropy = case.run(upstream=upstream, budget_bytes=7 * 1300 * 4)
    assert multiplied.take() == 30 * 3
    ours = torch.autograd.grad((logp * case.g).sum() + (entropy * case.h).sum(), case.leaves)
    assert multiplied.take() == 30 * 3
    for a, b in zip(ours, case.results(case.run())[2:], strict=True):
        torch.testing.assert_close(a.double(), b, atol=1e-5, rtol=1e-5)


def test_nothing_is_kept_when_autograd_is_off() -> None:
    case = make()
    with torch.no_grad():
        logp, entropy = case.run()
    assert logp.grad_fn is None
    torch.testing.assert_close((logp, entropy), case.run())


def test_logits_are_kept_as_far_as_the_budget_goes(monkeypatch: pytest.MonkeyPatch, small_tiles: None) -> None:
    case = make(30, 16, 1300)
    multiplied = Multiplied(monkeypatch, case)
    for tiles_kept, recomputed in ((0, 25), (6, 25 * 7 / 13), (13, 0)):
        logp, _ = case.run(budget_bytes=25 * 100 * 4 * tiles_kept)
        torch.autograd.grad((logp * case.g).sum(), case.leaves)
        assert multiplied.take() == round(25 * 3 + recomputed)


@pytest.mark.slow
def test_more_logits_than_32_bits_can_count() -> None:
    """T·V > 2³¹, at a width that keeps it cheap."""
    tokens, vocab = 14_200, 151_936
    rng = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 2, generator=rng) for n in (tokens, vocab))
    target = torch.randint(0, vocab, (tokens,), generator=rng)
    logp, entropy = linear_logprob(hidden, weight, target)
    assert entropy is not None
    some = torch.tensor([0, 7000, tokens - 1])
    truth = log_softmax(hidden[some].double() @ weight.double().T, -1)
    torch.testing.assert_close(
        logp[some].double(), truth.gather(1, target[some, None])[:, 0], atol=1e-5, rtol=1e-5
    )
    torch.testing.assert_close(entropy[some].double(), -(truth.exp() * truth).sum(1), atol=1e-5, rtol=1e-5)


def test_rows_further_apart_than_32_bits_can_count() -> None:
    """Triton's row offsets are 64 bits wide. The memory between the rows is never touched."""
    pytest.importorskip("triton")
    from vertigym.kernels import triton_passes
    from vertigym.kernels.row_stats import RowGrads, RowInputs, RowSums, Scratch

    stride = 2**30  # fits in 32 bits; twice that does not
    tile = torch.empty(2 * stride + 300).as_strided((3, 300), (stride, 1))
    tile.copy_(torch.randn(3, 300, generator=torch.Generator().manual_seed(0)))
    z = tile.clone()
    rows = RowInputs(torch.tensor([5, 299, 0]), None, None)
    stats = RowSums.empty(3, entropy=True, dtype=torch.float32, device=tile.device)
    triton_passes.fold(tile, None, 0, rows, stats, Scratch(tile.device))
    torch.testing.assert_close(stats.log_sum_exp(), z.logsumexp(1))
    grads = RowGrads(stats.log_sum_exp(), None, torch.ones(3), None)
    d = triton_passes.dlogits(tile, None, 0, rows, grads, torch.float32, Scratch(tile.device))
    truth = -z.softmax(1)
    truth[[0, 1, 2], rows.target_N] += 1
    torch.testing.assert_close(d, truth)
