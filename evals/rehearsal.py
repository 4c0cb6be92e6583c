"""What a suite asks for, tried before anything is played: a metric, environment, slice or price that is not
there, and a champion that was measured on something else.

The one idea: what an environment measures is in what it says of an answer. So a few tasks are played by their
own references, until each metric was seen.
"""

from collections.abc import Iterator, Sequence

from vertigym.core.errors import ConfigError
from vertigym.core.types import Trajectory
from vertigym.evals.gate import expanded
from vertigym.evals.metrics import Row, check_metric, price_of
from vertigym.evals.report import Report, select
from vertigym.evals.runner import row_of
from vertigym.evals.sample_records import record_of
from vertigym.evals.suite import Price, Suite, SuiteTask, TaskList
from vertigym.policies.scripted import expert
from vertigym.rollouts.rollout import Episode, rollout

_OF_EVERY_SAMPLE = {"score", "unscored", "tokens", "prompt_tokens", "latency"}
_TRIED = (1, 15)  # tasks an environment: first so many, then so many more


def rehearse(suite: Suite, listed: TaskList, champion: Report | None = None, model: str = "") -> None:
    """Try what the suite's metrics and gates name. `model`: what it will be charged as; left out: as any.

    Raises:
        ConfigError: one of them is not there (says which are), or the champion's tasks are others.
    """
    if champion and champion.suite_hash != listed.hash:
        raise ConfigError(
            f"the champion was measured on suite {champion.suite} {champion.suite_hash}, and this is "
            f"{suite.name} {listed.hash}: the tasks, samples or sampling differ; run both on one suite"
        )
    unplayed = [row_of(suite, task, ()) for task in listed.tasks]
    for gate in suite.gate:
        try:
            expanded(gate, unplayed)
            select(unplayed, gate.env, gate.slice if "=" in gate.slice else "")
        except ConfigError as error:
            raise ConfigError(f"suite {suite.name}: gate {gate.text()}: {error}") from None
    wanted = [(metric, "") for metric in suite.metrics] + [(gate.metric, gate.env) for gate in suite.gate]
    if {metric for metric, _ in wanted} <= _OF_EVERY_SAMPLE:
        return
    price = price_of(suite, model) if model else next(iter(suite.prices.values()), None)
    faults: list[str] = []
    for rows in _played(suite, listed):
        faults = [fault for metric, env in wanted if (fault := _fault(metric, rows, env, price))]
        if not faults:
            return
    raise ConfigError(f"suite {suite.name}: {faults[0]}")


def _fault(metric: str, rows: Sequence[Row], env: str, price: Price | None) -> str:
    try:
        check_metric(metric, select(rows, env), price)
    except ConfigError as error:
        return str(error)
    return ""


def _played(suite: Suite, listed: TaskList) -> Iterator[list[Row]]:
    """Rows of a few tasks of each environment, then of more."""
    rows: list[Row] = []
    for start, count in zip((0, *_TRIED), _TRIED, strict=False):
        for label, env in listed.envs.items():
            tasks = [task for task in listed.tasks if task.env == label]
            chosen = tasks[:: max(1, len(tasks) // sum(_TRIED))][start : start + count]
            episodes = [Episode(task.task) for task in chosen]
            played = rollout(expert(env.reference), env, episodes, suite.sampling, retries=0)
            rows += [_row(suite, task, one) for task, one in zip(chosen, played, strict=True)]
        yield rows


def _row(suite: Suite, task: SuiteTask, played: Trajectory) -> Row:
    """As if every sample had been this one."""
    record = record_of(task.env, 0, played)
    return row_of(suite, task, [record] * task.samples)
