"""Alarms: signs that a run is going wrong, each with its figures, what it usually means and what to change.

An alarm is raised once, when its condition has held for `patience` steps in a row, and again only after it was
over. Those named in `stop` end the run; the others warn.

The one idea of the early ones: a policy that learns loses variety (entropy, groups whose samples score
differently) only as fast as it gains reward. What falls faster than the reward that is left to gain is lost to
collapse, and that shows while most of it is still there (docs/recipes.md has recorded runs of both kinds).
"""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import fmean
from typing import Literal

from pydantic import Field

from vertigym.core.config import Config

Kind = Literal["mismatch", "drift", "entropy", "collapse", "no_reward", "no_variance", "truncated", "length"]


class AlarmConfig(Config):
    """When an alarm is raised."""

    patience: int = Field(3, ge=1, description="steps in a row")
    mismatch: float = Field(0.01, gt=0, description="KL between sampler and trainer above this")
    drift: float = Field(1.0, gt=0, description="KL from the starting model above this, nats a token")
    entropy: float = Field(0.005, ge=0, description="mean entropy a token below this, nats")
    fall: float = Field(
        0.6,
        ge=0,
        lt=1,
        description="entropy or groups_with_variance below this share of its best, beyond what the gain in "
        "reward explains; 0: never",
    )
    truncated: float = Field(0.1, gt=0, description="share of answers cut off, above the first step's by this")
    length: float = Field(3.0, gt=1, description="answers this many times as long as in the first step")
    stop: tuple[Kind, ...] = Field((), description="alarms that end the run")


@dataclass(frozen=True, slots=True)
class Knobs:
    """What a run's config says now of the keys that an alarm may advise to change."""

    lr: float = 0.0
    entropy: float = 0.0
    group_size: int = 0
    max_tokens: int = 0


_EXPLORING = (
    "the policy stops exploring before it has learnt: lower optimizer.lr (now {lr:g}; try {lower:g}), raise "
    "policy.entropy (now {entropy:g}; try {higher:g}), and go on from a checkpoint before the fall"
)
_MEANING: dict[Kind, str] = {
    "mismatch": "sampler and trainer disagree about the same tokens (another dtype, another temperature, stale "
    'weights), or one step moves the policy far: rollout.dtype = "float32", policy.ratio_to = "trainer" with a '
    "policy.correction, or a lower optimizer.lr (now {lr:g})",
    "drift": "the policy runs away from the model it started as: lower optimizer.lr (now {lr:g}; try "
    "{lower:g}) or raise policy.kl",
    "entropy": _EXPLORING,
    "collapse": "samples of one task become alike faster than they become right, and " + _EXPLORING,
    "no_reward": "no sample earns anything (tasks too hard for this model, or a format the verifier refuses): "
    "look at the rollouts, and warm-start it",
    "no_variance": "every group scores alike, so nothing is learnt (tasks too easy or too hard): change their "
    "mix, or raise rollout.group_size (now {group_size})",
    "truncated": "more and more answers are cut off, and score as failures: raise rollout.max_tokens (now "
    "{max_tokens}), set policy.overlong, or warm-start the model on answers that end",
    "length": "answers run away in length (reward or normaliser favours long ones, or the end of turn is not "
    "learnt): set policy.overlong, or lower rollout.max_tokens (now {max_tokens})",
}
_CUT_OFF = 0.5  # share of answers cut off that is too much whatever the first step's
_SOLVED = 0.9  # share of the best reward at which nothing need vary any more


@dataclass(slots=True)
class Alarms:
    """Watches the metrics of a run, step by step.

    Args:
        knobs: for the advice.
        best: the most that a sample can earn; infinity: unlimited, or not what is learnt from.
    """

    config: AlarmConfig
    knobs: Knobs = Knobs()
    best: float = 1.0
    _held: dict[Kind, int] = field(default_factory=dict)
    _first: dict[str, float] = field(default_factory=dict)
    _peaks: dict[str, "_Peak"] = field(default_factory=dict)

    def watch(self, metrics: Mapping[str, float]) -> dict[Kind, str]:
        """The alarms raised at this step, each with its figures, its meaning and what to change."""
        raised: dict[Kind, str] = {}
        self._first = {**metrics, **self._first}
        for kind, figures in self._figures(metrics).items():
            self._held[kind] = self._held.get(kind, 0) + 1 if figures else 0
            if self._held[kind] == self.config.patience:
                raised[kind] = f"{kind}: {figures} for {self.config.patience} steps: {self._advice(kind)}"
        return raised

    def _advice(self, kind: Kind) -> str:
        knobs = self.knobs
        return _MEANING[kind].format(
            lr=knobs.lr,
            lower=knobs.lr / 4,
            entropy=knobs.entropy,
            higher=2 * knobs.entropy or 0.01,
            group_size=knobs.group_size,
            max_tokens=knobs.max_tokens,
        )

    def _figures(self, metrics: Mapping[str, float]) -> dict[Kind, str]:
        """Each alarm's figures where its condition holds, else nothing."""
        config = self.config
        name = "entropy" if "entropy" in metrics else "sampled_entropy"
        entropy, reward = metrics.get(name, float("inf")), metrics.get("reward", 1.0)
        varied, cut = metrics.get("groups_with_variance", 1.0), metrics.get("truncated", 0.0)
        grown = metrics.get("completion_tokens", 0.0) / max(self._first.get("completion_tokens", 0.0), 1.0)
        too_long = cut > self._first.get("truncated", 0.0) + config.truncated or cut >= _CUT_OFF
        low = f"{name} {entropy:.4f}" if entropy < config.entropy else ""
        return {
            "mismatch": self._above("sampler_kl", metrics, config.mismatch),
            "drift": self._above("kl", metrics, config.drift),
            "entropy": self._fallen(name, metrics) or low,
            "collapse": self._fallen("groups_with_variance", metrics),
            "no_reward": "mean reward 0" if reward == 0 else "",
            "no_variance": "no group with variance" if varied == 0 and reward != 0 else "",
            "truncated": self._change("truncated", metrics) if too_long else "",
            "length": f"{grown:.1f} times the first length" if grown > config.length else "",
        }

    def _above(self, name: str, metrics: Mapping[str, float], limit: float) -> str:
        return self._change(name, metrics) if metrics.get(name, 0.0) > limit else ""

    def _change(self, name: str, metrics: Mapping[str, float]) -> str:
        return f"{name} {self._first[name]:.3g} → {metrics[name]:.3g} since the first step"

    def _fallen(self, name: str, metrics: Mapping[str, float]) -> str:
        """Where a metric is far below its best, and the gain in reward does not explain it."""
        if name not in metrics or "reward" not in metrics:
            return ""
        value, reward = metrics[name], metrics["reward"]
        peak = self._peaks.setdefault(name, _Peak(deque(maxlen=self.config.patience)))
        peak.take(value, reward)
        left, left_then = self.best - reward, self.best - peak.reward
        if not 0 < left < math.inf or reward > _SOLVED * self.best:
            return ""
        explained = min(1.0, left / left_then) if left_then > 0 else 1.0
        if value >= self.config.fall * explained * peak.value:
            return ""
        return (
            f"{name} {peak.value:.3g} → {value:.3g} while reward {peak.reward:.3g} → {reward:.3g} in "
            f"{peak.steps} steps"
        )


@dataclass(slots=True)
class _Peak:
    """The best mean of a few neighbouring values of a metric, the reward then, and the steps since."""

    recent: deque[tuple[float, float]]
    value: float = 0.0
    reward: float = 0.0
    steps: int = 0

    def take(self, value: float, reward: float) -> None:
        """Add a step."""
        self.recent.append((value, reward))
        self.steps += 1
        mean = fmean(value for value, _ in self.recent)
        if len(self.recent) == self.recent.maxlen and mean > self.value:
            self.value, self.reward, self.steps = mean, fmean(reward for _, reward in self.recent), 0
