"""Prompts that a model's context has too little room for, found before a run: in it they are not scored.

The one idea: every first prompt is opened and rendered as the run will do it. What an agent's episode grows to
is not known beforehand; one that outgrows the context in the run is not scored, either.
"""

from collections.abc import Sequence

from vertigym.core.types import Task
from vertigym.envs.env import Env
from vertigym.evals.suite import Suite, task_list
from vertigym.learner.samples import TrainingSample
from vertigym.policies.chat import ChatRenderer
from vertigym.rollouts.rollout import prompt_length
from vertigym.trainer.config import RunConfig

_NAMED = 3


def long_prompts(
    config: RunConfig, env: Env, suites: Sequence[Suite], renderer: ChatRenderer, context: int
) -> list[str]:
    """A sentence for the training tasks, and for each suite, where some leave less than an answer may need."""
    found = []
    if not config.rows:
        tasks = [(env, env.tasks.get(i)) for i in env.tasks.ids("train")]
        found.append(_sentence("training", tasks, renderer, context, config.rollout.max_tokens))
    for suite in suites:
        listed = task_list(suite)
        tasks = [(listed.envs[one.env], one.task) for one in listed.tasks]
        found.append(_sentence(f"suite {suite.name}", tasks, renderer, context, suite.sampling.max_tokens))
    return [sentence for sentence in found if sentence]


def train_prompts(env: Env, renderer: ChatRenderer) -> list[int]:
    """The lengths of the training tasks' first prompts."""
    return [prompt_length(env, env.tasks.get(i), renderer) for i in env.tasks.ids("train")]


def context_needed(config: RunConfig, env: Env, suites: Sequence[Suite], renderer: ChatRenderer) -> int:
    """The most tokens of a first prompt and its answer, in training and in the suites; 0 where it is not known
    beforehand, because episodes have several turns."""
    longest = [max(train_prompts(env, renderer), default=0) + config.rollout.max_tokens]
    envs = [env]
    for suite in suites:
        listed = task_list(suite)
        envs += listed.envs.values()
        longest += (
            prompt_length(listed.envs[one.env], one.task, renderer) + suite.sampling.max_tokens
            for one in listed.tasks
        )
    return max(longest) if all(one.max_turns == 1 for one in envs) else 0


def long_rows(samples: Sequence[TrainingSample], context: int) -> list[str]:
    """The same for rows to imitate."""
    long = sorted((length for one in samples if (length := len(one.token_ids)) > context), reverse=True)
    if not long:
        return []
    of = f"{len(long)} of {len(samples)}"
    return [f"rows to learn from: {of} are longer than the context of {context}, up to {long[0]}"]


def _sentence(
    what: str, tasks: Sequence[tuple[Env, Task]], renderer: ChatRenderer, context: int, answer: int
) -> str:
    lengths = [(prompt_length(env, task, renderer), task.id) for env, task in tasks]
    long = sorted((one for one in lengths if one[0] + answer > context), reverse=True)
    if not long:
        return ""
    named = ", ".join(f"{name} ({length} tokens)" for length, name in long[:_NAMED])
    return (
        f"{what}: {len(long)} of {len(lengths)} prompts leave less than max_tokens = {answer} of the context "
        f"of {context}, and an answer that is cut there is not scored: {named}{', …' if long[_NAMED:] else ''}"
    )
