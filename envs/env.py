"""`Env`: a `gymnasium.Env` whose observations and actions are strings.

A subclass says how an episode opens and how it answers; this class keeps the chat, the turn limit and
gymnasium's contract:

    class Echo(Env):
        max_turns = 3

        def respond(self, action: str) -> Turn:
            if action == "done":
                return Turn(score=Score(1.0))
            return Turn(messages=[{"role": "user", "content": f"you said {action}"}])

One instance plays one episode at a time; a runner makes as many as it needs. The verdict is `info["score"]`
(a Score); the float reward is its value, NaN where the episode could not be scored.
"""

import copy
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from vertigym.core.types import SPLITS, Completion, Decoding, Message, Score, Split, Task
from vertigym.envs.tasks import Tasks
from vertigym.rewards.rubric import Rubric


class AnyText(gymnasium.Space[str]):
    """Every string. (`gymnasium.spaces.Text` wants a closed character set; models know no such thing.)"""

    def __init__(self, seed: int | np.random.Generator | None = None) -> None:
        super().__init__(dtype=str, seed=seed)

    def sample(self, mask: Any | None = None, probability: Any | None = None) -> str:
        """Up to 32 printable ASCII characters."""
        return "".join(chr(c) for c in self.np_random.integers(32, 127, size=self.np_random.integers(0, 33)))

    def contains(self, x: Any) -> bool:
        """Whether `x` is a string."""
        return isinstance(x, str)

    @property
    def is_np_flattenable(self) -> bool:
        """Text has no fixed-size array form."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnyText)

    __hash__ = None  # type: ignore[assignment]  # gymnasium's spaces are mutable


@dataclass(frozen=True, slots=True)
class Turn:
    """What an environment answers to one action: new messages, or the final score, which ends the episode.
    `chat` is for one that rewrites what was said: the whole chat from here on, in place of the one so far.
    `reward` is for turns before the last; it does not enter the score."""

    messages: Sequence[Message] = ()
    score: Score | None = None
    reward: float = 0.0
    chat: Sequence[Message] | None = None


class Env(gymnasium.Env[str, str]):
    """Base of every environment. Override `respond`, and `begin`, `close_episode` or `tools` where needed."""

    metadata: dict[str, Any] = {"render_modes": []}  # noqa: RUF012 (gymnasium's own annotation)
    max_turns: int = 1
    ranges: Mapping[str, tuple[float, float]] = {}
    parallel_steps: int = (
        1  # how many instances may step side by side (their steps wait on a sandbox, a network)
    )
    most_episodes: int | None = None  # how many may be open at once; None: any number
    tools: Sequence[Mapping[str, Any]] = ()
    place: str = ""  # of the next action among the episode's, where it is not how many came before
    decoding: Decoding = Decoding()  # what the environment asks of the next action's text
    completion: Completion | None = None  # what the next action was read from, where an engine wrote it
    repeatable: bool = True  # the same actions lead to the same place
    answer_form: str = "{}"  # how an answer is written down; `{}` stands for it
    notes: Sequence[str] = ()  # what was left out of the tasks, and why

    def __init__(self, tasks: Tasks) -> None:
        self.tasks = tasks
        self.observation_space = AnyText()
        self.action_space = AnyText()
        self._task: Task | None = None
        self._messages: list[Message] = []
        self._shown: list[Message] = []  # copies, made once a message: what callers get to hold
        self._written: Sequence[Mapping[str, Any]] | None = None  # the tools that `_tools` holds
        self._tools = "[]"  # as JSON, from which callers get their own quickest
        self._turn = 0
        self._over = True

    # What a subclass says.

    def begin(self, task: Task) -> Sequence[Message]:
        """The opening messages; also the place to set up the episode's state (use `self.np_random`)."""
        return task.messages()

    def respond(self, action: str) -> Turn:
        """The answer to what the policy wrote. Must not raise, whatever the text."""
        raise NotImplementedError

    def close_episode(self) -> Score:
        """The score when the turn limit ends the episode."""
        return Score(0.0, {}, {"reason": f"no final answer within {self.max_turns} turns"})

    def reference(self, task: Task) -> Sequence[str] | None:
        """The actions of a perfect episode, in order; None where nobody knows them. The default: the task's
        answer in the environment's form, a string as it is and anything else as JSON."""
        if task.answer is None:
            return None
        text = task.answer if isinstance(task.answer, str) else json.dumps(task.answer, ensure_ascii=False)
        return [self.answer_form.replace("{}", text)]

    def subject(self, task: Task) -> Any:
        """What a task asks about, apart from its words: two tasks about one subject are one task, which belongs
        in one split. None: nothing but the prompt says."""
        return None

    def rules(self) -> Sequence[str]:
        """The rules that its tasks are to reach: those that `info["rules"]` may name, without any that no case
        can hit. Empty: it is not made from rules."""
        return ()

    def fresh(self) -> "Env":
        """Another instance over the same tasks, to be played beside this one. A shallow copy is enough for
        every subclass that sets up its episode in `begin`."""
        return copy.copy(self)

    # What it can ask.

    @property
    def task(self) -> Task:
        """The task of the current episode."""
        if self._task is None:
            raise gymnasium.error.ResetNeeded("call reset() before anything else")
        return self._task

    @property
    def messages(self) -> list[Message]:
        """The chat so far, a copy."""
        return [message.copy() for message in self._messages]

    # Gymnasium's contract.

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Open an episode: on `options["task"]` (an id or a Task), else on a random task of
        `options["split"]` (default train, or the first split that has tasks).

        Raises:
            UnknownNameError: no such task. ValueError: no such split, or it is empty.
        """
        super().reset(seed=seed)
        self._task = self._choose(options or {})
        self._turn, self._over = 0, False
        self._messages, self._shown = [], []
        self._say(self.begin(self._task))
        return self._messages[-1]["content"], self._info(None)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Play one action. The observation is the last new message, empty at the end."""
        if self._over:
            raise gymnasium.error.ResetNeeded("the episode is over: call reset() before step()")
        if not isinstance(action, str):
            raise TypeError(f"an action is a string, got {type(action).__name__}")
        self._turn += 1
        self._say([{"role": "assistant", "content": action}])
        turn = self.respond(action)
        if turn.chat is not None:
            self._messages, self._shown = [], []
        said = [*(turn.chat or ()), *turn.messages]
        self._say(said)
        terminated = turn.score is not None
        truncated = not terminated and self._turn >= self.max_turns
        score = self.close_episode() if truncated else turn.score
        self._over = terminated or truncated
        reward = turn.reward if score is None else float("nan") if score.value is None else score.value
        observation = said[-1]["content"] if said else ""
        return observation, reward, terminated, truncated, self._info(score)

    def _say(self, messages: Sequence[Message]) -> None:
        self._messages += [message.copy() for message in messages]
        self._shown += [message.copy() for message in messages]

    def _info(self, score: Score | None) -> dict[str, Any]:
        if self._written is not self.tools:
            self._written, self._tools = self.tools, json.dumps(self.tools)
        return {
            "task": self.task,
            "messages": list(self._shown),
            "tools": json.loads(self._tools),
            "decoding": self.decoding,
            "place": self.place,
            "score": score,
        }

    def _choose(self, options: Mapping[str, Any]) -> Task:
        task = options.get("task")
        if isinstance(task, Task):
            return task
        if task is not None:
            return self.tasks.get(task)
        split = options.get("split") or self._first_split()
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}: use one of {', '.join(SPLITS)}")
        ids = self.tasks.ids(split)
        if not ids:
            raise ValueError(f"split {split!r} of this environment has no tasks")
        return self.tasks.get(ids[int(self.np_random.integers(len(ids)))])

    def _first_split(self) -> Split:
        return next((split for split in SPLITS if self.tasks.ids(split)), "train")


class SingleTurnEnv(Env):
    """One prompt, one answer, one verdict: a task set and a rubric are the whole environment."""

    def __init__(self, tasks: Tasks, rubric: Rubric, *, system: str = "", answer_form: str = "{}") -> None:
        super().__init__(tasks)
        self.answer_form = answer_form
        self.rubric = rubric
        self.system = system

    def begin(self, task: Task) -> Sequence[Message]:
        """The task's prompt, after the system message if there is one."""
        opening: list[Message] = [{"role": "system", "content": self.system}] if self.system else []
        return opening + task.messages()

    def respond(self, action: str) -> Turn:
        """The rubric's verdict on `action`."""
        return Turn(score=self.rubric.score(task=self.task, completion=action, messages=self._messages))
