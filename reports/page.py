"""One self-contained HTML page of a report or a run: no network, dark and light.

This module gathers the data; `page.html`, `page.css` and the scripts beside it draw. Everything a model wrote
reaches the page as JSON and is shown as text, never as markup.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vertigym.core.files import jsonable
from vertigym.evals.compare import MOVED, Comparison, Line, compare
from vertigym.evals.gate import Check, Decision
from vertigym.evals.metrics import less_is_better, task_value
from vertigym.evals.report import Report
from vertigym.evals.sample_records import read_samples
from vertigym.evals.statistics import Difference, Estimate
from vertigym.reports.mistakes import class_confusions
from vertigym.reports.rollout_view import Rollouts, calibration, from_samples, lengths
from vertigym.reports.tables import difference_cell

HERE = Path(__file__).parent
MOST_ROWS = 200  # of a table by slice
Json = dict[str, Any]


def report_page(
    report: Report,
    *,
    baseline: Report | None = None,
    decision: Decision | None = None,
    samples: Path | None = None,
) -> str:
    """The page of one report, with what a baseline, a decision and the saved samples add to it.

    Raises:
        ConfigError: the baseline is of another suite. DataError: the samples are missing or malformed.
    """
    return render(report_data(report, baseline=baseline, decision=decision, samples=samples))


def render(data: Json, *scripts: Path) -> str:
    """Data as a page; `scripts` add views to draw it by."""
    text = json.dumps(jsonable(data), separators=(",", ":"), allow_nan=False)
    text = text.replace("<", "\\u003c")  # nothing in the data can close the script element
    page = (HERE / "page.html").read_text(encoding="utf-8")
    code = (file.read_text(encoding="utf-8") for file in (HERE / "page.js", HERE / "rollouts.js", *scripts))
    page = page.replace("/*CSS*/", (HERE / "page.css").read_text(encoding="utf-8"))
    page = page.replace("/*JS*/", "\n".join(code))
    return page.replace('"DATA"', text)


def report_data(
    report: Report,
    *,
    baseline: Report | None = None,
    decision: Decision | None = None,
    samples: Path | None = None,
    rules: Mapping[str, str] | None = None,
) -> Json:
    """What the page of a report shows; `rules` says rules in words, by id."""
    comparison = compare([baseline, report])[0] if baseline else None
    rollouts = _rollouts(report, baseline, samples)
    if decision:
        verdict = verdict_of(decision.passed, decision.verdict, decision.reason)
    elif comparison:
        word = {True: "better", False: "worse", None: "cannot tell"}[comparison.better]
        verdict = verdict_of(comparison.better, word, comparison.verdict)
    else:
        verdict = verdict_of(None, "measured", f"score {mean_and_interval(report.score)}")
    return {
        "title": f"{report.suite}: {report.model or 'report'}",
        "verdict": verdict,
        "facts": facts(report, baseline),
        "tables": [metric_table(report)],
        "pairs": paired_tables(comparison, rules or {}) if comparison else [],
        "confusions": class_confusions(report),
        "curves": [],
        "gates": [gate_row(decision)] if decision else [],
        "heat": heat(
            [baseline, report] if baseline else [report],
            ["before", "after"] if baseline else ["score"],
            rules=rules or {},
        ),
        "rule_texts": dict(rules or {}),
        "calibration": calibration(rollouts.all),
        "lengths": lengths(rollouts.all),
        "rollouts": rollouts.shown(),
        "rollouts_in_all": len(rollouts.all),
        "live": False,
    }


def verdict_of(passed: bool | None, word: str, text: str) -> Json:
    """The line the page opens with."""
    return {"passed": passed, "word": word, "text": text}


def mean_and_interval(found: Estimate) -> str:
    """`0.842 [0.791, 0.880]`."""
    if found.mean is None:
        return "not measured"
    if found.low is None or found.high is None:
        return f"{found.mean:.3f}"
    return f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"


def facts(report: Report, baseline: Report | None) -> list[tuple[str, str]]:
    """What was measured, by name and value."""
    rows = [
        ("model", report.model),
        ("baseline", baseline.model if baseline else ""),
        ("suite", f"{report.suite} ({report.suite_hash})"),
        ("tasks", report.tasks_text),
        ("samples", f"{report.samples:,}, {report.unscored:,} not scored"),
        ("tokens", f"{report.prompt_tokens:,} read, {report.completion_tokens:,} written"),
        ("cost", f"${report.cost:,.2f}" if report.cost is not None else ""),
        ("tags", ", ".join(report.tags)),
        ("seed", str(report.seed)),
        ("started", report.started),
        ("versions", ", ".join(f"{name} {number}" for name, number in report.versions.items())),
    ]
    return [(name, value) for name, value in rows if value]


def metric_table(report: Report) -> Json:
    """Metrics by environment."""
    rows = [
        [env, metric, found.mean, found.se, found.low, found.high]
        for metric, by_env in report.metrics.items()
        for env, found in by_env.items()
        if env == "all" or len(by_env) > 2
    ]
    return {"title": "Metrics", "head": ["environment", "metric", "mean", "± se", "low", "high"], "rows": rows}


def paired_tables(comparison: Comparison, rules: Mapping[str, str]) -> list[Json]:
    """Every metric, and every value of a slice, the largest losses first; paired task by task."""
    tables = {"metric": comparison.metrics} | {
        name: tuple(sorted(lines, key=lambda line: _mean(line.difference)))
        for name, lines in comparison.slices.items()
        if len(lines) <= MOST_ROWS
    }
    head = ["before", "after", "difference", "p"]
    return [
        {
            "title": f"Paired by {name}",
            "head": [name, *head],
            "rows": [_paired_row(line, name, rules) for line in lines],
        }
        for name, lines in tables.items()
    ]


def _paired_row(line: Line, name: str, rules: Mapping[str, str]) -> list[str | float | None]:
    p = line.difference.p if line.difference and line.p_adjusted is None else line.p_adjusted
    less = " (less is better)" if name == "metric" and less_is_better(line.label) else ""
    label = rules.get(line.label, line.label) if name == "rule" else line.label
    return [label + less, line.baseline, line.value, difference_cell(line.difference), p]


def _mean(difference: Difference | None) -> float:
    return 0.0 if difference is None or difference.mean is None else difference.mean


def gate_row(decision: Decision, step: int | None = None, verdict: str = "") -> Json:
    """A suite's decision for the list of gates; `verdict` is the one over all suites of the step."""
    return {
        "step": step,
        "verdict": verdict or decision.verdict,
        "suite": decision.suite,
        "passed": decision.passed,
        "reason": decision.reason,
        "checks": [_check(check) for check in decision.checks],
    }


def heat(
    reports: Sequence[Report],
    labels: Sequence[str],
    marked: int | None = None,
    rules: Mapping[str, str] | None = None,
) -> list[Json]:
    """A heat map a slice name: rows are its values, columns the reports."""
    return [
        {
            "title": f"Score by {name} · {reports[-1].suite}",
            "columns": list(labels),
            "marked": marked,
            "rows": [
                {
                    "label": (rules or {}).get(value, value) if name == "rule" else value,
                    "tasks": reports[-1].slices[name][value].tasks,
                    "cells": [_cell(report, name, value) for report in reports],
                }
                for value in by_value
            ],
        }
        for name, by_value in reports[-1].slices.items()
        if len(by_value) <= MOST_ROWS
    ]


def _cell(report: Report, name: str, value: str) -> Json | None:
    found = report.slices.get(name, {}).get(value)
    return {"mean": found.mean, "se": found.se} if found else None


def _check(check: Check) -> Json:
    difference = check.difference
    measured = check.estimate
    return {
        "gate": check.gate,
        "passed": check.passed,
        "reason": check.reason,
        "value": check.value,
        "champion": check.champion,
        "mean": difference.mean if difference else measured.mean if measured else check.value,
        "low": difference.low if difference else measured.low if measured else None,
        "high": difference.high if difference else measured.high if measured else None,
        "bound": check.bound,
    }


def _rollouts(report: Report, baseline: Report | None, samples: Path | None) -> Rollouts:
    if samples is None:
        return Rollouts([], None)
    _, records = read_samples(samples)
    before = {row.key: task_value(row, "score") for row in baseline.rows} if baseline else {}
    moves: dict[tuple[str, str], str] = {}
    for row in report.rows:
        mine, theirs = task_value(row, "score"), before.get(row.key)
        if mine is not None and theirs is not None and abs(mine - theirs) > MOVED:
            moves[row.key] = "won" if mine > theirs else "lost"
    slices = {row.key: row.slices for row in report.rows}
    return from_samples(records, slices, moves, Path(report.model))
