"""What a suite could show at best, known before anything is measured: a gate that no policy can pass on so few
tasks is named at once, not after a training.
"""

from collections.abc import Sequence

from vertigym.evals.gate import expanded, limits_of_difference
from vertigym.evals.metrics import Row, limits_of
from vertigym.evals.report import clustered, select
from vertigym.evals.rules import Gate, Measured
from vertigym.evals.runner import row_of
from vertigym.evals.suite import Suite, TaskList, task_list


def shortfalls(suite: Suite, listed: TaskList, error: float | None = None) -> list[str]:
    """A line for each gate that cannot pass: of a perfect policy against a champion that fails everything, or,
    where a loss is to be ruled out, of a policy that loses nothing. `error` is as for `decide`."""
    rows = [row_of(suite, task, ()) for task in listed.tasks]
    error = (1 - suite.confidence) / 2 if error is None else error
    lines = [_shortfall(gate, rows, listed, error) for gate in suite.gate]
    return [f"suite {suite.name}: {line}" for line in lines if line]


def env_shortfalls(env_id: str) -> list[str]:
    """The same for an environment's eval split, and the gate that every suite has."""
    suite = Suite.model_validate({"name": "eval", "env": [{"id": env_id}], "gate": [{"rule": "improves"}]})
    return shortfalls(suite, task_list(suite))


def _shortfall(gate: Gate, rows: Sequence[Row], listed: TaskList, error: float) -> str:
    limits = limits_of(gate.metric, listed.ranges)
    if limits is None or gate.metric == "unscored":
        return ""
    ends = limits_of_difference(limits) if gate.paired else limits
    best = ends[0] if gate.by.below else ends[1]
    levels = {"can pass no policy": best}
    if gate.paired and gate.by.bound(gate) < 0:
        levels["can pass only a policy that gains something"] = 0.0
    for what, level in levels.items():
        few, needed = [], 0
        for one in expanded(gate, rows):
            found = select(rows, one.env, one.slice)
            values = clustered(found, dict.fromkeys((row.key for row in found), level))
            measured = Measured(error, limits=ends, best=values)
            if one.by.is_out_of_reach(one, measured):
                few.append(
                    f"{one.slice} has {values.clusters}" if one.slice else f"there are {values.clusters}"
                )
                needed = one.by.needed(one, measured)
        if few:
            return f"{gate.text()} {what}: it takes {needed} clusters of tasks, {', '.join(few)}"
    return ""
