"""Environments of other programs, played here as they are there: a seed opens an episode, steps earn rewards.

The one idea: a `ForeignSession` is all that differs between programs. A task is a seed; the score is the sum
of an episode's rewards, as those programs report it. An episode in which no step said a reward, or whose sum
lies outside the range that the environment was told, is not scored. What is no action costs a turn, and is
answered with what is one; an episode that runs out of turns that way earns the least, or nonsense would be
worth more than steps that cost.
"""

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import derive
from vertigym.core.types import SPLITS, Message, Score, Split, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import GeneratedTasks

_SPLIT_SEEDS = 1_000_000  # how far the seeds of two splits lie apart


@dataclass(frozen=True, slots=True)
class Observed:
    """What a program shows next, and what the step earned: `reward` None where it does not say."""

    messages: Sequence[Message]
    reward: float | None = None
    done: bool = False
    tools: Sequence[Mapping[str, Any]] = ()


class ForeignSession(Protocol):
    """One episode of another program's environment."""

    def open(self, seed: int) -> Observed:
        """Begin an episode.

        Raises:
            InfrastructureError: the program cannot be reached, or failed.
        """
        ...

    def step(self, action: str) -> Observed:
        """Play what the model wrote.

        Raises:
            ValueError: it is no action; says what is. InfrastructureError: as `open`.
        """
        ...

    def close(self) -> None:
        """Let the program go."""
        ...


def drawn_split(key: str, eval_share: float, test_share: float) -> Split:
    """The split of a task whose source has none, by the task's own words."""
    drawn = derive("split", key) / 2**63
    return "eval" if drawn < eval_share else "test" if drawn < eval_share + test_share else "train"


def score_within(value: float, limits: tuple[float, float], parts: Mapping[str, float]) -> Score:
    """The score that a program gives; none where it is outside of what the environment was told."""
    low, high = limits
    if not low <= value <= high:
        return Score.unscored(f"the reward is {value:g}, outside [{low:g}, {high:g}]: say low= and high=")
    return Score(value, parts)


class ForeignEnv(Env):
    """Episodes of `connect()`, a session each. `sizes`: how many seeds a split has; `low`, `high`: what a score
    can be; `parallel`: how many sessions step side by side; `sessions`: how many may be open, 0 any number."""

    def __init__(
        self,
        connect: Callable[[], ForeignSession],
        *,
        sizes: Mapping[Split, int],
        turns: int,
        low: float = 0.0,
        high: float = 1.0,
        parallel: int = 1,
        sessions: int = 0,
    ) -> None:
        if not low < high or turns < 1 or min(sessions, *sizes.values()) < 0:
            raise ConfigError(
                f"low ({low}) < high ({high}), turns ({turns}) ≥ 1, sessions and sizes ≥ 0, please"
            )
        super().__init__(GeneratedTasks(lru_cache(maxsize=None)(self._made), sizes))
        self.max_turns, self.ranges = turns, {"score": (low, high)}
        self.parallel_steps, self.most_episodes = min(parallel, sessions or parallel), sessions or None
        self._connect = connect
        self._session: ForeignSession | None = None
        self._end: Callable[[], object] | None = None
        self._rewards: list[float] = []
        self._unread = False

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """End the last episode before the task is drawn: that takes a session, too."""
        self.close()
        return super().reset(seed=seed, options=options)

    def begin(self, task: Task) -> Sequence[Message]:
        """Open the program's episode of the task's seed."""
        self._session, self._rewards, self._unread = self._connect(), [], False
        self._end = weakref.finalize(self, self._session.close)
        seen = self._session.open(task.info["seed"])
        self.tools = seen.tools
        return seen.messages

    def respond(self, action: str) -> Turn:
        """Play the step; the sum of the rewards at the end."""
        assert self._session
        try:
            seen = self._session.step(action)
        except ValueError as error:
            self._unread = True
            return Turn(messages=[{"role": "user", "content": f"That is no action: {error}"}])
        self._rewards += [] if seen.reward is None else [seen.reward]
        score = self._sum() if seen.done else None
        return Turn(messages=seen.messages, score=score, reward=seen.reward or 0.0)

    def close_episode(self) -> Score:
        """The sum of the rewards so far; the least where turns went to what is no action."""
        if self._unread:
            self.close()
            return Score(
                self.ranges["score"][0], {}, {"reason": f"no end, and no action, in {self.max_turns} turns"}
            )
        return self._sum()

    def _sum(self) -> Score:
        self.close()
        if not self._rewards:
            return Score.unscored("no step said a reward")
        return score_within(sum(self._rewards), self.ranges["score"], {"steps": float(len(self._rewards))})

    def fresh(self) -> "ForeignEnv":
        """Another instance, with a session of its own."""
        other = super().fresh()
        assert isinstance(other, ForeignEnv)
        other._session = other._end = None
        return other

    def close(self) -> None:
        """Let the program go."""
        if self._end:
            self._end()
        self._session = self._end = None

    def _made(self, split: Split, index: int) -> Task:
        """The task of a seed, its opening as the prompt."""
        seed = SPLITS.index(split) * _SPLIT_SEEDS + index
        other = self.fresh()
        try:
            opened = other.begin(Task(id="", prompt="", info={"seed": seed}))
        finally:
            other.close()
        return Task(id=f"{split}-{index}", prompt=tuple(opened), info={"seed": seed}, split=split)
