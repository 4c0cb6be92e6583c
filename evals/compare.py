"""Compare reports of one suite task by task, and say in words what follows.

The first report is the baseline; each further one is set against it. A verdict is "better" or "worse" only when
the paired interval says so; otherwise it is "cannot tell", with the smallest difference that this suite sees
and the tasks that it would take.
"""

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

from vertigym.core.errors import ConfigError
from vertigym.evals.gate import check_same_suite, compare_rows
from vertigym.evals.metrics import Row, quantile, task_value
from vertigym.evals.power import smallest_difference, tasks_needed
from vertigym.evals.report import Report
from vertigym.evals.rules import is_quantile
from vertigym.evals.statistics import Difference, holm

MOVED = 0.5  # a task is won or lost when its score moves by more than half its range


class Line(BaseModel):
    """One row of the paired table: a metric, or the score of a slice. `difference` is signed so that more is
    better; `p_adjusted` is Holm's over the slices of one name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    value: float | None
    baseline: float | None
    difference: Difference | None
    p_adjusted: float | None = None


class Comparison(BaseModel):
    """One report against the baseline. `smallest` is the true difference found with 80% chance, `needed` the
    tasks that would find the difference measured; `won` and `lost` are (environment, task)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    baseline: str
    verdict: str
    better: bool | None
    metrics: tuple[Line, ...]
    slices: dict[str, tuple[Line, ...]]
    won: tuple[tuple[str, str], ...]
    lost: tuple[tuple[str, str], ...]
    smallest: float | None
    needed: int | None
    left_out: int

    @property
    def difference(self) -> Difference:
        """Of the score."""
        found = self.metrics[0].difference
        assert found
        return found


def compare(reports: Sequence[Report], *, common: bool = False) -> list[Comparison]:
    """Every report but the first against the first.

    `common` compares reports of different suites on the tasks whose content is the same in both; how many were
    left out is part of the result.

    Raises:
        ConfigError: fewer than two reports, suites that differ without `common`, or no common task.
    """
    if len(reports) < 2:
        raise ConfigError("compare needs two reports or more")
    baseline, *others = reports
    return [_against(report, baseline, common) for report in others]


def _against(report: Report, baseline: Report, common: bool) -> Comparison:
    if not common:
        check_same_suite(report, baseline)
    rows, base, left_out = _common(report, baseline)
    metrics = [
        _line(metric, metric, rows, base, report, baseline)
        for metric in dict.fromkeys(("score", *report.metrics, *_usage(report, baseline)))
    ]
    difference = metrics[0].difference
    assert difference
    smallest = smallest_difference(difference)
    needed = tasks_needed(abs(difference.mean or 0.0), difference)
    won, lost = _moved(rows, base)
    return Comparison(
        model=report.model,
        baseline=baseline.model,
        verdict=verdict(report.model, baseline.model, difference, smallest, needed),
        better=_sign(difference),
        metrics=tuple(metrics),
        slices={
            name: _slice_lines(by_value, rows, base, report, baseline)
            for name, by_value in _groups(rows).items()
        },
        won=won,
        lost=lost,
        smallest=smallest,
        needed=needed,
        left_out=left_out,
    )


def verdict(
    model: str, baseline: str, difference: Difference, smallest: float | None, needed: int | None
) -> str:
    """What the paired difference of the score means, in one sentence."""
    if difference.mean is None:
        return "cannot tell: no task is scored in both reports"
    if difference.low is None or difference.high is None:
        return "cannot tell: one cluster is too few"
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    points = f"{mean:+z.1f} points [{low:+z.1f}, {high:+z.1f}]"
    better = _sign(difference)
    if better is not None:
        return f"{model} is {'better' if better else 'worse'} than {baseline}: {points}"
    if difference.ties == difference.tasks:
        return f"cannot tell: every task scores the same in both: {points}"
    more = f"; about {needed:,} tasks would show the difference measured" if needed else ""
    sees = f"; this suite sees differences of {100 * smallest:.1f} points or more" if smallest else ""
    return f"cannot tell: {points}{sees}{more}"


def _sign(difference: Difference) -> bool | None:
    """True better, False worse, None cannot tell."""
    if difference.low is None or difference.high is None:
        return None
    return True if difference.low > 0 else False if difference.high < 0 else None


def _common(report: Report, baseline: Report) -> tuple[list[Row], list[Row], int]:
    """Rows of tasks with the same content in both, and how many have no partner."""
    theirs = {(row.key, row.digest): row for row in baseline.rows}
    rows = [row for row in report.rows if (row.key, row.digest) in theirs]
    if not rows:
        raise ConfigError(f"{report.model} and {baseline.model} have no task in common")
    base = [theirs[row.key, row.digest] for row in rows]
    return rows, base, len(report.rows) + len(baseline.rows) - 2 * len(rows)


def _line(
    label: str, metric: str, rows: Sequence[Row], base: Sequence[Row], report: Report, baseline: Report
) -> Line:
    if is_quantile(metric):
        return Line(label=label, value=quantile(rows, metric), baseline=quantile(base, metric), difference=None)
    difference, value, theirs = compare_rows(
        rows,
        base,
        metric,
        confidence=report.confidence,
        price=report.price,
        other_price=baseline.price,
        limits=report.limits(metric),
    )
    return Line(label=label, value=value, baseline=theirs, difference=difference)


def _usage(report: Report, baseline: Report) -> list[str]:
    """The budget metrics both reports have."""
    priced = ["cost"] if report.price and baseline.price else []
    timed = ["latency_p50", "latency_p95"] if any(any(row.latency_s) for row in report.rows) else []
    return ["tokens", *timed, *priced]


def _groups(rows: Sequence[Row]) -> dict[str, dict[str, list[int]]]:
    """Places of rows by slice name and value; environments are a slice too where there are several."""
    groups: dict[str, dict[str, list[int]]] = {"environment": {}}
    for i, row in enumerate(rows):
        groups["environment"].setdefault(row.env, []).append(i)
        for name, values in row.slices.items():
            for value in values:
                groups.setdefault(name, {}).setdefault(value, []).append(i)
    if len(groups["environment"]) < 2:
        del groups["environment"]
    return groups


def _slice_lines(
    by_value: Mapping[str, Sequence[int]],
    rows: Sequence[Row],
    base: Sequence[Row],
    report: Report,
    baseline: Report,
) -> tuple[Line, ...]:
    lines = [
        _line(value, "score", [rows[i] for i in places], [base[i] for i in places], report, baseline)
        for value, places in sorted(by_value.items())
    ]
    tested = {line.label: d.p for line in lines if (d := line.difference) and d.p is not None}
    adjusted = dict(zip(tested, holm(list(tested.values())), strict=True))
    return tuple(line.model_copy(update={"p_adjusted": adjusted.get(line.label)}) for line in lines)


def _moved(
    rows: Sequence[Row], base: Sequence[Row]
) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]:
    """Tasks whose mean score rose or fell by more than half a point."""
    moves = [
        (row.key, mine - theirs)
        for row, other in zip(rows, base, strict=True)
        if (mine := task_value(row, "score")) is not None and (theirs := task_value(other, "score")) is not None
    ]
    won = tuple(key for key, move in moves if move > MOVED)
    return won, tuple(key for key, move in moves if move < -MOVED)


def gains(line: Line) -> bool | None:
    """Whether a line is a gain (True), a loss (False) or neither, at its adjusted p-value where it has one."""
    difference = line.difference
    if difference is None or (line.p_adjusted is not None and line.p_adjusted > 1 - difference.confidence):
        return None
    return _sign(difference)
