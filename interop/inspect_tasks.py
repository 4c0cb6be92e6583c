"""Environments as tasks of Inspect: our episodes in its loop, our verifier as its scorer.

The solver asks the model, steps the environment and shows what it answers, until there is a score; the scorer
gives that score, with parts and evidence as metadata. What could not be scored is Inspect's `Score.unscored`:
left out of its metrics, and counted. Tools are offered natively; a call becomes the text that environments
read.
"""

import json
from collections.abc import Sequence
from typing import Any

import anyio
from inspect_ai import Task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import (
    ChatMessage,
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ModelOutput,
    get_model,
)
from inspect_ai.scorer import Score, Scorer, Target, mean, scorer, stderr
from inspect_ai.solver import Generate, Solver, TaskState, solver
from inspect_ai.tool import ToolInfo

from vertigym.core.chat_client import tool_call_text
from vertigym.core.files import jsonable
from vertigym.core.types import Message, Split
from vertigym.envs import registry
from vertigym.interop import OURS
from vertigym.interop.played_episode import PlayedEpisode, openings, target_text

KEPT = "vertigym_score"
CLUSTER = "cluster"


def environment_task(env_id: str, split: Split = "eval", limit: int | None = None) -> Task:
    """An environment as a task: its split as the dataset, its verifier as the scorer."""
    samples = [
        Sample(
            id=episode.task.id,
            input=[chat_message(message) for message in episode.messages],
            target=target_text(episode.task),
            metadata={CLUSTER: episode.task.cluster or f"task {episode.task.id}"},
        )
        for episode in openings(env_id, split, limit)
    ]
    name = registry.spec(env_id).id
    dataset = MemoryDataset(samples, name=name)
    ours = {OURS: {"ranges": dict(registry.make(env_id).ranges)}}
    return Task(dataset=dataset, solver=environment(env_id), scorer=verifier(), name=name, metadata=ours)


@solver(name="vertigym_environment")  # type: ignore[untyped-decorator]
def environment(env_id: str) -> Solver:
    """Play the environment with the model until the environment says how it went."""
    env = registry.make(env_id)

    async def solve(state: TaskState, generate: Generate) -> TaskState:
        episode = PlayedEpisode(env, str(state.sample_id), registry.spec(env_id).id)
        tools = [ToolInfo.model_validate(dict(tool["function"])) for tool in episode.tools]
        while not episode.over:
            state.output = await get_model().generate(state.messages, tools=tools)
            state.messages.append(state.output.message)
            answer = await anyio.to_thread.run_sync(episode.step, action_text(state.output))
            state.messages += shown(answer, state.output.message)
        assert episode.score
        score = episode.score
        found = {"value": score.value, "parts": dict(score.parts), "evidence": jsonable(score.evidence)}
        state.store.set(KEPT, found)
        return state

    return solve


@scorer(name="vertigym_verifier", metrics=[mean(), stderr(cluster=CLUSTER)])  # type: ignore[untyped-decorator]
def verifier() -> Scorer:
    """The score that the environment gave."""

    async def score(state: TaskState, target: Target) -> Score:
        found: dict[str, Any] = state.store.get(KEPT) or {"value": None, "evidence": {"reason": "not played"}}
        metadata = {"parts": found.get("parts", {}), "evidence": found["evidence"]}
        if found["value"] is None:
            reason = str(found["evidence"].get("reason", "not scored"))
            return Score.unscored(reason="scoring_failed", explanation=reason, metadata=metadata)
        return Score(value=found["value"], answer=state.output.completion, metadata=metadata)

    return score


def action_text(output: ModelOutput) -> str:
    """What the model wrote as an environment reads it: native calls as text after the text."""
    calls = output.message.tool_calls or []
    called = [tool_call_text(call.function, json.dumps(call.arguments)) for call in calls]
    return "".join([output.completion, *called])


def shown(answer: Sequence[Message], reply: ChatMessageAssistant) -> list[ChatMessage]:
    """The environment's messages as the model's endpoint takes them: a tool's result goes to the call that
    asked for it, to the user's place where it was text. An environment carries out a turn's first call."""
    calls = list(reply.tool_calls or [])
    messages: list[ChatMessage] = []
    for message in answer:
        if message["role"] == "tool" and calls:
            call = calls.pop(0)
            messages.append(
                ChatMessageTool(content=message["content"], tool_call_id=call.id, function=call.function)
            )
        else:
            messages.append(chat_message(message))
    left_out = "not carried out: one call a turn"
    return [ChatMessageTool(content=left_out, tool_call_id=c.id, function=c.function) for c in calls] + messages


def chat_message(message: Message) -> ChatMessage:
    """One of our messages as Inspect's."""
    kinds = {"system": ChatMessageSystem, "assistant": ChatMessageAssistant}
    return kinds.get(message["role"], ChatMessageUser)(content=message["content"])
