"""Every cell of advantage × loss × normaliser × KL: value and gradient against a slow, obvious reference.

The reference is plain Python over lists of sequences in float64, with autograd only for the log-probs. It
shares no code with the trainer.
"""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.learner.batch import Batch
from vertigym.learner.config import PolicyConfig
from vertigym.learner.objective import policy_loss, token_advantages, token_weights
from vertigym.learner.registry import EpisodeRewards
from vertigym.learner.samples import TokenColumns

ADVANTAGES = ["grpo", "grpo-no-std", "rloo", "reinforce++", "maxrl", "gdpo", "gae"]
LOSSES = ["ppo_clip", "gspo", "cispo", "dppo_tv", "reinforce"]
NORMALIZERS = ["token", "sequence", "constant"]
KLS = ["none", "k1", "k2", "k3", "k3+", "k2 plain", "k3 plain", "k3+ plain", "k1 reward", "k3 reward"]
LENGTHS = [3, 1, 3, 2, 2, 4, 1, 2]
GROUPS = [0, 0, 0, 0, 1, 1, 1, 1]
PARTS = {"exact": 1.0, "fields": 0.5}
KL, ENTROPY = 0.3, 0.05


def config(advantage: str, loss: str, normalizer: str, kl: str, **more: Any) -> PolicyConfig:
    table: dict[str, Any] = {"loss": loss, "normalizer": normalizer, "entropy": ENTROPY, "gamma": 0.9}
    table |= {"advantage": advantage.removesuffix("-no-std"), "std_scale": advantage == "grpo"}
    if advantage == "gdpo":
        table["parts"] = PARTS
    if normalizer == "constant":
        table["normalizer_length"] = 7
    if kl != "none":
        estimator, _, where = kl.partition(" ")
        table |= {"kl": KL, "kl_estimator": estimator, "kl_corrected": where != "plain"}
        table |= {"kl_in": "reward" if where == "reward" else "loss"}
    return parse(PolicyConfig, table | more, source="test")


class Data:
    """Eight sequences of two tasks, off policy: log-probs now, old, of the sampler and of the reference."""

    def __init__(self, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)

        def noise(scale: float, centre: float = 0.0) -> list[list[float]]:
            return [
                (centre + scale * torch.randn(n, generator=generator, dtype=torch.float64)).tolist()
                for n in LENGTHS
            ]

        self.sampler = [[min(-0.05, x) for x in row] for row in noise(0.6, -1.2)]
        self.logp = [plus(a, b) for a, b in zip(self.sampler, noise(0.5), strict=True)]
        self.old = [plus(a, b) for a, b in zip(self.sampler, noise(0.2), strict=True)]
        self.reference = [plus(a, b) for a, b in zip(self.sampler, noise(0.4), strict=True)]
        self.values = noise(0.5)
        self.entropy = [[abs(x) for x in row] for row in noise(1.0)]
        self.scores = [1.0, 0.0, 0.3, 0.6, 0.2, 0.2, 0.9, 0.0]
        self.parts = [
            [1.0, 1.0],
            [0.0, 0.5],
            [0.0, 0.2],
            [1.0, 0.4],
            [0.0, 0.1],
            [1.0, 0.0],
            [1.0, 1.0],
            [0, 0.5],
        ]
        self.rewards = [[0.0] * (n - 1) + [score] for n, score in zip(LENGTHS, self.scores, strict=True)]


def plus(a: list[float], b: list[float]) -> list[float]:
    return [min(-0.01, x + y) for x, y in zip(a, b, strict=True)]


# The reference.


def reference(cfg: PolicyConfig, data: Data) -> tuple[float, list[list[float]]]:
    """The loss, and its gradient with respect to every log-prob."""
    logp = [[torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in row] for row in data.logp]
    advantage = slow_advantages(cfg, data)
    old = data.old if cfg.ratio_to == "trainer" else data.sampler
    total: Any = 0.0
    for i in range(len(LENGTHS)):
        divisor = {
            "token": sum(LENGTHS),
            "sequence": LENGTHS[i] * len(LENGTHS),
            "constant": cfg.normalizer_length * len(LENGTHS),
        }[cfg.normalizer]
        for t in range(LENGTHS[i]):
            term = slow_correction(cfg, data, i, t) * slow_term(cfg, logp[i], old[i], advantage[i][t], t)
            if cfg.kl and cfg.kl_in == "loss":
                term = term + cfg.kl * slow_kl(cfg, logp[i][t], data.sampler[i][t], data.reference[i][t])
            total = total + term / divisor - cfg.entropy * data.entropy[i][t] / sum(LENGTHS)
    total.backward()
    return total.item(), [[0.0 if x.grad is None else float(x.grad) for x in row] for row in logp]


def slow_term(cfg: PolicyConfig, logp: list[Tensor], old: list[float], advantage: float, t: int) -> Any:
    ratio = torch.exp(logp[t] - old[t])
    if cfg.loss == "reinforce":
        return -advantage * logp[t]
    if cfg.loss == "cispo":
        bounded = min(max(ratio.item(), 1 - cfg.clip_low), 1 + cfg.clip_high)
        return -bounded * advantage * logp[t]
    if cfg.loss == "dppo_tv":
        moved = math.exp(logp[t].item()) - math.exp(old[t])
        drop = (advantage > 0 and moved > cfg.clip_high) or (advantage < 0 and moved < -cfg.clip_low)
        return (0.0 if drop else -ratio * advantage) + 1e-3 * (logp[t] - old[t]) ** 2
    if cfg.loss == "gspo":
        mean = sum(a.item() - b for a, b in zip(logp, old, strict=True)) / len(old)
        ratio = math.exp(mean) * torch.exp(logp[t] - logp[t].item())
    low, high = 1 - cfg.clip_low, 1 + cfg.clip_high
    held = ratio if low <= ratio.item() <= high else ratio.new_tensor(low if ratio.item() < low else high)
    worse = ratio if ratio.item() * advantage <= held.item() * advantage else held
    loss = -worse * advantage
    if cfg.loss == "ppo_clip" and advantage < 0 and loss.item() > -cfg.dual_clip * advantage:
        return ratio.new_tensor(-cfg.dual_clip * advantage)
    return loss


def slow_kl(cfg: PolicyConfig, logp: Tensor, sampler: float, ref: float) -> Any:
    d = logp - ref
    k2, k3 = d * d / 2, torch.exp(-d) + d - 1
    value = {"k1": d, "k2": k2, "k3": k3, "k3+": k2 + k3.item() - k2.item()}[cfg.kl_estimator]
    if not cfg.kl_corrected:
        return value
    weight = torch.exp(logp - sampler)
    return (weight if cfg.kl_estimator in ("k1", "k3") else weight.item()) * value


def slow_correction(cfg: PolicyConfig, data: Data, i: int, t: int) -> float:
    if cfg.correction == "none":
        return 1.0
    logs = [a - b for a, b in zip(data.old[i], data.sampler[i], strict=True)]
    log = {"token": logs[t], "sequence-sum": sum(logs), "sequence-mean": sum(logs) / len(logs)}[cfg.correction]
    weight = math.exp(log)
    if cfg.correction_mode == "truncate":
        return min(max(weight, cfg.correction_low), cfg.correction_high)
    return weight if cfg.correction_low <= weight <= cfg.correction_high else 0.0


def token_rewards(cfg: PolicyConfig, data: Data) -> list[list[float]]:
    """Rewards a token, with the KL taken off where it is part of them."""
    if not cfg.kl or cfg.kl_in == "loss":
        return data.rewards
    rows = []
    for i in range(len(LENGTHS)):
        d = [a - b for a, b in zip(data.sampler[i], data.reference[i], strict=True)]
        cost = [{"k1": x, "k3": math.exp(-x) + x - 1}[cfg.kl_estimator] for x in d]
        rows.append([r - cfg.kl * c for r, c in zip(data.rewards[i], cost, strict=True)])
    return rows


def mean_std(values: list[float]) -> tuple[float, float]:
    mean = sum(values) / len(values)
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))


def whitened(rows: list[list[float]]) -> list[list[float]]:
    mean, std = mean_std([x for row in rows for x in row])
    return [[(x - mean) / (std + 1e-6) for x in row] for row in rows]


def slow_advantages(cfg: PolicyConfig, data: Data) -> list[list[float]]:
    rewards = token_rewards(cfg, data)
    if cfg.advantage == "gae":
        rows = []
        for row, values in zip(rewards, data.values, strict=True):
            advantage, value, found = 0.0, 0.0, []
            for reward, here in zip(row[::-1], values[::-1], strict=True):
                advantage = reward + cfg.gamma * value - here + cfg.gamma * cfg.lam * advantage
                value = here
                found.append(advantage)
            rows.append(found[::-1])
        return whitened(rows)
    if cfg.advantage == "reinforce++":
        returns = [
            [sum(cfg.gamma ** (k - t) * row[k] for k in range(t, len(row))) for t in range(len(row))]
            for row in rewards
        ]
        return whitened(returns)
    totals = [sum(row) for row in rewards]
    if cfg.advantage == "gdpo":
        columns = [group_scaled([p[k] for p in data.parts]) for k in range(2)]
        weights = list(cfg.parts.values())
        summed = [weights[0] * a + weights[1] * b for a, b in zip(*columns, strict=True)]
        single = whitened([[x] for x in summed])
        return [[row[0]] * n for row, n in zip(single, LENGTHS, strict=True)]
    found = []
    for i, total in enumerate(totals):
        group = [totals[j] for j in range(len(totals)) if GROUPS[j] == GROUPS[i]]
        others = [totals[j] for j in range(len(totals)) if GROUPS[j] == GROUPS[i] and j != i]
        mean, std = mean_std(group)
        scaled = (total - mean) / (std + 1e-6) if cfg.std_scale else total - mean
        found.append(
            {"grpo": scaled, "rloo": total - sum(others) / len(others), "maxrl": (total - mean) / mean}[
                cfg.advantage
            ]
        )
    return [[a] * n for a, n in zip(found, LENGTHS, strict=True)]


def group_scaled(values: list[float]) -> list[float]:
    scaled = []
    for i, value in enumerate(values):
        mean, std = mean_std([values[j] for j in range(len(values)) if GROUPS[j] == GROUPS[i]])
        scaled.append((value - mean) / (std + 1e-6))
    return scaled


# What the trainer does with the same numbers.


def flat(rows: list[list[float]]) -> Tensor:
    return torch.tensor([x for row in rows for x in row], dtype=torch.float64)


def trainers(cfg: PolicyConfig, data: Data) -> tuple[float, list[list[float]]]:
    lengths_N = torch.tensor(LENGTHS)
    sequences_T = torch.arange(len(LENGTHS)).repeat_interleave(lengths_N)
    gain = EpisodeRewards(
        flat(token_rewards(cfg, data)),
        sequences_T,
        torch.tensor(GROUPS),
        torch.tensor(data.parts, dtype=torch.float64) if cfg.advantage == "gdpo" else None,
        flat(data.values) if cfg.advantage == "gae" else None,
    )
    columns = TokenColumns(
        advantage=token_advantages(cfg, gain)[0],
        weight=token_weights(cfg, lengths_N)[sequences_T],
        sampler_logp=flat(data.sampler),
    )
    if cfg.ratio_to == "trainer":
        columns.trainer_logp = flat(data.old)
    if cfg.kl and cfg.kl_in == "loss":
        columns.reference_logp = flat(data.reference)
    empty = torch.zeros(0, dtype=torch.long)
    batch = Batch(empty, empty, empty, sequences_T, columns)
    logp_T = flat(data.logp).requires_grad_()
    total, _ = policy_loss(cfg)(logp_T, flat(data.entropy), batch)
    loss = total / sum(LENGTHS)
    loss.backward()
    assert logp_T.grad is not None
    return loss.item(), [part.tolist() for part in logp_T.grad.split(LENGTHS)]


def assert_equal(cfg: PolicyConfig, data: Data) -> None:
    (value, gradient), (expected, expected_gradient) = trainers(cfg, data), reference(cfg, data)
    assert value == pytest.approx(expected, rel=1e-9, abs=1e-12)
    for row, expected_row in zip(gradient, expected_gradient, strict=True):
        assert row == pytest.approx(expected_row, rel=1e-9, abs=1e-12)


def allowed(advantage: str, loss: str, normalizer: str, kl: str) -> bool:
    if loss == "gspo" and normalizer != "sequence":
        return False
    return not (kl.endswith("reward") and advantage in ("maxrl", "gdpo"))


CELLS = list(itertools.product(ADVANTAGES, LOSSES, NORMALIZERS, KLS))


@pytest.mark.parametrize(("advantage", "loss"), list(itertools.product(ADVANTAGES, LOSSES)))
def test_every_cell_equals_the_reference(advantage: str, loss: str) -> None:
    data = Data()
    for normalizer, kl in itertools.product(NORMALIZERS, KLS):
        if allowed(advantage, loss, normalizer, kl):
            assert_equal(config(advantage, loss, normalizer, kl), data)


def test_every_other_cell_is_refused() -> None:
    others = [cell for cell in CELLS if not allowed(*cell)]
    assert 0 < len(others) < len(CELLS) / 2
    for cell in others:
        with pytest.raises(ConfigError, match=r"\[policy\]"):
            config(*cell)


@pytest.mark.parametrize("mode", ["truncate", "mask"])
@pytest.mark.parametrize("level", ["token", "sequence-sum", "sequence-mean"])
@pytest.mark.parametrize("loss", ["ppo_clip", "gspo", "cispo", "reinforce"])
def test_every_sampler_correction_equals_the_reference(loss: str, level: str, mode: str) -> None:
    more = {"ratio_to": "trainer", "correction": level, "correction_mode": mode}
    for advantage, kl in itertools.product(["grpo", "gae"], ["none", "k3+", "k3"]):
        for bounds in ({}, {"correction_low": 0.8, "correction_high": 1.1}):
            assert_equal(config(advantage, loss, "sequence", kl, **more, **bounds), Data(1))


def test_the_bounds_of_the_clips_are_reached_on_both_sides() -> None:
    """The data must exercise what the cells claim to test."""
    data = Data()
    cfg = config("grpo", "ppo_clip", "token", "none")
    advantages = slow_advantages(cfg, data)
    seen = set()
    for i, t in [(i, t) for i, length in enumerate(LENGTHS) for t in range(length)]:
        ratio = math.exp(data.logp[i][t] - data.sampler[i][t])
        side = "above" if ratio > 1.28 else "below" if ratio < 0.8 else "inside"
        seen.add((side, advantages[i][t] > 0))
    assert seen == set(itertools.product(("above", "below", "inside"), (True, False)))
