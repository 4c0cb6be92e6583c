"""A score over the weeks of a log: weeks in order over the turn of a year, the line, its error by clusters."""

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from vertigym.evals.metrics import Row
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.evals.trend import WEEK, trend, week_number
from vertigym.policies.scripted import constant
from vertigym.reports.tables import report_tables

from .trace_imports import ask, call, run, write


def row(week: str, score: float | None, cluster: str, number: int, weight: float = 1.0) -> Row:
    return Row(
        env="e", task=f"t{number}", digest="", cluster=cluster, weight=weight, slices={WEEK: (week,)},
        scores=(score,), parts={}, prompt_tokens=(1,), completion_tokens=(1,), latency_s=(0.0,),
    )  # fmt: skip


def rows(weeks: list[str], scores: list[float], clusters: list[str]) -> list[Row]:
    return [row(*one, n) for n, one in enumerate(zip(weeks, scores, clusters, strict=True))]


def test_weeks_are_counted_over_the_turn_of_a_year() -> None:
    weeks = ["2025-W52", "2026-W01", "2026-W53", "2027-W01"]
    assert [week_number(week) - week_number(weeks[0]) for week in weeks] == [0, 1, 53, 54]


def test_the_line_and_its_error_are_the_textbooks() -> None:
    """By the matrices of the sandwich estimate, on ten tasks in four clusters."""
    dice = np.random.default_rng(1)
    week, score = dice.integers(1, 9, 10), dice.random(10)
    cluster = np.array([0, 0, 0, 1, 1, 2, 2, 3, 3, 3])
    found = trend(rows([f"2026-W{w:02}" for w in week], list(score), [f"c{c}" for c in cluster]))
    x = np.stack([np.ones(10), week], axis=1)
    beta = np.linalg.lstsq(x, score, rcond=None)[0]
    left = score - x @ beta
    sums = np.stack([(x[cluster == c] * left[cluster == c, None]).sum(axis=0) for c in range(4)])
    bread = np.linalg.inv(x.T @ x)
    error = (bread @ (sums.T @ sums) @ bread)[1, 1] ** 0.5 * (4 / 3) ** 0.5
    assert found is not None
    assert found.low is not None
    assert found.slope == pytest.approx(beta[1])
    assert found.slope - found.low == pytest.approx(3.182446 * error)  # t of 3 degrees of freedom


def test_an_interval_holds_the_truth_as_often_as_it_says() -> None:
    held = 0
    for seed in range(200):
        dice = np.random.default_rng(seed)
        shift = dice.normal(0, 0.2, 40)
        week = dice.integers(1, 13, 400)
        of = np.arange(400) % 40
        score = 0.5 - 0.01 * week + shift[of] + dice.normal(0, 0.3, 400)
        found = trend(rows([f"2026-W{w:02}" for w in week], list(score), [f"c{c}" for c in of]))
        assert found is not None
        assert found.low is not None
        assert found.high is not None
        held += found.low <= -0.01 <= found.high
    assert 0.91 <= held / 200 <= 0.99


def test_one_week_has_no_trend_and_two_clusters_no_interval() -> None:
    assert trend(rows(["2026-W01"] * 3, [0, 1, 1], ["a", "b", "c"])) is None
    found = trend(rows(["2026-W01", "2026-W02", "2026-W02"], [0, 1, 0.5], ["a", "b", "a"]))
    assert found is not None
    assert (round(found.slope, 6), found.low) == (0.75, None)
    assert "too few clusters" in found.text()
    assert trend([row("2026-W01", None, "", 0), row("2026-W02", 1.0, "", 1)]) is None  # not scored is no 0


def test_a_log_s_weeks_are_slices_of_a_suite(tmp_path: Path) -> None:
    """The answer "a" is right in all calls of the first weeks, and in fewer and fewer of the later ones."""
    start = 1767225600.0  # the first of January 2026, a Thursday
    lines = [
        call(f"c{i}", ask(i), "a" if i % 10 >= i // 100 else "b", time=start + i * 6048, customer=f"u{i % 50}")
        for i in range(1000)
    ]
    run([write(tmp_path / "log.jsonl", lines)], tmp_path / "traces", split={"eval": 0, "test": 0.9})
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / "env.toml").write_text(
        'id = "desk/Trend-v0"\nkind = "classify"\nlabel = "completion"\ntraces = "../traces"\nmost = 1\n'
    )
    suite = Suite.model_validate(
        {"name": "weeks", "slices": [WEEK], "env": [{"id": str(tmp_path / "env"), "split": "test"}]}
    )
    report = run_suite(suite, constant("a"))
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(report_tables(report))
    shown = console.export_text()
    found = trend(report.rows)
    assert found is not None
    assert found.high is not None
    assert found.high < 0
    assert found.text() in shown
    weeks = [line.split()[1] for line in shown.splitlines() if "2026-W" in line]
    assert weeks == [f"2026-W{n:02}" for n in range(1, len(weeks) + 1)]
    assert len(weeks) == found.weeks == 11
