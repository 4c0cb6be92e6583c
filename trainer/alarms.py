"""Alarms: signs that a run is going wrong, each with a sentence on what it usually means.

An alarm is raised once, when its condition has held for `patience` steps in a row, and again only after it was
over. Those named in `stop` end the run; the others warn.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from vertigym.core.config import Config

Kind = Literal["mismatch", "entropy", "no_reward", "no_variance", "length"]


class AlarmConfig(Config):
    """When an alarm is raised."""

    patience: int = Field(3, ge=1, description="steps in a row")
    mismatch: float = Field(0.01, gt=0, description="KL between sampler and trainer above this")
    entropy: float = Field(0.005, ge=0, description="mean entropy a token below this, nats")
    length: float = Field(3.0, gt=1, description="answers this many times as long as in the first step")
    stop: tuple[Kind, ...] = Field((), description="alarms that end the run")


_MEANING: dict[Kind, str] = {
    "mismatch": "sampler and trainer disagree about the same tokens (another dtype, another temperature, stale "
    "weights): use rollout.dtype float32 or a sampler correction",
    "entropy": "the policy has stopped exploring: lower the learning rate, or raise the entropy bonus",
    "no_reward": "no sample earns anything (tasks too hard for this model, or a format the verifier refuses): "
    "look at the rollouts, and warm-start it",
    "no_variance": "every group scores alike, so nothing is learnt (tasks too easy or too hard): change their "
    "mix, or raise rollout.group_size",
    "length": "answers run away in length (reward or normaliser favours long ones, or the end of turn is not "
    "learnt): shape overlong answers, or lower rollout.max_tokens",
}


@dataclass(slots=True)
class Alarms:
    """Watches the metrics of a run, step by step."""

    config: AlarmConfig
    _held: dict[Kind, int] = field(default_factory=dict)
    _first_length: float = 0.0

    def watch(self, metrics: Mapping[str, float]) -> dict[Kind, str]:
        """The alarms raised at this step, each with its figure and meaning."""
        raised: dict[Kind, str] = {}
        self._first_length = self._first_length or metrics.get("completion_tokens", 0.0)
        for kind, figure in self._figures(metrics).items():
            self._held[kind] = self._held.get(kind, 0) + 1 if figure else 0
            if self._held[kind] == self.config.patience:
                raised[kind] = f"{kind}: {figure} for {self.config.patience} steps: {_MEANING[kind]}"
        return raised

    def _figures(self, metrics: Mapping[str, float]) -> dict[Kind, str]:
        """Each alarm's figure where its condition holds, else nothing."""
        config = self.config
        kl, entropy = metrics.get("sampler_kl", 0.0), metrics.get("entropy", float("inf"))
        reward, varied = metrics.get("reward", 1.0), metrics.get("groups_with_variance", 1.0)
        grown = metrics.get("completion_tokens", 0.0) / max(self._first_length, 1.0)
        return {
            "mismatch": f"KL {kl:.4f}" if kl > config.mismatch else "",
            "entropy": f"entropy {entropy:.4f}" if entropy < config.entropy else "",
            "no_reward": "mean reward 0" if reward == 0 else "",
            "no_variance": "no group with variance" if varied == 0 and reward != 0 else "",
            "length": f"{grown:.1f} times the first length" if grown > config.length else "",
        }
