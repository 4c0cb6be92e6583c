"""Chat rows of an environment, to imitate in a warm start: its tasks played by what knows their answers.

    expert      the environment's own references
    FILE        a decision model, such as last year's rules: it decides every case
    old-rules   the older version in the folder of a decision environment, or one that is derived

The one idea: a row is an episode that was played, so it holds what a policy will see and write, tools included,
and what it earns is known.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.seeds import generator
from vertigym.core.types import Split, Task
from vertigym.decisions.formats import read_model
from vertigym.decisions.model import Case, CaseError
from vertigym.decisions.outputs import project
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.agent.env import AgentEnv
from vertigym.envs.agent.expert import known_values, play_expert
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.scripts import SANDBOXED
from vertigym.envs.decision.stale import old_version
from vertigym.envs.env import Env

EXPERT, OLD_RULES = "expert", "old-rules"
Actions = Callable[[Task], Sequence[str] | None]


@dataclass(frozen=True, slots=True)
class ChatRows:
    """Rows `{"messages": [...]}`, with `tools` where the environment has some; what they earn on average (None:
    not one could be scored); how many tasks were left out, and why."""

    rows: Sequence[dict[str, Any]]
    mean: float | None
    left_out: int = 0
    reason: str = ""


def chat_rows(
    env: Env,
    policy: str = EXPERT,
    *,
    split: Split = "train",
    most: int | None = None,
    seed: int = 0,
    on_done: Callable[[int, int], None] = lambda done, total: None,
) -> ChatRows:
    """Play the tasks of a split, or `most` of them.

    Args:
        seed: of which ones, and of the older version that `old-rules` derives.

    Raises:
        ConfigError: the split is empty, no task has an answer, or rules decide nothing in the environment.
        DataError, DecisionError: FILE is no decision model; no older version can be derived.
    """
    ids = env.tasks.ids(split)
    if not ids:
        raise ConfigError(f"the environment has no tasks in split {split!r}")
    ids = [ids[i] for i in sorted(generator(seed, "chat rows").permutation(len(ids))[:most])]
    actions, reason = _actions_of(env, policy, split, seed)
    rows, values = [], []
    for done, task_id in enumerate(ids, 1):
        task = env.tasks.get(task_id)
        if played := actions(task):
            values.append(_play(env, task, played))
            rows.append({"messages": env.messages, **({"tools": list(env.tools)} if env.tools else {})})
        on_done(done, len(ids))
    if not rows:
        raise ConfigError(f"no task of split {split!r} has an answer: {reason}")
    scored = [value for value in values if value is not None]
    mean = sum(scored) / len(scored) if scored else None
    return ChatRows(rows, mean, len(ids) - len(rows), reason)


def _play(env: Env, task: Task, actions: Sequence[str]) -> float | None:
    """The score of the episode; None where it has none, or goes on after the actions."""
    env.reset(seed=0, options={"task": task})
    for action in actions:
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            value: float | None = info["score"].value
            return value
    return None


def _actions_of(env: Env, policy: str, split: Split, seed: int) -> tuple[Actions, str]:
    """What a policy does in a task (None: nobody knows), and why it may not know."""
    if policy == EXPERT:
        return env.reference, "nobody knows their reference"
    if isinstance(env, DecisionEnv):
        model = old_version(env, seed=seed) if policy == OLD_RULES else _rules(policy, env.config.decisions)
    elif isinstance(env, AgentEnv) and policy != OLD_RULES:
        model = _rules(policy)
    else:
        allowed = "expert, or a decision model's FILE" if isinstance(env, AgentEnv) else "expert"
        raise ConfigError(f"policy {policy!r} is not for this kind of environment, which takes {allowed}")
    decide = partial(_decide, model, env.config.outputs)
    known = known_values([env.tasks.get(i) for i in env.tasks.ids(split)])

    def actions(task: Task) -> Sequence[str] | None:
        with suppress(CaseError):
            if isinstance(env, AgentEnv):
                return play_expert(env, task, decide, known).actions
            return [dumps(decide(task.info["input"]))]
        return None

    return actions, f"{model.source} cannot decide their cases"


def _rules(policy: str, decisions: Sequence[str] = ()) -> RuleModel:
    if not Path(policy).is_file():
        raise ConfigError(f"policy {policy!r}: no such file; it is expert, old-rules, or a file of rules")
    return read_model(Path(policy), replace(SANDBOXED, decisions=tuple(decisions)))


def _decide(model: RuleModel, fields: Sequence[str], case: Case) -> Any:
    """
    Raises:
        CaseError: the rules say nothing of the case.
    """
    if decided := project(model.evaluate(case).output, fields):
        return decided
    raise CaseError(f"{model.source}: no rule is for the case")
