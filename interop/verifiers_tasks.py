"""Environments as tasksets of verifiers (version 1): our episodes in its interaction, our verifier as its
reward.

A package that verifiers finds by name exports one subclass of each class here that names the environment. The
score is the reward `score`, its parts are metrics. What could not be scored raises, so that the episode is
not `ok` and trains nobody. verifiers speaks text here: tools are described in the system message.
"""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import verifiers.v1 as vf

from vertigym.core.errors import InfrastructureError
from vertigym.core.types import Message, Split
from vertigym.envs import registry
from vertigym.interop.played_episode import PlayedEpisode, openings


class EnvironmentData(vf.TaskData):  # type: ignore[misc]
    """A task of ours: its id and opening."""


class EnvironmentTask(vf.Task[EnvironmentData]):  # type: ignore[misc]
    """Scored by the environment, in `EnvironmentPlay`."""


class EnvironmentConfig(vf.TasksetConfig):  # type: ignore[misc]
    """Which tasks."""

    split: Split = "train"


class EnvironmentTaskset(vf.Taskset[EnvironmentTask, EnvironmentConfig]):  # type: ignore[misc]
    """The tasks of one split."""

    environment: ClassVar[str]

    def load(self) -> Iterator[EnvironmentTask]:
        """The tasks, in order."""
        for episode in openings(self.environment, self.config.split):
            system = [message["content"] for message in episode.messages if message["role"] == "system"]
            told = "\n\n".join([*system, *_described(episode.tools)])
            prompt = [message for message in episode.messages if message["role"] != "system"]
            data = EnvironmentData(id=episode.task.id, prompt=_prompt(prompt), system_prompt=told or None)
            yield EnvironmentTask(data, self.config.task)


class PlayerConfig(vf.EnvConfig):  # type: ignore[misc]
    """One agent plays."""

    player: vf.AgentConfig = vf.AgentConfig()


class EnvironmentPlay(vf.Env[PlayerConfig]):  # type: ignore[misc]
    """The episode: the agent's turns, and the environment's answers."""

    environment: ClassVar[str]

    async def run(self, task: EnvironmentTask, agents: Any) -> None:
        """Play until there is a score.

        Raises:
            InfrastructureError: there is none; verifiers records it as the episode's error.
        """
        episode = PlayedEpisode(
            registry.make(self.environment), str(task.data.id), registry.spec(self.environment).id
        )
        async with agents.player.interaction(task) as player:
            reply = await player.turn()
            while not reply.terminated and not episode.over:
                answer = await asyncio.to_thread(episode.step, reply.last_reply)
                if not episode.over:
                    reply = await player.turn("\n\n".join(message["content"] for message in answer))
            if episode.score is None or episode.score.value is None:
                evidence = episode.score.evidence if episode.score else {}
                raise InfrastructureError(f"not scored: {evidence.get('reason', 'the agent stopped early')}")
            player.trace.record_reward("score", episode.score.value, 1.0)
            for name, part in episode.score.parts.items():
                player.trace.record_metric(name, part)


def _prompt(messages: Sequence[Message]) -> Any:
    """One user message as its text, else the messages."""
    if len(messages) == 1 and messages[0]["role"] == "user":
        return messages[0]["content"]
    return [dict(message) for message in messages]


def _described(tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The tools in words, where there are any."""
    if not tools:
        return []
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    call = '<tool_call>{"name": "…", "arguments": {…}}</tool_call>'
    return [f"You have these tools, one call a turn:\n{listed}\nTo call one, write {call}"]
