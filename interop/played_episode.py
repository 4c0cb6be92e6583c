"""One episode of an environment of ours, played by another program's loop.

The caller brings what the model wrote and takes the messages to show it next; in the end there is a score,
`value` None where the environment or its verifier failed. An environment's random numbers are the task's own,
those of the first sample of `vertigym eval` with seed 0: every epoch of another program meets the same
opening.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.seeds import derive
from vertigym.core.types import Message, Score, Split, Task
from vertigym.envs import registry
from vertigym.envs.env import Env


class PlayedEpisode:
    """An episode from its opening (`messages`, `tools`) to its `score`, which is there when `over`. `name` is
    the environment's id, a part of the seed."""

    def __init__(self, env: Env, task: Task | str, name: str = "") -> None:
        self._env = env.fresh()
        self.task = env.tasks.get(task) if isinstance(task, str) else task
        self.score: Score | None = None
        self.messages: list[Message] = []
        self.tools: Sequence[Mapping[str, Any]] = ()
        seed = derive(0, "eval", name, self.task.id, 0)
        try:
            _, info = self._env.reset(seed=derive(seed, "env"), options={"task": self.task})
        except Exception as error:  # an environment's fault is no score
            self._fail(error)
        else:
            self.messages, self.tools = info["messages"], info["tools"]

    @property
    def over(self) -> bool:
        """Whether there is a score."""
        return self.score is not None

    def step(self, action: str) -> list[Message]:
        """Play what the model wrote; the messages that the environment answers with."""
        before = len(self.messages) + 1  # what the model wrote is a message, too
        try:
            *_, info = self._env.step(action)
        except Exception as error:
            self._fail(error)
            return []
        self.messages, self.score = info["messages"], info["score"]
        return self.messages[before:]

    def end(self) -> Score:
        """The score; where the other program has stopped before the end, what the turn limit would give."""
        if self.score is None:
            try:
                self.score = self._env.close_episode()
            except Exception as error:
                self._fail(error)
        assert self.score
        return self.score

    def _fail(self, error: Exception) -> None:
        self.score = Score.unscored(f"environment: {type(error).__name__}: {error}")


def openings(env_id: str, split: Split, limit: int | None = None) -> list[PlayedEpisode]:
    """An episode at its opening for each task of a split, in order, or the first `limit`.

    Raises:
        UnknownNameError: no such environment. ValueError: no task in that split.
    """
    env = registry.make(env_id)
    ids = list(env.tasks.ids(split))[:limit]
    if not ids:
        raise ValueError(f"{env_id} has no tasks in split {split!r}")
    name = registry.spec(env_id).id
    return [PlayedEpisode(env, task, name) for task in ids]


def target_text(task: Task) -> str:
    """The task's answer for people to read; nothing where nobody knows it."""
    if isinstance(task.answer, str):
        return task.answer
    return "" if task.answer is None else json.dumps(task.answer, ensure_ascii=False, default=str)
