"""Calls of the log-prob kernel with random inputs, and how exact its results are beside torch's own.

The bound is relative, by norm: our error is at most that of torch's own way (logits in the input's dtype,
log_softmax in fp32) plus `TOLERANCE`: a few fp32 roundings, or one bf16 rounding of a gradient.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor
from torch.nn.functional import log_softmax

from vertigym.kernels import plan
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


def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tiles and blocks, none of them even."""
    monkeypatch.setattr(plan, "CPU_ROWS", 3)
    monkeypatch.setattr(plan, "CPU_COLUMNS", 100)
