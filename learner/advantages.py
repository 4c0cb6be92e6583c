"""Advantages: how much better than expected a sample, or a token, turned out. Pure functions of rewards (and
of a critic's values); which one suits what is in docs/losses.md.

Axes: N samples, G groups (samples of one task), K rewards, T tokens the policy wrote, flat over the batch, in
order. A reward of NaN means *not scored*: the sample is left out of every baseline and gets 0.
"""

import torch
from torch import Tensor

from vertigym.core.errors import InputError

_EPS = 1e-6


def grpo(rewards_N: Tensor, groups_N: Tensor, *, std_scale: bool = True, eps: float = _EPS) -> Tensor:
    """Group-relative advantages `(R - mean) / (std + eps)` over the scored samples of each group.

    Shao et al. 2024 (DeepSeekMath, §4.1.2), with the unbiased std; without `std_scale`, Liu et al. 2025
    (Dr. GRPO). A group with one scored sample has nothing to compare: 0.

    Args:
        rewards_N: float; NaN where not scored.
        groups_N: long, the group of each sample, 0 … G-1.
    """
    count_G, mean_G, std_G = _moments(rewards_N, groups_N)
    advantage_N = rewards_N.nan_to_num(0.0).double() - mean_G[groups_N]
    if std_scale:
        advantage_N = advantage_N / (std_G[groups_N] + eps)
    return _where_comparable(advantage_N, rewards_N, count_G[groups_N])


def rloo(rewards_N: Tensor, groups_N: Tensor) -> Tensor:
    """Leave one out: `R_i - mean of the others = n / (n - 1) · (R_i - mean)`, n the group's scored samples.

    Kool et al. 2019; Ahmadian et al. 2024, eq. 8. A group with one scored sample gives 0.
    """
    count_G, mean_G, _ = _moments(rewards_N, groups_N)
    count_N = count_G[groups_N]
    centred_N = rewards_N.nan_to_num(0.0).double() - mean_G[groups_N]
    return _where_comparable(count_N / (count_N - 1).clamp(min=1) * centred_N, rewards_N, count_N)


def maxrl(rewards_N: Tensor, groups_N: Tensor) -> Tensor:
    """`(R - mean) / mean`: a group's weight grows as its success rate falls, which for rewards of 0 and 1
    follows the likelihood of success instead of the success rate.

    Tajwar et al. 2026 (Maximum likelihood RL). A group whose rewards are all 0, or with one scored sample,
    gives 0.

    Raises:
        InputError: a reward is negative; the division by the mean has no meaning then.
    """
    if bool((rewards_N < 0).any()):
        raise InputError('advantage "maxrl" divides by the mean reward: rewards must not be negative')
    count_G, mean_G, _ = _moments(rewards_N, groups_N)
    mean_N = mean_G[groups_N]
    relative_N = (rewards_N.nan_to_num(0.0).double() - mean_N) / mean_N.where(mean_N > 0, 1.0)
    return _where_comparable(relative_N, rewards_N, count_G[groups_N])


def gdpo(rewards_NK: Tensor, groups_N: Tensor, weights_K: Tensor, *, eps: float = _EPS) -> Tensor:
    """Several rewards, each made comparable before they are summed: `S = Σ_k w_k · grpo(R_k)`, then
    `(S - mean) / (std + eps)` over all comparable samples of the batch.

    Liu et al. 2026 (GDPO). A sum of rewards normalised once would let the reward with the largest spread
    drown the others. A sample is scored where all its rewards are.
    """
    scored_N = ~rewards_NK.isnan().any(1)
    each_NK = rewards_NK.masked_fill(~scored_N[:, None], torch.nan)
    single = [grpo(column_N, groups_N, eps=eps) for column_N in each_NK.unbind(1)]
    sum_N = (torch.stack(single, 1) * weights_K.to(each_NK.dtype)).sum(1)
    counts_N = _moments(each_NK[:, 0], groups_N)[0][groups_N]
    return torch.where(scored_N & (counts_N > 1), whiten(sum_N, scored_N & (counts_N > 1), eps=eps), 0.0)


def reinforce_plus_plus(rewards_T: Tensor, sequences_T: Tensor, *, gamma: float = 1.0) -> Tensor:
    """The discounted return from each token on, `R_t + gamma · R_{t+1} + …` within its sequence, whitened over
    all tokens of the batch.

    Hu 2025 (REINFORCE++). Only tokens that the policy wrote are here, so an observation neither discounts nor
    swallows a later reward.

    Args:
        rewards_T: the reward that came with each token (most are 0).
        sequences_T: long; tokens of one sequence stand together, in order.
    """
    rewards_NS, places = _padded(rewards_T, sequences_T)
    returns_NS = torch.zeros_like(rewards_NS)
    following_N = torch.zeros_like(rewards_NS[:, 0]) if rewards_NS.numel() else rewards_NS
    for t in range(rewards_NS.shape[1] - 1, -1, -1):
        following_N = rewards_NS[:, t] + gamma * following_N
        returns_NS[:, t] = following_N
    return whiten(returns_NS[places])


def gae(
    rewards_T: Tensor,
    values_T: Tensor,
    sequences_T: Tensor,
    *,
    gamma: float = 1.0,
    lam: float = 0.95,
    mask_T: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the tokens the policy wrote.

        δ_t = R_t + gamma · V_next - V_t        A_t = δ_t + gamma · lam · A_next        return_t = A_t + V_t

    `next` is the next token that the policy wrote, however many tokens of an observation stand between (their
    values are carried over, never read); after the last, V and A are 0. Schulman et al. 2016, eq. 16.

    Args:
        rewards_T: the reward that came with each token (most are 0).
        values_T: the critic's estimate before each token, without gradient.
        sequences_T: long; tokens of one sequence stand together, in order.
        mask_T: bool, False for a token the policy did not write, which gets 0 and 0; default: it wrote all.

    Returns:
        `(advantages [T], returns [T])`: what to weigh the policy's tokens with, and what the critic learns.
    """
    written_T = torch.ones_like(sequences_T, dtype=torch.bool) if mask_T is None else mask_T
    rewards_NS, places = _padded(rewards_T, sequences_T)
    values_NS, _ = _padded(values_T, sequences_T)
    written_NS, _ = _padded(written_T, sequences_T)
    advantages_NS = torch.zeros_like(rewards_NS)
    value_N = advantage_N = rewards_NS.new_zeros(rewards_NS.shape[0])
    for t in range(rewards_NS.shape[1] - 1, -1, -1):
        here_N = written_NS[:, t]
        delta_N = rewards_NS[:, t] + gamma * value_N - values_NS[:, t]
        advantage_N = torch.where(here_N, delta_N + gamma * lam * advantage_N, advantage_N)
        value_N = torch.where(here_N, values_NS[:, t], value_N)
        advantages_NS[:, t] = torch.where(here_N, advantage_N, 0.0)
    advantages_T = advantages_NS[places]
    return advantages_T, torch.where(written_T, advantages_T + values_T, 0.0)


def whiten(values_N: Tensor, counted_N: Tensor | None = None, *, eps: float = _EPS) -> Tensor:
    """`(x - mean) / (std + eps)` with the unbiased std over the counted; fewer than two give 0."""
    counted_N = torch.ones_like(values_N, dtype=torch.bool) if counted_N is None else counted_N
    chosen = values_N[counted_N].double()
    if len(chosen) < 2:
        return torch.zeros_like(values_N)
    return ((values_N.double() - chosen.mean()) / (chosen.std() + eps)).to(values_N.dtype)


def overlong(lengths_N: Tensor, *, limit: int, buffer: int) -> Tensor:
    """What to add to a reward for length: 0 up to `limit - buffer` tokens, then linearly down to -1 at `limit`.

    Yu et al. 2025 (DAPO, eq. 13).
    """
    return -((lengths_N.double() - (limit - buffer)) / buffer).clamp(0, 1)


def with_variance(rewards_N: Tensor, groups_N: Tensor) -> Tensor:
    """Bool `[G]`: groups whose scored rewards differ; the others carry no gradient."""
    scored_N = ~rewards_N.isnan()
    groups = int(groups_N.max()) + 1 if len(groups_N) else 0
    low_G = torch.full((groups,), torch.inf, dtype=rewards_N.dtype)
    low_G.scatter_reduce_(0, groups_N[scored_N], rewards_N[scored_N], "amin")
    high_G = torch.full((groups,), -torch.inf, dtype=rewards_N.dtype)
    high_G.scatter_reduce_(0, groups_N[scored_N], rewards_N[scored_N], "amax")
    return high_G > low_G


def _moments(rewards_N: Tensor, groups_N: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and unbiased standard deviation of each group's scored rewards, `[G]` each, in float64."""
    groups = int(groups_N.max()) + 1 if len(groups_N) else 0
    values_N, weight_N = rewards_N.nan_to_num(0.0).double(), (~rewards_N.isnan()).double()
    zero_G = torch.zeros(groups, dtype=torch.float64)
    count_G = zero_G.index_add(0, groups_N, weight_N)
    mean_G = zero_G.index_add(0, groups_N, values_N * weight_N) / count_G.clamp(min=1)
    square_N = (values_N - mean_G[groups_N]).square() * weight_N
    variance_G = zero_G.index_add(0, groups_N, square_N) / (count_G - 1).clamp(min=1)
    return count_G, mean_G, variance_G.sqrt()


def _where_comparable(advantage_N: Tensor, rewards_N: Tensor, count_N: Tensor) -> Tensor:
    """0 where a sample was not scored or stands alone; in the rewards' dtype."""
    return torch.where(~rewards_N.isnan() & (count_N > 1), advantage_N, 0.0).to(rewards_N.dtype)


def _padded(values_T: Tensor, sequences_T: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """One row a sequence, zeros (False) to the right, and the place of each token in it."""
    _, rows_T, counts_N = torch.unique_consecutive(sequences_T, return_inverse=True, return_counts=True)
    starts_N = counts_N.cumsum(0) - counts_N
    columns_T = torch.arange(len(sequences_T)) - starts_N[rows_T]
    padded_NS = values_T.new_zeros(len(counts_N), int(counts_N.max()) if len(counts_N) else 0)
    padded_NS[rows_T, columns_T] = values_T
    return padded_NS, (rows_T, columns_T)
