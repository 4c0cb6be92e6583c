"""Losses: per-token terms as pure functions of log-probs. Whoever calls them sums and normalises.

Shapes: T trained tokens, flat over a batch; a token the policy did not write never gets here. `sequences_T`
numbers the sequence each belongs to. `old_logp_T` are the log-probs that the ratio `r = exp(logp - old_logp)`
compares with; they, advantages and references carry no gradient.

Every policy loss returns `(loss [T], clipped [T] bool)`: the gradient of a clipped token is exactly zero.
"""

from typing import Literal

import torch
from torch import Tensor

KLEstimator = Literal["k1", "k2", "k3", "k3+"]
Level = Literal["token", "sequence-sum", "sequence-mean"]
Mode = Literal["truncate", "mask"]

_FAR = 20.0  # nats; beyond, exp() would decide the batch by one token
_MOST = 10.0  # nats; the largest k3


def ppo_clip(
    logp_T: Tensor,
    old_logp_T: Tensor,
    advantage_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """`-min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)`, for A < 0 at most `-dual_clip · A` (0: no
    such bound).

    Schulman et al. 2017, eq. 7; two clip widths from Yu et al. 2025 (DAPO); the second bound, for a token that
    became far more likely although it was bad, from Ye et al. 2020, eq. 5.
    """
    return _clipped(_ratio(logp_T, old_logp_T), advantage_T, clip_low, clip_high, dual_clip)


def gspo(
    logp_T: Tensor,
    old_logp_T: Tensor,
    advantage_T: Tensor,
    sequences_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
) -> tuple[Tensor, Tensor]:
    """`-min(s A, clip(s, 1 - clip_low, 1 + clip_high) A)` with one ratio a sequence, the geometric mean of its
    tokens' `s = exp(mean log r)`, in the token-wise form `sg[s] · π / sg[π]`.

    Zheng et al. 2025 (GSPO, eqs. 7 and 14). To be averaged within each sequence: the gradient of a sequence is
    then `-s A · mean ∇ logp`.
    """
    mean_T = sequence_mean((logp_T - old_logp_T).detach(), sequences_T).clamp(-_FAR, _FAR)
    ratio_T = torch.exp(mean_T + logp_T - logp_T.detach())
    return _clipped(ratio_T, advantage_T, clip_low, clip_high, 0.0)


def cispo(
    logp_T: Tensor, old_logp_T: Tensor, advantage_T: Tensor, *, clip_low: float, clip_high: float
) -> tuple[Tensor, Tensor]:
    """`-sg[clip(r, 1 - clip_low, 1 + clip_high)] · A · logp`: the weight is clipped, never the gradient.

    MiniMax 2025 (CISPO, eq. 4). `clip_high` is a distance from 1, as in every loss here; a library that wants
    the bound itself calls 0.28 here 1.28.
    """
    bounded_T = _ratio(logp_T, old_logp_T).detach().clamp(1 - clip_low, 1 + clip_high)
    return -bounded_T * advantage_T * logp_T, torch.zeros_like(logp_T, dtype=torch.bool)


def dppo_tv(
    logp_T: Tensor,
    sampler_logp_T: Tensor,
    advantage_T: Tensor,
    *,
    clip_low: float,
    clip_high: float,
    kl_weight: float = 1e-3,
) -> tuple[Tensor, Tensor]:
    """`-r A · keep + kl_weight · log² r`: a token is dropped when its *probability* has moved away from the
    sampler's by more than `clip_high` (up, with A > 0) or `clip_low` (down, with A < 0).

    Qi et al. 2026 (DPPO, total-variation form), with the quadratic KL towards the sampler of prime-rl. The
    ratio is to the sampler. A dropped token keeps its KL term.
    """
    difference_T = (logp_T - sampler_logp_T).clamp(-_FAR, _FAR)
    moved_T = (logp_T.exp() - sampler_logp_T.exp()).detach()
    dropped_T = ((advantage_T > 0) & (moved_T > clip_high)) | ((advantage_T < 0) & (moved_T < -clip_low))
    gain_T = torch.where(dropped_T, 0.0, torch.exp(difference_T) * advantage_T)
    return -gain_T + kl_weight * difference_T.square(), dropped_T


def reinforce(logp_T: Tensor, advantage_T: Tensor) -> tuple[Tensor, Tensor]:
    """`-A · logp`. Williams 1992; for samples of the present policy, or with a correction of the sampler."""
    return -advantage_T * logp_T, torch.zeros_like(logp_T, dtype=torch.bool)


def kl(logp_T: Tensor, reference_logp_T: Tensor, estimator: KLEstimator) -> Tensor:
    """KL(policy || reference) from samples of the policy, with `d = logp - reference_logp` (Schulman 2020):

        k1   d                    unbiased; as a loss its gradient is 0 in expectation
        k2   d² / 2               biased value, unbiased gradient
        k3   exp(-d) + d - 1      unbiased value of low variance, gradient of the *other* KL
        k3+  the value of k3 with the gradient of k2

    On the gradients: Tang and Munos 2025. `d` is clamped to ±20, and k3, whose
    gradient grows with its value, to at most 10.
    """
    d_T = (logp_T - reference_logp_T).clamp(-_FAR, _FAR)
    if estimator == "k1":
        return d_T
    k2_T, k3_T = d_T.square() / 2, torch.exp(-d_T) + d_T - 1
    if estimator == "k2":
        return k2_T
    return k3_T.clamp(max=_MOST) if estimator == "k3" else k2_T + (k3_T - k2_T).detach()


def kl_off_policy(
    logp_T: Tensor, sampler_logp_T: Tensor, reference_logp_T: Tensor, estimator: KLEstimator
) -> Tensor:
    """`kl` from samples of another policy, weighted by `w = π / π_sampler` (DeepSeek-V3.2, 2025, eq. 7).

    For k1 and k3 the gradient runs through `w` too: the estimate is then the KL itself as a function of the
    policy, and so its gradient is right on and off policy. k2 and k3+ already carry the gradient in their
    own slope, and `w` only weighs it.
    """
    weight_T = _ratio(logp_T, sampler_logp_T)
    live = estimator in ("k1", "k3")
    return (weight_T if live else weight_T.detach()) * kl(logp_T, reference_logp_T, estimator)


def sampler_weights(
    trainer_logp_T: Tensor,
    sampler_logp_T: Tensor,
    sequences_T: Tensor,
    *,
    level: Level,
    mode: Mode,
    low: float,
    high: float,
) -> Tensor:
    """Importance weights `w = π_trainer / π_sampler` for the policy term, without gradient.

        token           w of each token               unbiased in the token, blind to the state's drift
        sequence-sum    exp Σ log w of the sequence   the exact weight; its spread grows with the length
        sequence-mean   exp mean log w                its geometric mean a token; does not decay with length

    `truncate` clamps w to [low, high] (TIS, Yao et al. 2025); `mask` gives 0 to what lies outside (IcePop,
    Ling team 2025; on sequence means, the geometric sequence mask).
    """
    log_T = (trainer_logp_T - sampler_logp_T).detach()
    if level == "sequence-sum":
        log_T = _sequence_sum(log_T, sequences_T)[sequences_T]
    elif level == "sequence-mean":
        log_T = sequence_mean(log_T, sequences_T)
    weight_T = torch.exp(log_T.clamp(-_FAR, _FAR))
    if mode == "truncate":
        return weight_T.clamp(low, high)
    return torch.where((weight_T >= low) & (weight_T <= high), weight_T, 0.0)


def value_clip(value_T: Tensor, old_value_T: Tensor, return_T: Tensor, *, clip: float) -> tuple[Tensor, Tensor]:
    """`½ max((V - R)², (clip(V, V_old ± clip) - R)²)`: a critic that has moved by more than `clip` learns no
    further in that direction. `clip` 0: plain squared error.

    Schulman et al. 2017, as OpenAI's code has it (Huang et al. 2022, detail 9).
    """
    free_T = (value_T - return_T).square() / 2
    if clip == 0:
        return free_T, torch.zeros_like(free_T, dtype=torch.bool)
    near_T = old_value_T + (value_T - old_value_T).clamp(-clip, clip)
    held_T = (near_T - return_T).square() / 2
    return torch.maximum(free_T, held_T), held_T > free_T


def sequence_mean(values_T: Tensor, sequences_T: Tensor) -> Tensor:
    """Each token's value replaced by the mean over its sequence."""
    count_N = _sequence_sum(torch.ones_like(values_T), sequences_T)
    return (_sequence_sum(values_T, sequences_T) / count_N.clamp(min=1))[sequences_T]


def _sequence_sum(values_T: Tensor, sequences_T: Tensor) -> Tensor:
    sequences = int(sequences_T.max()) + 1 if len(sequences_T) else 0
    return values_T.new_zeros(sequences).index_add(0, sequences_T, values_T)


def _ratio(logp_T: Tensor, old_logp_T: Tensor) -> Tensor:
    return torch.exp((logp_T - old_logp_T).clamp(-_FAR, _FAR))


def _clipped(
    ratio_T: Tensor, advantage_T: Tensor, clip_low: float, clip_high: float, dual_clip: float
) -> tuple[Tensor, Tensor]:
    free_T = ratio_T * advantage_T
    held_T = ratio_T.clamp(1 - clip_low, 1 + clip_high) * advantage_T
    gain_T, clipped_T = torch.minimum(free_T, held_T), held_T < free_T
    if dual_clip:
        floor_T = dual_clip * advantage_T
        sunk_T = (advantage_T < 0) & (gain_T < floor_T)
        gain_T, clipped_T = torch.where(sunk_T, floor_T, gain_T), clipped_T | sunk_T
    return -gain_T, clipped_T
