"""Compare with a champion and stop as soon as the answer is clear.

Tasks are played in blocks of whole clusters in random order; after each block the paired differences are judged
by a plan that keeps the error over all looks (`vertigym.evals.sequential`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from math import ceil

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.core.types import Policy
from vertigym.envs import registry
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import Range
from vertigym.evals.metrics import Row, task_value
from vertigym.evals.report import Report, clustered, make_report
from vertigym.evals.runner import play, rows_of
from vertigym.evals.sample_records import Key, SampleRecord
from vertigym.evals.sequential import Look, Plan, look
from vertigym.evals.suite import Make, Suite, SuiteTask, cluster_of, task_list


@dataclass(frozen=True, slots=True)
class Stopped:
    """How an early-stopped comparison ended: its looks, a Report of the tasks that were played, and the share
    of the suite's samples that this took."""

    looks: tuple[Look, ...]
    report: Report
    used: float

    @property
    def verdict(self) -> str:
        """`better`, `worse` or `futile`."""
        return self.looks[-1].verdict


def run_until_clear(
    suite: Suite,
    policy: Policy,
    champion: Report,
    plan: Plan,
    *,
    seed: int = 0,
    model: str = "",
    batch: int = 256,
    on_look: Callable[[Look], None] = lambda look: None,
    make: Make = registry.make,
) -> Stopped:
    """Play the suite block by block until a look decides; the last one always does.

    Raises:
        ConfigError: the champion's report is of another suite, or a score is none that can be.
    """
    listed = task_list(suite, make)
    if champion.suite_hash != listed.hash:
        raise ConfigError(f"the champion's report is of suite {champion.suite_hash}, this one is {listed.hash}")
    blocks = _blocks(suite, listed.tasks, plan, seed)
    theirs = {row.key: task_value(row, "score") for row in champion.rows}
    done: dict[Key, SampleRecord] = {}
    looks: list[Look] = []
    rows: list[Row] = []
    for index, tasks in enumerate(blocks):
        part = replace(listed, tasks=tuple(tasks))
        play(suite, policy, part, done, seed=seed, batch=batch, keep=lambda r: done.update({r.key: r}))
        rows = rows_of(suite, part, done)
        limits = champion.limits("score")
        looks.append(look(plan, index, _differences(rows, theirs, limits), limits))
        on_look(looks[-1])
        if looks[-1].verdict != "go on":
            break
    started = datetime.now(UTC).isoformat(timespec="seconds")
    report = make_report(
        suite, listed.hash, rows, model=model, seed=seed, started=started, ranges=listed.ranges
    )
    return Stopped(tuple(looks), report, report.samples / sum(task.samples for task in listed.tasks))


def _blocks(suite: Suite, tasks: Sequence[SuiteTask], plan: Plan, seed: int) -> list[list[SuiteTask]]:
    """The tasks seen by each look, in the suite's order: whole clusters, drawn at random within each
    environment."""
    place: dict[tuple[str, str], float] = {}
    for env in dict.fromkeys(task.env for task in tasks):
        units = list(dict.fromkeys(_unit(suite, task) for task in tasks if task.env == env))
        order = generator(seed, "looks", env).permutation(len(units))
        place |= {units[unit]: rank / len(units) for rank, unit in enumerate(order)}
    counts = {unit[0]: sum(u[0] == unit[0] for u in place) for unit in place}
    return [
        [
            task
            for task in tasks
            if place[_unit(suite, task)] < ceil(share * counts[task.env]) / counts[task.env]
        ]
        for share in plan.shares
    ]


def _unit(suite: Suite, task: SuiteTask) -> tuple[str, str]:
    return task.env, cluster_of(task.task, suite.cluster) or f"task {task.task.id}"


def _differences(
    rows: Sequence[Row], theirs: dict[tuple[str, str], float | None], limits: Range | None
) -> ClusteredValues:
    """This model's score less the champion's, where both have one."""
    for value in (*(task_value(row, "score") for row in rows), *theirs.values()):
        if limits and value is not None and not limits[0] <= value <= limits[1]:
            raise ConfigError(
                f"a task scores {value:g}, outside {list(limits)}: say what it can be under [ranges]"
            )
    gaps = {
        row.key: mine - other
        for row in rows
        if (mine := task_value(row, "score")) is not None and (other := theirs.get(row.key)) is not None
    }
    return clustered(rows, gaps)
