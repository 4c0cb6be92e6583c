"""Prompts that a model's context has too little room for, found before a run: in it they are not scored.

The one idea: every first prompt is opened and rendered as the run will do it. What an agent's episode grows to
is not known beforehand; one that outgrows the context in the run is not scored, either.
"""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vertigym.core.stored_rows import StoredRows
from vertigym.core.types import Task
from vertigym.envs.env import Env
from vertigym.evals.suite import Suite, task_list
from vertigym.learner.samples import TrainingSample
from vertigym.policies.chat import ChatRenderer
from vertigym.rollouts.rollout import prompt_length
from vertigym.trainer.config import RunConfig

_NAMED = 3


@dataclass(frozen=True, slots=True)
class FirstPrompts:
    """Of the tasks of `what`: each first prompt's tokens, and its task; the most tokens of an answer."""

    what: str
    lengths: Sequence[tuple[int, str]]
    answer: int


def first_prompts(
    config: RunConfig, env: Env, suites: Sequence[Suite], renderer: ChatRenderer
) -> list[FirstPrompts]:
    """Those of the suites, and before them those of training, where it samples."""

    def opened(what: str, tasks: Iterable[tuple[Env, Task]], answer: int) -> FirstPrompts:
        lengths = StoredRows((prompt_length(one, task, renderer), task.id) for one, task in tasks)
        return FirstPrompts(what, lengths.rows, answer)

    trained = () if config.rows else ((env, env.tasks.get(i)) for i in env.tasks.ids("train"))
    found = [opened("training", trained, config.rollout.max_tokens)]
    for suite in suites:
        listed = task_list(suite)
        tasks = ((listed.envs[one.env], one.task) for one in listed.tasks)
        found.append(opened(f"suite {suite.name}", tasks, suite.sampling.max_tokens))
    return found


def long_prompts(prompts: Sequence[FirstPrompts], context: int) -> list[str]:
    """A sentence for training, and for each suite, where some leave less than an answer may need."""
    return [sentence for one in prompts if (sentence := _sentence(one, context))]


def context_needed(config: RunConfig, env: Env, suites: Sequence[Suite], renderer: ChatRenderer) -> int:
    """The most tokens of a first prompt and its answer, in training and in the suites; 0 where it is not known
    beforehand, because episodes have several turns."""
    played = [env, *(one for suite in suites for one in task_list(suite).envs.values())]
    if any(one.max_turns != 1 for one in played):
        return 0
    prompts = first_prompts(config, env, suites, renderer)
    return max(max(one.lengths, default=(0, ""))[0] + one.answer for one in prompts)


def long_rows(samples: Iterable[TrainingSample], context: int) -> list[str]:
    """The same for rows to imitate."""
    lengths = array("q", (len(one.token_ids) for one in samples))
    long = [length for length in lengths if length > context]
    if not long:
        return []
    of = f"{len(long)} of {len(lengths)}"
    return [f"rows to learn from: {of} are longer than the context of {context}, up to {max(long)}"]


def _sentence(prompts: FirstPrompts, context: int) -> str:
    answer = prompts.answer
    long = sorted((one for one in prompts.lengths if one[0] + answer > context), reverse=True)
    if not long:
        return ""
    named = ", ".join(f"{name} ({length} tokens)" for length, name in long[:_NAMED])
    return (
        f"{prompts.what}: {len(long)} of {len(prompts.lengths)} prompts leave less than max_tokens = {answer} "
        f"of the context of {context}, and an answer that is cut there is not scored: {named}"
        f"{', …' if long[_NAMED:] else ''}"
    )
