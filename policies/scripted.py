"""Scripted policies: for checks, baselines, and tests that need a policy of known accuracy.

expert      writes the task's own reference answer; over several turns, the task's `actions` in order
random      writes the reference answer of another task, by the prompt's seed
constant    always writes one text
echo        repeats the last message
Scripted(f) calls your function
"""

import json
from collections.abc import Callable, Sequence

from vertigym.core.errors import UnknownNameError
from vertigym.core.types import Completion, Message, Prompt, Sampling, StopReason, Task
from vertigym.policies.registry import EngineKind


class Scripted:
    """A policy around a function of the prompt. It has no tokens, so nothing can be trained on what it writes;
    usage counts words."""

    def __init__(self, write: Callable[[Prompt], str]) -> None:
        self._write = write

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        """The function's text for each prompt; an exception becomes a Completion with `stop_reason` ERROR."""
        return [self._complete(prompt) for prompt in prompts]

    def _complete(self, prompt: Prompt) -> Completion:
        try:
            text = self._write(prompt)
        except Exception as error:  # one prompt's failure must not lose the others
            return Completion("", StopReason.ERROR, error=f"{type(error).__name__}: {error}")
        asked = sum(len(message["content"].split()) for message in prompt.messages)
        return Completion(text, prompt_tokens=asked, completion_tokens=len(text.split()))


def reference_text(task: Task) -> str:
    """The task's answer as a policy would write it: a string as it is, anything else as JSON."""
    return task.answer if isinstance(task.answer, str) else json.dumps(task.answer, ensure_ascii=False)


def expert(reference: Callable[[Task], Sequence[str] | None] = lambda _: None) -> Scripted:
    """Writes what `reference` knows of a task, an action a turn; else the task's `actions`, or its answer."""

    def next_action(prompt: Prompt) -> str:
        task = _task(prompt)
        actions = reference(task) or task.info.get("actions") or [reference_text(task)]
        done = _replies(prompt.messages) - _replies(task.messages())
        return str(actions[min(done, len(actions) - 1)])

    return Scripted(next_action)


def _replies(messages: Sequence[Message]) -> int:
    return sum(message["role"] == "assistant" for message in messages)


def constant(text: str) -> Scripted:
    """Always writes `text`."""
    return Scripted(lambda _: text)


def echo() -> Scripted:
    """Repeats the last message."""
    return Scripted(lambda prompt: prompt.messages[-1]["content"])


def scripted(name: str) -> Scripted:
    """The policy called `name`: `expert`, `echo` or `constant:TEXT`.

    Raises:
        UnknownNameError: no such policy.
    """
    kind, _, text = name.partition(":")
    match kind:
        case "expert":
            return expert()
        case "echo":
            return echo()
        case "constant":
            return constant(text)
    raise UnknownNameError("scripted policy", name, ["expert", "echo", "constant:TEXT"])


def _task(prompt: Prompt) -> Task:
    if prompt.task is None:
        raise ValueError("the expert policy needs the task beside the prompt")
    return prompt.task


ENGINE = EngineKind("scripted", load=lambda name, _: scripted(name))
