"""A few of a step's rollouts, chosen to be looked at: the best, the worst and some between.

Numbers do not show what a policy has learnt to write; these do, in `vertigym report` and in wandb.
"""

from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

from rich.table import Table
from rich.text import Text

COLUMNS = ("task", "reward", "advantage", "tokens", "ended", "asked", "wrote")
_WIDTH = 300  # characters of a text


@dataclass(frozen=True, slots=True)
class RolloutSample:
    """One rollout. `asked` is the last thing said to the policy before its last reply; `reward` is None where
    it could not be scored."""

    task: str
    reward: float | None
    advantage: float
    tokens: int
    ended: str
    asked: str
    wrote: str

    def cells(self) -> tuple[Any, ...]:
        """In the order of COLUMNS."""
        return astuple(self)


def pick_samples(rollouts: Sequence[dict[str, Any]], count: int = 4) -> list[RolloutSample]:
    """At most `count` rows of a rollouts file, evenly over their rewards, the best first."""
    scored = sorted(rollouts, key=_by_reward)
    if len(scored) > count:
        scored = [scored[i * (len(scored) - 1) // (count - 1)] for i in range(count)]
    return [_sample_of(row) for row in reversed(scored)]


def samples_table(samples: Sequence[RolloutSample]) -> Table:
    """For a terminal."""
    table = Table(box=None, pad_edge=False, show_header=False)
    for row in samples:
        reward = "not scored" if row.reward is None else f"reward {row.reward:.2f}"
        about = f"{reward}, advantage {row.advantage:+.2f}, {row.tokens} tokens, {row.ended}, task {row.task}"
        for name, text in (("", about), ("asked", row.asked), ("wrote", row.wrote)):
            table.add_row(name, Text(text))
    return table


def _by_reward(row: dict[str, Any]) -> tuple[float, float, str]:
    value = row["score"]["value"]
    return (float("-inf") if value is None else value, row["advantage"], row["task_id"])


def _sample_of(row: dict[str, Any]) -> RolloutSample:
    roles = [message["role"] for message in row["messages"]]
    last = len(roles) - 1 - roles[::-1].index("assistant") if "assistant" in roles else len(roles)
    texts = [message["content"] for message in row["messages"]]
    return RolloutSample(
        task=row["task_id"],
        reward=row["score"]["value"],
        advantage=row["advantage"],
        tokens=row["completion_tokens"],
        ended=row["stop_reason"],
        asked=_shortened(texts[last - 1]) if last else "",
        wrote=_shortened(texts[last]) if last < len(texts) else "",
    )


def _shortened(text: str) -> str:
    """Its end, where a question usually stands."""
    return text if len(text) <= _WIDTH else f"…{text[-_WIDTH:]}"
