"""What a suite could show at best, known before anything is measured: a gate that no policy can pass on so few
tasks is named at once, not after a training.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from vertigym.core.errors import InputError, some
from vertigym.evals.gate import errors_at_best, expanded, limits_of_difference
from vertigym.evals.metrics import Row, limits_of
from vertigym.evals.report import clustered, select
from vertigym.evals.rules import BEYOND_ALL, Gate, Measured
from vertigym.evals.runner import row_of
from vertigym.evals.suite import Suite, TaskList, task_list

Tried = list[tuple[Gate, Measured]]


def shortfalls(suite: Suite, listed: TaskList, error: float | None = None) -> list[str]:
    """A line for each gate that cannot pass: of a perfect policy against a champion that fails everything, or,
    where a loss is to be ruled out, of a policy that loses nothing. `error` is as for `decide`."""
    rows = [row_of(suite, task, ()) for task in listed.tasks]
    error = (1 - suite.confidence) / 2 if error is None else error
    tried = [_at_best(gate, rows, listed, error) for gate in suite.gate]
    if suite.combine == "any":
        gates, measured = zip(*(one for part in tried for one in part), strict=True)
        held = iter(errors_at_best(gates, measured))
        tried = [[(gate, replace(one, error=next(held))) for gate, one in part] for part in tried]
    lines = [_shortfall(gate, part) for gate, part in zip(suite.gate, tried, strict=True)]
    missed = [_untested(gate, rows, listed) for gate in suite.gate]
    return [f"suite {suite.name}: {line}" for line in (*lines, *missed) if line]


def env_shortfalls(env_id: str) -> list[str]:
    """The same for an environment's eval split, and the gate that every suite has."""
    suite = Suite.model_validate({"name": "eval", "env": [{"id": env_id}], "gate": [{"rule": "improves"}]})
    return shortfalls(suite, task_list(suite))


def _at_best(gate: Gate, rows: Sequence[Row], listed: TaskList, error: float) -> Tried:
    """The gate, or one for each value of its slice, with the values of a perfect policy; without any where
    nobody knows what is perfect."""
    limits = limits_of(gate.metric, listed.ranges)
    if limits is None or gate.metric == "unscored":
        return [(gate, Measured(error))]
    ends = limits_of_difference(limits) if gate.paired else limits
    tried: Tried = []
    for one in expanded(gate, rows):
        found = select(rows, one.env, one.slice)
        values = clustered(found, dict.fromkeys((row.key for row in found), ends[0 if one.by.below else 1]))
        tried.append((one, Measured(error, limits=ends, best=values)))
    return tried


def _shortfall(gate: Gate, tried: Tried) -> str:
    """What is wrong with a gate, and how many clusters would mend it."""
    few = [(one, found) for one, found in tried if one.by.is_out_of_reach(one, found)]
    who = "can pass no policy"
    if not few and gate.paired and gate.by.bound(gate) < 0:
        level = [(one, replace(found, best=found.best and found.best.filled(0.0))) for one, found in tried]
        few = [(one, found) for one, found in level if one.by.is_out_of_reach(one, found)]
        who = "can pass only a policy that gains something"
    if not few:
        return ""
    needed = max(one.by.needed(one, found) for one, found in few)
    there = ", ".join(
        f"{one.slice} has {found.best.clusters}" if one.slice else f"there are {found.best.clusters}"
        for one, found in few
        if found.best
    )
    return f"{gate.text()} {who}: " + (
        f"it takes {needed} clusters of tasks, {there}" if needed else BEYOND_ALL
    )


def _untested(gate: Gate, rows: Sequence[Row], listed: TaskList) -> str:
    """The rules that a gate on every rule says nothing of, for no task hits them."""
    if gate.slice != "rule":
        return ""
    hit = {rule for row in select(rows, gate.env) for rule in row.slices.get("rule", ())}
    asked = [env for label, env in listed.envs.items() if gate.env in ("", label)]
    missed: dict[str, None] = {}
    with suppress(InputError):  # tasks can be played without the model that they were made of
        missed = dict.fromkeys(rule for env in asked for rule in env.rules() if rule not in hit)
    return f"{gate.text()} says nothing of {some(missed)}, which no task hits" if missed else ""
