"""Comparisons, tables, JUnit, Markdown: what people and machines read of an eval."""

from collections.abc import Callable
from io import StringIO
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console, RenderableType

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.evals.compare import compare, gains
from vertigym.evals.gate import decide
from vertigym.evals.metrics import Row
from vertigym.evals.report import Report, make_report
from vertigym.evals.suite import Suite
from vertigym.reports.ci import junit, summary
from vertigym.reports.tables import comparison_tables, decision_table, report_tables

SUITE = Suite.model_validate(
    {
        "name": "returns",
        "env": [{"id": "a/B-v0"}],
        "metrics": ["score", "latency_p95"],
        "gate": [{"rule": "improves"}, {"rule": "at_most", "metric": "latency_p95", "threshold": 3}],
    }
)


def report(model: str, score: Callable[[int], float | None], tasks: int = 200, hash_: str = "h") -> Report:
    rows = [
        Row(
            env="returns",
            task=str(i),
            digest=f"d{i}",
            cluster="",
            weight=1 / tasks,
            slices={"rule": (f"r<{i % 3}>",)},
            scores=(score(i),),
            parts={},
            prompt_tokens=(9,),
            completion_tokens=(3,),
            latency_s=(1 + i / 100,),
            reasons=() if score(i) is not None else ("verifier: timed out",),
        )
        for i in range(tasks)
    ]
    return make_report(SUITE, hash_, rows, model=model, seed=0, started="")


def chance(share: float, salt: str) -> Callable[[int], float]:
    return lambda i: float(generator(salt, i).random() < share)


def text(renderable: RenderableType) -> str:
    console = Console(file=StringIO(), width=160, record=True)
    console.print(renderable)
    return console.export_text()


OLD = report("old", lambda i: float(i % 2))
NEW = report("new", lambda i: float(i % 2 or i % 4 == 0))


def test_the_better_one_is_called_better_and_what_was_won_is_listed() -> None:
    (found,) = compare([OLD, NEW])
    assert found.better
    assert found.verdict.startswith("new is better than old: +25.0 points [+")
    assert (len(found.won), len(found.lost)) == (50, 0)
    assert found.won[0] == ("returns", "0")
    assert found.difference.p == pytest.approx(2**-49)  # McNemar's
    (back,) = compare([NEW, OLD])
    assert back.better is False
    assert len(back.lost) == 50


def test_when_it_cannot_tell_it_says_what_it_could_see() -> None:
    (found,) = compare([report("a", chance(0.5, "a")), report("b", chance(0.53, "b"))])
    assert found.better is None
    assert found.verdict.startswith("cannot tell: ")
    assert "this suite sees differences of 1" in found.verdict
    assert "tasks would show the difference measured" in found.verdict
    (same,) = compare([OLD, OLD])
    assert same.verdict == "cannot tell: every task scores the same in both: +0.0 points [-1.8, +1.8]"


def test_slices_pay_for_their_number() -> None:
    (found,) = compare([OLD, NEW])
    lines = found.slices["rule"]
    assert [line.label for line in lines] == ["r<0>", "r<1>", "r<2>"]
    assert all(gains(line) for line in lines)
    for line in lines:
        assert line.difference is not None
        assert line.p_adjusted is not None
        assert line.difference.p is not None
        assert line.p_adjusted >= line.difference.p


def test_environments_are_compared_one_by_one_where_there_are_several() -> None:
    def two(model: str, score: Callable[[int], float]) -> Report:
        one = report(model, score)
        rows = [
            row.model_copy(update={"env": "returns" if i < 100 else "credit"}) for i, row in enumerate(one.rows)
        ]
        return make_report(SUITE, "h", rows, model=model, seed=0, started="")

    (found,) = compare([two("old", lambda i: float(i >= 100)), two("new", lambda i: float(i < 100))])
    assert found.better is None
    credit, returns = found.slices["environment"]
    assert (credit.label, gains(credit)) == ("credit", False)
    assert (returns.label, gains(returns)) == ("returns", True)
    assert "environment" not in compare([OLD, NEW])[0].slices


def test_several_models_are_set_against_the_first() -> None:
    assert [c.model for c in compare([OLD, NEW, OLD])] == ["new", "old"]
    with pytest.raises(ConfigError, match="two reports"):
        compare([OLD])


def test_another_suite_is_compared_only_on_request_and_only_where_it_is_the_same() -> None:
    longer = report("longer", lambda i: 1.0, tasks=210, hash_="other")
    with pytest.raises(ConfigError, match="run both on one suite"):
        compare([OLD, longer])
    (found,) = compare([OLD, longer], common=True)
    assert found.left_out == 10
    assert found.difference.tasks == 200


def test_tables_show_verdict_numbers_and_what_was_not_scored() -> None:
    holes = report("holes", lambda i: None if i < 3 else 1.0)
    assert "3 of 200 samples could not be scored: verifier: timed out (3)" in text(report_tables(holes))
    assert "REJECTED improves on score" in text(decision_table(decide(SUITE, OLD, OLD)))
    shown = text(comparison_tables(compare([OLD, NEW])[0]))
    assert "+0.250 [" in shown
    assert "latency_p95 (less)" in shown


def test_junit_has_a_case_for_each_gate_and_each_slice() -> None:
    nasty = NEW.model_copy(update={"model": "m\x00<&>\ud800"})
    decisions = [(decide(SUITE, nasty, OLD), nasty), (decide(SUITE, OLD, NEW), OLD)]
    root = ET.fromstring(junit(decisions))
    passed, failed = root.findall("testsuite")
    assert (passed.get("tests"), passed.get("failures")) == ("6", "0")
    assert failed.get("failures") == "1"
    failure = failed.find("testcase/failure")
    assert failure is not None
    assert "worse: 0.500 against 0.750" in (failure.get("message") or "")
    assert [case.get("name") for case in passed.findall("testcase")][-1] == "rule=r<2>"


def test_the_summary_leads_with_the_verdict() -> None:
    lines = summary(decide(SUITE, NEW, OLD), NEW).split("\n")
    assert lines[0] == "## ✅ returns: promoted"
    assert lines[2].startswith("improves on score: better: 0.750 against 0.500")
    assert "| r&lt;0> | 67 |" in "\n".join(lines)
    assert summary(decide(SUITE, OLD, NEW), OLD).startswith("## ❌ returns: rejected")
