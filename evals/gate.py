"""Gates: a rule over a Report and the champion's Report on the same tasks; a Decision with every number in it.

A gate passes only on evidence: the end of an interval, not its middle, is what the rule is applied to. At
confidence 95% a challenger that is no better passes `improves` in at most 2.5% of evals (one side of the
interval), and where only a few tasks differ a sign-flip test must agree. Gates combined with `all` need no
correction, because each has to pass (an intersection-union test, Berger 1982, Technometrics 24:295);
combined with `any`, the paired ones are held to Holm's adjusted p-values.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.evals.metrics import Row, check_metric, is_quantile, less_is_better, task_values
from vertigym.evals.power import smallest_difference
from vertigym.evals.report import Report, estimate_metric, select
from vertigym.evals.rules import Gate, Measured
from vertigym.evals.statistics import Difference, Estimate, holm, paired_difference
from vertigym.evals.suite import Price, Suite


class Check(BaseModel):
    """One gate's outcome. `value` and `champion` are the metric's means on the tasks compared; `difference`
    is signed so that more is better; `p` is one-sided and `p_adjusted` Holm's, where gates are combined by any.
    `smallest` is the true difference that this comparison finds with 80% chance."""

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
    **context: Any,
) -> Decision:
    """Apply the suite's gates to `report`; `context` (a step, a time) is kept in the record. `start` is the
    report that gates with `against = "start"` compare with; without it they use the champion's.

    Raises:
        ConfigError: the suite has no gate, a gate compares and there is no champion, a gate names a metric,
            environment or slice that is not there, or the two reports measured different suites.
    """
    if not suite.gate:
        raise ConfigError(f"suite {suite.name} has no [[gate]]: nothing to decide")
    for other in (champion, start):
        if other:
            check_same_suite(report, other)
    checks = [_unscored_check(suite, report)]
    gates = [one for gate in suite.gate for one in _expanded(gate, report)]
    against = {"champion": champion, "start": start or champion}
    decided = [_check(gate, suite, report, against[gate.against]) for gate in gates]
    if suite.combine == "any":
        decided = _adjusted(decided, suite.confidence)
    combined = all if suite.combine == "all" else any
    passed = checks[0].passed and combined(check.passed for check in decided)
    checks += decided
    return Decision(
        passed=passed,
        reason=_reason(passed, checks),
        suite=suite.name,
        suite_hash=report.suite_hash,
        model=report.model,
        champion=champion.model if champion else None,
        seed=report.seed,
        confidence=suite.confidence,
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
) -> tuple[Difference, float | None, float | None]:
    """The paired difference of a metric on tasks that both have it for, and both means on those tasks. Signed
    so that more is better."""
    shared = {row.key for row in rows} & {row.key for row in others}
    values = task_values([row for row in rows if row.key in shared], metric, price)
    other_values = task_values([row for row in others if row.key in shared], metric, other_price)
    pairs = [
        (row, values[row.key], other_values[row.key])
        for row in rows
        if row.key in values and row.key in other_values
    ]
    sign = -1.0 if less_is_better(metric) else 1.0
    first, second = [sign * mine for _, mine, _ in pairs], [sign * theirs for *_, theirs in pairs]
    weights = [row.weight for row, *_ in pairs]
    difference = paired_difference(
        first,
        second,
        generator(0, "paired", metric),
        clusters=[row.unit for row, *_ in pairs],
        weights=weights,
        strata=[row.env for row, *_ in pairs],
        confidence=confidence,
        unit=_unit(metric, first, second),
    )
    if not pairs:
        return difference, None, None
    value, theirs = (sign * float(np.average(side, weights=weights)) + 0.0 for side in (first, second))
    return difference, value, theirs


def _unit(metric: str, first: Sequence[float], second: Sequence[float]) -> float:
    """The largest difference one task can show: the range of scores, at least 1; of latency, tokens and cost
    the largest seen."""
    if less_is_better(metric):
        return max((abs(a - b) for a, b in zip(first, second, strict=True)), default=1.0)
    values = (*first, *second, 0.0, 1.0)
    return max(values) - min(values)


def _expanded(gate: Gate, report: Report) -> list[Gate]:
    """A gate on a slice name without a value stands for one gate a value."""
    if not gate.slice or "=" in gate.slice:
        return [gate]
    rows = select(report.rows, gate.env)
    values = sorted({value for row in rows for value in row.slices.get(gate.slice, ())})
    if not values:
        raise ConfigError(f"gate {gate.text()}: no task has a slice {gate.slice!r}")
    return [gate.model_copy(update={"slice": f"{gate.slice}={value}"}) for value in values]


def _check(gate: Gate, suite: Suite, report: Report, champion: Report | None) -> Check:
    rows = select(report.rows, gate.env, gate.slice)
    check_metric(gate.metric, rows, report.price)
    measured = (
        _paired(gate, suite, report, champion, rows) if gate.paired else _alone(gate, suite, report, rows)
    )
    verdict = gate.by.decide(gate, measured)
    return Check(
        gate=gate.text(),
        passed=verdict.passed,
        reason=verdict.reason,
        value=measured.estimate.mean if measured.estimate else measured.value,
        champion=measured.champion,
        difference=measured.difference,
        estimate=measured.estimate,
        bound=verdict.bound,
        p=verdict.p,
        smallest=measured.smallest,
    )


def _paired(gate: Gate, suite: Suite, report: Report, champion: Report | None, rows: Sequence[Row]) -> Measured:
    if champion is None:
        raise ConfigError(f"gate {gate.text()} compares with a champion: give a baseline")
    if is_quantile(gate.metric):
        raise ConfigError(f"gate {gate.text()}: {gate.metric} has no value for a task; use at_most")
    difference, value, theirs = compare_rows(
        rows,
        select(champion.rows, gate.env, gate.slice),
        gate.metric,
        confidence=suite.confidence,
        price=report.price,
        other_price=champion.price,
    )
    smallest = None
    if difference.se is not None:
        smallest = smallest_difference(difference.se, difference.clusters, suite.confidence)
    return Measured(difference=difference, value=value, champion=theirs, smallest=smallest)


def _alone(gate: Gate, suite: Suite, report: Report, rows: Sequence[Row]) -> Measured:
    found = estimate_metric(rows, gate.metric, suite.confidence, report.price)
    return Measured(estimate=found, exact=is_quantile(gate.metric) or gate.metric == "unscored")


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


def _adjusted(checks: Sequence[Check], confidence: float) -> list[Check]:
    """Hold paired checks to Holm's p-values: with `any`, each further gate is a further chance to pass."""
    tested = [check.p for check in checks if check.p is not None]
    adjusted = iter(holm(tested))

    def held(check: Check) -> Check:
        if check.p is None:
            return check
        p = next(adjusted)
        passed = check.passed and p <= (1 - confidence) / 2
        return check.model_copy(update={"p_adjusted": p, "passed": passed})

    return [held(check) for check in checks]


def _reason(passed: bool, checks: Sequence[Check]) -> str:
    """The first failing check when rejected, else what was shown."""
    failed = [check for check in checks if not check.passed]
    if not passed:
        more = f" (and {len(failed) - 1} more failed)" if len(failed) > 1 else ""
        return failed[0].reason + more
    return "; ".join(check.reason for check in checks[1:] if check.passed)
