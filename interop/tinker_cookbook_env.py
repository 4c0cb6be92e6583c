"""Environments as the tinker-cookbook's: our episodes in its rollouts, our verifier as its reward.

    train.Config(dataset_builder=VertigymDatasetBuilder(env_id="acme/Loan-v0", …), model_name=…, …)

What could not be scored has no reward there: its rollout fails with `UnscoredEpisodeError`. By default that
ends the run; with `rollout_error_tolerance` the rollout is played again or its group left out. Sampling and
training are the cookbook's; prompts are rendered by the model's own chat template, as `vertigym eval` does, or
by one of the cookbook's renderers.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import chz
import tinker
from tinker_cookbook.completers import StopCondition
from tinker_cookbook.renderers import Message, get_renderer, get_text_content
from tinker_cookbook.rl import types as rl
from tinker_cookbook.tokenizer_utils import get_tokenizer

from vertigym.core.errors import InfrastructureError, InputError
from vertigym.core.seeds import generator
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.policies.chat import ChatRenderer


class UnscoredEpisodeError(InfrastructureError):
    """The environment or its verifier failed, so there is no reward."""


class Renders(Protocol):
    """What is used here of the cookbook's renderers."""

    def build_generation_prompt(self, messages: list[Message]) -> tinker.ModelInput:
        """The prompt of a chat."""
        ...

    def get_stop_sequences(self) -> StopCondition:
        """What ends a turn."""
        ...

    def parse_response(self, response: list[int]) -> tuple[Message, Any]:
        """The message that was written."""
        ...


class TemplateRenderer:
    """The model's own chat template, as evals here render it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self._renderer = ChatRenderer(tokenizer, stop=[tokenizer.eos_token_id], rows=len(tokenizer))

    def build_generation_prompt(self, messages: list[Message]) -> tinker.ModelInput:
        """The prompt of a chat."""
        return tinker.ModelInput.from_ints(list(self._renderer.prompt(messages)))

    def get_stop_sequences(self) -> StopCondition:
        """What ends a turn."""
        return sorted(self._renderer.stop)

    def parse_response(self, response: list[int]) -> tuple[Message, Any]:
        """The message that was written."""
        ids = response[: self._renderer.reply_length(response)]
        return Message(role="assistant", content=self._tokenizer.decode(ids, skip_special_tokens=False)), None


class CookbookEnv(rl.Env):  # type: ignore[misc]
    """One episode of an environment of ours. What was written is played whether or not it ended its turn."""

    def __init__(self, episode: PlayedEpisode, renderer: Renders) -> None:
        self._episode, self._renderer = episode, renderer

    async def initial_observation(self) -> tuple[tinker.ModelInput, StopCondition]:
        """The opening, rendered.

        Raises:
            UnscoredEpisodeError: the environment could not open it.
        """
        if self._episode.over:
            self._reward()
        return self._shown(), self._renderer.get_stop_sequences()

    async def step(self, action: list[int], *, extra: rl.ActionExtra | None = None) -> rl.StepResult:
        """Play what the model wrote. The reward is the score, in the last step; its parts are metrics.

        Raises:
            UnscoredEpisodeError: it could not be scored.
        """
        message, _ = self._renderer.parse_response(action)
        await asyncio.to_thread(self._episode.step, get_text_content(message))
        over = self._episode.over
        return rl.StepResult(
            reward=self._reward() if over else 0.0,
            episode_done=over,
            next_observation=tinker.ModelInput.empty() if over else self._shown(),
            next_stop_condition=self._renderer.get_stop_sequences(),
            metrics=dict(self._episode.score.parts) if self._episode.score else {},
        )

    def _shown(self) -> tinker.ModelInput:
        messages = [Message(role=m["role"], content=m["content"]) for m in self._episode.messages]
        return self._renderer.build_generation_prompt(messages)

    def _reward(self) -> float:
        score = self._episode.end()
        if score.value is None:
            raise UnscoredEpisodeError(f"task {self._episode.task.id}: not scored: {score.evidence}"[:500])
        return score.value


@dataclass(frozen=True)
class CookbookGroupBuilder(rl.EnvGroupBuilder):  # type: ignore[misc]
    """The episodes of one task that are compared with each other."""

    env_id: str
    task_id: str
    size: int
    renderer: Renders

    async def make_envs(self) -> Sequence[CookbookEnv]:
        """New episodes, at one opening."""
        env, name = _opened(self.env_id), registry.spec(self.env_id).id
        played = [await asyncio.to_thread(PlayedEpisode, env, self.task_id, name) for _ in range(self.size)]
        return [CookbookEnv(one, self.renderer) for one in played]

    def logging_tags(self) -> list[str]:
        """The environment."""
        return [self.env_id]


class CookbookDataset(rl.RLDataset):  # type: ignore[misc]
    """Batches of groups, a task each."""

    def __init__(self, groups: Sequence[CookbookGroupBuilder], batch_size: int) -> None:
        self._groups, self._batch_size = groups, batch_size

    def get_batch(self, index: int) -> Sequence[CookbookGroupBuilder]:
        """The groups of one step."""
        return self._groups[index * self._batch_size : (index + 1) * self._batch_size]

    def __len__(self) -> int:
        return -(-len(self._groups) // self._batch_size)


@chz.chz
class VertigymDatasetBuilder(rl.RLDatasetBuilder):  # type: ignore[misc]
    """The tasks of `train` in an order that `seed` says; evaluated are the first `eval_tasks` of `eval`.
    `renderer_name`: one of the cookbook's; empty: the model's own chat template."""

    env_id: str
    model_name_for_tokenizer: str
    batch_size: int
    group_size: int
    renderer_name: str = ""
    eval_tasks: int = 0
    seed: int = 0

    async def __call__(self) -> tuple[CookbookDataset, CookbookDataset | None]:
        """
        Raises:
            UnknownNameError: no such environment. InputError: it has tools, or no task to train on.
        """
        env = _opened(self.env_id)
        trained = list(env.tasks.ids("train"))
        if not trained:
            raise InputError(f"{self.env_id} has no tasks in split 'train'")
        if PlayedEpisode(env, trained[0]).tools:
            raise InputError(f"{self.env_id} has tools, which are not offered here: `vertigym train` plays it")
        generator(self.seed, "tinker-cookbook tasks").shuffle(trained)
        judged = list(env.tasks.ids("eval"))[: self.eval_tasks]
        return self._batches(trained, self.group_size), self._batches(judged, 1) if judged else None

    def _batches(self, tasks: Sequence[str], size: int) -> CookbookDataset:
        tokenizer = get_tokenizer(self.model_name_for_tokenizer)
        named = self.renderer_name
        renderer = get_renderer(named, tokenizer) if named else TemplateRenderer(tokenizer)
        groups = [CookbookGroupBuilder(self.env_id, task, size, renderer) for task in tasks]
        return CookbookDataset(groups, self.batch_size)


@cache
def _opened(env_id: str) -> Env:
    return registry.make(env_id)
