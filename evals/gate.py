"""Gates: a rule over a Report and the champion's Report on the same tasks; a Decision with every number in it.

A gate passes only on evidence. At confidence 95% a challenger that is no better passes `improves` in at most
2.5% of evals, whatever the scores look like (`vertigym.evals.mean_bounds`). Gates combined with `all` need no
correction, because each has to pass (an intersection-union test, Berger 1982, Technometrics 24:295); combined
with `any`, they share the error by Holm's adjusted p-values. What a gate says of each value of a slice
(`slice = "rule"`) is adjusted over the values, too.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vertigym.core.errors import ConfigError
from vertigym.evals.clustered import ClusteredValues
from vertigym.evals.mean_bounds import Range
from vertigym.evals.metrics import Row, check_metric, less_is_better, task_values
from vertigym.evals.power import smallest_difference
from vertigym.evals.report import Report, clustered, estimate_metric, outside, select, values_of
from vertigym.evals.rules import Gate, Measured, Verdict, is_quantile
from vertigym.evals.statistics import Difference, Estimate, difference_of, holm
from vertigym.evals.suite import Price, Suite


class Check(BaseModel):
    """One gate's outcome. `value` and `champion` are the metric's means on the tasks compared; `difference`
    is signed so that more is better; `p` is one-sided and `p_adjusted` Holm's: over all gates where any is
    enough, else over the values of a slice. `smallest` is the true difference that this comparison finds with
    80% chance; `too_few` that a perfect policy could have passed only with more tasks."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gate: str
    passed: bool
    reason: str
    value: float | None = None
    champion: float | None = None
    difference: Difference | None = None
    estimate: Estimate | None = None
    bound: float
    p: float | None = None
    p_adjusted: float | None = None
    smallest: float | None = None
    too_few: bool = False


class Decision(BaseModel):
    """The verdict on a challenger, with the rule, the numbers and the reason; a line of `gates.jsonl`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    passed: bool
    reason: str
    suite: str
    suite_hash: str
    model: str
    champion: str | None
    seed: int
    confidence: float
    combine: str
    checks: tuple[Check, ...]
    context: dict[str, Any] = Field(default_factory=dict)

    @property
    def verdict(self) -> str:
        """`promoted` or `rejected`."""
        return "promoted" if self.passed else "rejected"


def decide(
    suite: Suite,
    report: Report,
    champion: Report | None = None,
    *,
    start: Report | None = None,
    error: float | None = None,
    **context: Any,
) -> Decision:
    """Apply the suite's gates to `report`; `context` (a step, a time) is kept in the record. `start` is the
    report that gates with `against = "start"` compare with; without it they use the champion's. `error` is the
    chance of passing wrongly, half of 1 - the suite's confidence unless given: one of many looks gets less.

    Raises:
        ConfigError: the suite has no gate, a gate compares and there is no champion, a gate names a metric,
            environment or slice that is not there, or the two reports measured different suites.
    """
    if not suite.gate:
        raise ConfigError(f"suite {suite.name} has no [[gate]]: nothing to decide")
    for other in (champion, start):
        if other:
            check_same_suite(report, other)
    error = (1 - suite.confidence) / 2 if error is None else error
    against = {"champion": champion, "start": start or champion}
    checks = [_unscored_check(suite, report)]
    for part in [suite.gate] if suite.combine == "any" else [(gate,) for gate in suite.gate]:
        gates = [one for gate in part for one in expanded(gate, report.rows)]
        measured = [_measure(gate, report, against[gate.against], error) for gate in gates]
        checks += _checked(gates, measured, any_is_enough=suite.combine == "any")
    passed = checks[0].passed and (all if suite.combine == "all" else any)(c.passed for c in checks[1:])
    return Decision(
        passed=passed,
        reason=_reason(passed, checks),
        suite=suite.name,
        suite_hash=report.suite_hash,
        model=report.model,
        champion=champion.model if champion else None,
        seed=report.seed,
        confidence=round(1 - 2 * error, 12),
        combine=suite.combine,
        checks=tuple(checks),
        context=context,
    )


def combine(decisions: Sequence[Decision]) -> tuple[bool, str]:
    """The verdict of several suites together: all must pass. The reason is the first failing suite's."""
    if len(decisions) == 1:
        return decisions[0].passed, decisions[0].reason
    failed = [decision for decision in decisions if not decision.passed]
    if failed:
        return False, f"suite {failed[0].suite}: {failed[0].reason}"
    return True, "; ".join(f"suite {decision.suite}: {decision.reason}" for decision in decisions)


def check_same_suite(report: Report, other: Report) -> None:
    """Refuse to compare reports of different task lists.

    Raises:
        ConfigError: their hashes differ.
    """
    if report.suite_hash != other.suite_hash:
        raise ConfigError(
            f"{report.model or 'this report'} was measured on suite {report.suite} {report.suite_hash}, "
            f"{other.model or 'the other'} on {other.suite} {other.suite_hash}: the tasks, samples or sampling "
            "differ; run both on one suite"
        )


def compare_rows(
    rows: Sequence[Row],
    others: Sequence[Row],
    metric: str = "score",
    *,
    confidence: float = 0.95,
    price: Price | None = None,
    other_price: Price | None = None,
    limits: Range | None = None,
) -> tuple[Difference, float | None, float | None]:
    """The paired difference of a metric on tasks that both have it for, and both means on those tasks. Signed
    so that more is better. `limits` is what a task's value can be, as for `estimate_metric`."""
    first, second = _pair(rows, others, metric, price, other_price)
    if outside(first, limits) is not None or outside(second, limits) is not None:
        limits = None
    found = difference_of(_less(first, second, metric), limits and limits_of_difference(limits), confidence)
    return found, _mean(first), _mean(second)


def expanded(gate: Gate, rows: Sequence[Row]) -> list[Gate]:
    """A gate on a slice name without a value stands for one gate a value.

    Raises:
        ConfigError: no task is in the gate's environment, or has such a slice.
    """
    if not gate.slice or "=" in gate.slice:
        return [gate]
    rows = select(rows, gate.env)
    values = sorted({value for row in rows for value in row.slices.get(gate.slice, ())})
    if not values:
        raise ConfigError(f"gate {gate.text()}: no task has a slice {gate.slice!r}")
    return [gate.model_copy(update={"slice": f"{gate.slice}={value}"}) for value in values]


def _checked(gates: Sequence[Gate], measured: Sequence[Measured], *, any_is_enough: bool) -> list[Check]:
    """The checks of gates that are judged together: with `any`, each further gate is a further chance to pass,
    and each is held to Holm's p-value; without, they are one gate's slices, which all have to pass."""
    verdicts = [gate.by.decide(gate, found) for gate, found in zip(gates, measured, strict=True)]
    tested = {i: v.p for i, v in enumerate(verdicts) if v.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True)) if len(gates) > 1 else {}
    held = errors_at_best(gates, measured) if any_is_enough else [found.error for found in measured]
    checks = []
    for i, (gate, found, verdict) in enumerate(zip(gates, measured, verdicts, strict=True)):
        passed = verdict.passed
        if any_is_enough and i in adjusted:
            passed = passed and adjusted[i] <= found.error
        checks.append(_check(gate, replace(found, error=held[i]), verdict, passed, adjusted.get(i)))
    return checks


def errors_at_best(gates: Sequence[Gate], measured: Sequence[Measured]) -> list[float]:
    """The error that Holm leaves to each of several gates of which any is enough, the policy being perfect: all
    of it, or an even part where its own p-value is beyond what the others leave."""
    p = {
        i: found
        for i, (gate, one) in enumerate(zip(gates, measured, strict=True))
        if (found := gate.by.p_value(gate, one.best, one.limits)) is not None
    }
    adjusted = dict(zip(p, holm(list(p.values())), strict=True))
    return [one.error / (len(p) if adjusted.get(i, 0) > one.error else 1) for i, one in enumerate(measured)]


def _check(gate: Gate, measured: Measured, verdict: Verdict, passed: bool, adjusted: float | None) -> Check:
    difference = measured.difference
    return Check(
        gate=gate.text(),
        passed=passed,
        reason=gate.by.reason(gate, measured, passed),
        value=measured.value,
        champion=measured.champion,
        difference=difference,
        estimate=measured.estimate,
        bound=verdict.bound,
        p=verdict.p,
        p_adjusted=adjusted,
        smallest=smallest_difference(difference) if difference else None,
        too_few=not passed and gate.by.lacks_tasks(gate, measured),
    )


def _measure(gate: Gate, report: Report, champion: Report | None, error: float) -> Measured:
    """What the gate decides on, and what it would be of a perfect policy."""
    rows = select(report.rows, gate.env, gate.slice)
    check_metric(gate.metric, rows, report.price)
    limits, confidence = report.limits(gate.metric), 1 - 2 * error
    if not gate.paired:
        found = estimate_metric(rows, gate.metric, confidence, report.price, limits)
        if is_quantile(gate.metric) or gate.metric == "unscored":
            return Measured(error, estimate=found, value=found.mean)
        values = values_of(rows, gate.metric, report.price)
        end = limits and limits[0 if gate.by.below else 1]
        best = None if end is None else values.filled(end)
        fault = _fault(gate, limits, values)
        return Measured(error, values, limits, best, found, value=found.mean, fault=fault)
    if champion is None:
        raise ConfigError(f"gate {gate.text()} compares with a champion: give a baseline")
    others = select(champion.rows, gate.env, gate.slice)
    first, second = _pair(rows, others, gate.metric, report.price, champion.price)
    values = _less(first, second, gate.metric)
    ends = limits and limits_of_difference(limits)
    best = limits and _less(first.filled(limits[0 if less_is_better(gate.metric) else 1]), second, gate.metric)
    return Measured(
        error,
        values,
        ends,
        best,
        difference=difference_of(values, ends, confidence),
        value=_mean(first),
        champion=_mean(second),
        fault=_fault(gate, limits, first, second),
    )


def _fault(gate: Gate, limits: Range | None, *sides: ClusteredValues) -> str:
    """Why values that cannot be leave the gate without an answer."""
    for side in sides:
        if (wrong := outside(side, limits)) is not None:
            return (
                f"a task has {wrong:g}, outside {list(limits or ())}, and nothing is shown: say what it can be "
                f"under [ranges] in the suite, for example {gate.metric} = [-1, 1]"
            )
    return ""


def _pair(
    rows: Sequence[Row], others: Sequence[Row], metric: str, price: Price | None, other_price: Price | None
) -> tuple[ClusteredValues, ClusteredValues]:
    """Both sides' values on the tasks that both have one for."""
    shared = {row.key for row in rows} & {row.key for row in others}
    mine = task_values([row for row in rows if row.key in shared], metric, price)
    theirs = task_values([row for row in others if row.key in shared], metric, other_price)
    both = [row for row in rows if row.key in mine and row.key in theirs]
    return clustered(both, mine), clustered(both, theirs)


def _less(first: ClusteredValues, second: ClusteredValues, metric: str) -> ClusteredValues:
    """The difference, signed so that more is better."""
    gap = first.filled(first.value_N - second.value_N)
    return gap.mirrored() if less_is_better(metric) else gap


def limits_of_difference(limits: Range) -> Range:
    """What the difference of two such values can be."""
    width = limits[1] - limits[0]
    return -width, width


def _mean(values: ClusteredValues) -> float | None:
    return float(np.average(values.value_N, weights=values.weight_N)) if len(values.value_N) else None


def _unscored_check(suite: Suite, report: Report) -> Check:
    passed = report.unscored_share <= suite.max_unscored
    return Check(
        gate=f"at_most({suite.max_unscored:g}) on unscored",
        passed=passed,
        reason=f"{report.unscored} of {report.samples} samples could not be scored, "
        f"{'within' if passed else 'more than'} the {suite.max_unscored:.1%} allowed",
        value=report.unscored_share,
        bound=suite.max_unscored,
    )


def _reason(passed: bool, checks: Sequence[Check]) -> str:
    """The first failing check when rejected, else what was shown."""
    failed = [check for check in checks if not check.passed]
    if not passed:
        more = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
        few = ", ".join(check.gate for check in failed if check.too_few)
        return failed[0].reason + more + (f"; too few tasks for: {few}" if more and few else "")
    return "; ".join(check.reason for check in checks[1:] if check.passed)
