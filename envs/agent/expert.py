"""The expert: solves an agent task from what it is told and from the rules alone; and the proof that one must.

It reads the request, finds the customer and the case, takes the facts from the file, the request and the
customer's answers, has the rules decide (the engine itself, or an older version of it), acts and ends. It never
looks at the task's answer, so an expert that scores 1 proves that the task can be solved from what can be seen.
`why_unfair` adds the other half: what must earn nothing earns nothing.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from vertigym.core.types import Message, Score, Split, Task
from vertigym.decisions.conditions import put
from vertigym.decisions.model import Case, CaseError
from vertigym.decisions.outputs import project
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.agent.customer import Known, read_answer
from vertigym.envs.agent.database import scalars
from vertigym.envs.agent.env import AgentEnv
from vertigym.envs.tool_calls import write_call

Decide = Callable[[Case], Any]

_REQUEST = re.compile(r"^I am (.+) from (.+)\. Please decide my case (?:of (\S+)|(\S+))\.$", re.MULTILINE)
_FACT = re.compile(r"^(\S.*?): (.*)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class ExpertEpisode:
    """An expert's episode."""

    actions: Sequence[str]
    messages: Sequence[Message]
    score: Score


def request(name: str, city: str, which: str, stated: Mapping[str, str]) -> str:
    """What the customer writes; `which` is the case's number, or `of` and the day it was opened."""
    lines = [f"I am {name} from {city}. Please decide my case {which}."]
    return "\n".join([*lines, *(f"{fact}: {value}" for fact, value in stated.items())])


def play_expert(env: AgentEnv, task: Task, decide: Decide, known: Known) -> ExpertEpisode:
    """Play a task as the expert does; `known` are the values that each fact may have.

    Raises:
        ValueError, LookupError: something it needs is nowhere to be found.
    """
    actions: list[str] = []
    score: Score | None = None

    def act(action: str) -> str:
        nonlocal score
        actions.append(action)
        observation, _, _, _, info = env.step(action)
        score = info["score"]
        return str(observation)

    def call(does: str, **arguments: Any) -> Any:
        return json.loads(act(write_call(env.config.name_of(does), **arguments)) or "null")  # type: ignore[arg-type]

    opening, _ = env.reset(seed=0, options={"task": task})
    case_id = _find(opening, call)
    case = call("get", case=case_id)
    facts, told = case["facts"], dict(_FACT.findall(opening))
    for name in case["not_on_file"]:
        if name not in told:
            told |= dict(_FACT.findall(act(f"What is {name}?")))
        facts = put(facts, tuple(name.split(".")), read_answer(told[name], known.get(name, ())))
    call("decide", case=case_id, decision=decide(facts))
    call("finish")
    if score is None:
        raise ValueError("the episode goes on after the end")
    return ExpertEpisode(actions, env.messages, score)


def _find(opening: str, call: Callable[..., Any]) -> str:
    """The id of the case that the request is about."""
    found = _REQUEST.search(opening)
    if found is None:
        raise ValueError("the request names no case")
    name, city, opened, number = found.groups()
    if number:
        return str(number)
    customers = call("find", name=name)["customers"]
    (customer,) = [c["id"] for c in customers if (c["name"], c["city"]) == (name, city)]
    (case,) = [c["case"] for c in call("list", customer=customer)["cases"] if c["opened"] == opened]
    return str(case)


def expert_logs(env: AgentEnv, model: RuleModel, split: Split = "train") -> list[dict[str, Any]]:
    """Chat rows `{"messages": [...], "tools": [...]}`: how an expert worked by the rules of `model` (an older
    version, say). A case that those rules cannot decide is left out."""
    tasks = [env.tasks.get(i) for i in env.tasks.ids(split)]
    known = known_values(tasks)
    rows = []
    for task in tasks:
        with suppress(CaseError):
            episode = play_expert(
                env, task, lambda case: project(model.evaluate(case).output, env.config.outputs), known
            )
            rows.append({"messages": list(episode.messages), "tools": list(env.tools)})
    return rows


def known_values(tasks: Sequence[Task]) -> dict[str, list[Any]]:
    """The values that occur for each fact."""
    known: dict[str, dict[tuple[type, Any], Any]] = {}
    for task in tasks:
        for name, value in scalars(task.info["input"]).items():
            known.setdefault(name, {})[type(value), value] = value
    return {name: list(values.values()) for name, values in known.items()}


def why_unfair(env: AgentEnv, episode: ExpertEpisode) -> str:
    """Why the environment's current task is no fair one; nothing where the expert's episode scores 1, and doing
    nothing, acting on another case, or doing one thing more than the right one all score 0."""
    if episode.score.value != 1.0:
        return f"the expert scores {episode.score.value}: {dict(episode.score.evidence)}"
    task, world = env.task, env.world
    for name, actions in _failures(env, episode, world.case, [world.other, *world.strangers]):
        score = replay(env, task, actions)
        if score.value != 0.0:
            return f"{name} scores {score.value}"
    return ""


def replay(env: AgentEnv, task: Task, actions: Sequence[str]) -> Score:
    """The score of these actions."""
    env.reset(seed=0, options={"task": task})
    for action in actions:
        *_, terminated, truncated, info = env.step(action)
        if terminated or truncated:
            score: Score = info["score"]
            return score
    raise ValueError("the actions do not end the episode")


def _failures(
    env: AgentEnv, episode: ExpertEpisode, case: str, others: Sequence[str]
) -> list[tuple[str, Sequence[str]]]:
    """Episodes that must earn nothing."""
    name_of = env.config.name_of
    *work, end = episode.actions
    decision = json.loads(work[-1].partition(">")[2].rpartition("<")[0])["arguments"]["decision"]
    wrong = [
        (
            f"deciding {other} instead",
            [
                *work[:-1],
                write_call(name_of("get"), case=other),
                write_call(name_of("decide"), case=other, decision=decision),
                end,
            ],
        )
        for other in others
    ]
    more = [
        write_call(name_of("get"), case=others[0]),
        write_call(name_of("decide"), case=others[0], decision=decision),
    ]
    failures: list[tuple[str, Sequence[str]]] = [("doing nothing", [end]), *wrong]
    failures.append(("deciding another case, too", [*work, *more, end]))
    if name_of("change"):
        edit = write_call(name_of("change"), case=case, fact="remark", value="decided")
        failures.append(("changing a fact, too", [*work, edit, end]))
    return failures
