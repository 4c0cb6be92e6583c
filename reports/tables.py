"""Reports, decisions and comparisons as Rich tables for people."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from vertigym.evals.compare import Comparison, Line, gains
from vertigym.evals.gate import Decision
from vertigym.evals.metrics import less_is_better
from vertigym.evals.report import Report
from vertigym.evals.statistics import Difference, Estimate
from vertigym.evals.trend import WEEK, trend

COLOUR = {True: "green", False: "red", None: ""}


def report_tables(report: Report, *, slices: int = 20) -> RenderableType:
    """The metrics by environment, then each slice (at most `slices` values, the lowest scores first)."""
    title = f"{report.suite} · {report.model or 'model'} · {report.tasks_text}, {report.samples} samples"
    table = Table(title=title, title_justify="left")
    for heading in ("environment", "metric", "mean", "± se", f"{report.confidence:.0%} interval"):
        table.add_column(heading, justify="left" if heading in ("environment", "metric") else "right")
    for metric, by_env in report.metrics.items():
        for env, found in by_env.items():
            if env != "all" and len(by_env) == 2:
                continue  # one environment: its row would repeat "all"
            table.add_row(env, metric, *estimate_cells(found))
    parts: list[RenderableType] = [table]
    for name, by_value in report.slices.items():
        parts.append(_slice_table(name, by_value, slices))
        if name == WEEK and (moved := trend(report.rows, report.confidence)):
            parts.append(Text(f"trend: {moved.text()}"))
    if report.unscored:
        why = "; ".join(f"{reason} ({count})" for reason, count in list(report.reasons.items())[:3])
        share = f"{report.unscored} of {report.samples} samples could not be scored: {why}"
        parts.append(Text(share, style="yellow"))
    return Group(*parts)


def decision_table(decision: Decision) -> RenderableType:
    """The verdict in its first line, then one row a gate."""
    style = "bold green" if decision.passed else "bold red"
    head = Text.assemble((decision.verdict.upper(), style), f" {decision.reason}")
    table = Table()
    for heading in ("gate", "passed", "value", "champion", "difference", "p"):
        table.add_column(heading, justify="left" if heading == "gate" else "right")
    for check in decision.checks:
        table.add_row(
            check.gate,
            Text("yes" if check.passed else "no", style=COLOUR[check.passed]),
            number(check.value),
            number(check.champion),
            difference_cell(check.difference),
            number(check.difference.p if check.difference else None, 4),
        )
    return Group(head, table)


def comparison_tables(comparison: Comparison) -> RenderableType:
    """The verdict in words, the paired table, and each slice."""
    counts = f"{len(comparison.won)} tasks won, {len(comparison.lost)} lost"
    if comparison.left_out:
        counts += f"; {comparison.left_out} tasks without a partner were left out"
    parts: list[RenderableType] = [Text(comparison.verdict, style="bold"), Text(counts)]
    parts.append(_paired_table("metric", comparison.metrics, comparison))
    for name, lines in comparison.slices.items():
        ranked = sorted(lines, key=lambda line: (line.difference.mean or 0.0) if line.difference else 0.0)
        parts.append(_paired_table(name, ranked[:20], comparison))
    return Group(*parts)


def estimate_cells(found: Estimate) -> tuple[str, str, str]:
    """Mean, error and interval as text."""
    interval = "" if found.low is None or found.high is None else f"{found.low:.3f} to {found.high:.3f}"
    return number(found.mean), number(found.se), interval


def difference_cell(difference: Difference | None) -> str:
    """`+0.031 [+0.004, +0.058]`."""
    if difference is None or difference.mean is None:
        return ""
    if difference.low is None or difference.high is None:
        return f"{difference.mean:+z.3f}"
    return f"{difference.mean:+z.3f} [{difference.low:+z.3f}, {difference.high:+z.3f}]"


def number(value: float | None, digits: int = 3) -> str:
    """A number as text, nothing for None."""
    return "" if value is None else f"{value:.{digits}f}"


def _slice_table(name: str, by_value: dict[str, Estimate], limit: int) -> Table:
    table = Table(title=f"score by {name}", title_justify="left")
    for heading in (name, "tasks", "mean", "± se", "interval"):
        table.add_column(heading, justify="left" if heading == name else "right")
    if name == WEEK:  # a line in time, whole
        shown, limit = sorted(by_value.items()), len(by_value)
    else:
        shown = sorted(by_value.items(), key=lambda item: (item[1].mean is not None, item[1].mean or 0.0))
    for value, found in shown[:limit]:
        table.add_row(value, str(found.tasks), *estimate_cells(found))
    if len(shown) > limit:
        table.caption = f"{len(shown) - limit} more, with higher scores"
    return table


def _paired_table(heading: str, lines: list[Line] | tuple[Line, ...], comparison: Comparison) -> Table:
    table = Table()
    table.add_column(heading)
    for column in (*_headings(comparison), "p"):
        table.add_column(column, justify="right")
    table.add_column("gain", no_wrap=True)
    for line in lines:
        raw = line.difference.p if line.difference else None
        sign = " (less)" if heading == "metric" and less_is_better(line.label) else ""
        table.add_row(
            line.label + sign,
            number(line.baseline),
            number(line.value),
            number(raw if line.p_adjusted is None else line.p_adjusted, 4),
            Text(difference_cell(line.difference), style=COLOUR[gains(line)]),
        )
    return table


def _headings(comparison: Comparison) -> tuple[str, str]:
    """Both models' names, without the folders that they share."""
    names = comparison.baseline or "baseline", comparison.model or "model"
    last = names[0].rpartition("/")[2], names[1].rpartition("/")[2]
    return last if last[0] != last[1] and all(last) else names
