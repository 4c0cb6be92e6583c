"""What the log-prob kernel multiplies and keeps: nothing twice, nothing for tokens without gradient."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from vertigym.kernels import grads, head, plan
from vertigym.kernels.linear_logprob import Impl, linear_logprob

from .logprob_cases import (
    Case,
    make,
    small_tiles,
)


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


def test_a_frozen_head_is_multiplied_twice_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
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
    factor: float, impl: Impl, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_tiles(monkeypatch)
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


def test_logits_are_kept_as_far_as_the_budget_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    small_tiles(monkeypatch)
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
