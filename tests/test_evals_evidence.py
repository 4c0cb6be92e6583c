"""What is one piece of evidence, and which gates can pass nothing with so few of them."""

from collections.abc import Mapping

import pytest
from pydantic import ValidationError

from vertigym.core.errors import ConfigError
from vertigym.core.types import Task
from vertigym.evals.evidence import shortfalls
from vertigym.evals.gate import decide
from vertigym.evals.report import Report, make_report
from vertigym.evals.suite import Suite, cluster_of, task_list

from .gate_reports import IMPROVES, NOT_WORSE, five_rules, report, right_below, suite


@pytest.mark.parametrize(("by", "passes"), [("", True), ("case", True), ("rules", False)])
def test_a_table_of_five_rules_can_be_promoted(by: str, passes: bool) -> None:
    """Its cases are what is sampled; five sets of rules are five clusters, and p = 1/32."""
    chosen = suite(IMPROVES, cluster=by)

    def measured(score: float) -> Report:
        rows = [
            row.model_copy(update={"env": "e", "cluster": cluster_of(five_rules(i), by), "scores": (score,)})
            for i, row in enumerate(report(right_below(0), tasks=300).rows)
        ]
        return make_report(chosen, "hash", rows, model="m", seed=0, started="")

    assert decide(chosen, measured(1.0), measured(0.0)).passed is passes
    counted = {
        "": "300 clusters (the tasks' own)",
        "case": "300 clusters (case)",
        "rules": "5 clusters (rules)",
    }[by]
    assert measured(1.0).tasks_text == f"300 tasks in {counted}"


def test_a_suite_says_what_is_one_piece_of_evidence() -> None:
    one, twin, other = five_rules(1), five_rules(1).model_copy(update={"id": "again"}), five_rules(41)
    twin.info["input"] = dict(reversed(twin.info["input"].items()))  # the same case, written in another order
    assert cluster_of(one, "case") == cluster_of(twin, "case") != cluster_of(other, "case")
    assert cluster_of(one, "info.customer") == cluster_of(other, "info.customer") == '"c1"'
    assert cluster_of(one, "rules") == cluster_of(five_rules(6), "rules")
    assert cluster_of(one, "info.nothing") == ""
    plain = Task(id="a", prompt="?", cluster="c")
    assert (cluster_of(plain, ""), cluster_of(plain, "case"), cluster_of(plain, "rules")) == ("c", "c", "")
    with pytest.raises(ValidationError, match="cluster"):
        suite(IMPROVES, cluster="rule")


def test_gates_that_can_pass_nothing_are_named_before_anything_is_measured() -> None:
    def lines(tasks: int, *gates: Mapping[str, object], error: float | None = None) -> list[str]:
        chosen = Suite.model_validate(
            {"name": "s", "env": [{"id": "vertigym/Returns-v0", "tasks": tasks}], "gate": gates}
        )
        return shortfalls(chosen, task_list(chosen), error)

    assert lines(5, IMPROVES) == [
        "suite s: improves on score can pass no policy: it takes 6 clusters of tasks, there are 5"
    ]
    assert lines(6, IMPROVES) == []
    assert "it takes 8 clusters" in lines(6, IMPROVES, error=0.005)[0]
    assert lines(100, NOT_WORSE) == [
        "suite s: not_worse(0.02) on score can pass only a policy that gains something: "
        "it takes 183 clusters of tasks, there are 100"
    ]
    assert "it takes 72" in lines(60, {"rule": "at_least", "threshold": 0.95})[0]
    assert "it takes 72" in lines(60, {"rule": "at_most", "threshold": 0.05, "metric": "pass@1"})[0]
    few, missed = lines(30, {**IMPROVES, "slice": "rule"})
    assert "rule=" in few
    assert missed == "suite s: improves on score of rule says nothing of ruling:4, ruling:9, which no task hits"
    for beyond in ({"rule": "at_least", "threshold": 1}, {**IMPROVES, "margin": 1}):
        (line,) = lines(100, beyond)
        assert line.endswith("can pass no policy: not even a perfect policy gets past the bound")
    assert lines(5, {"rule": "at_most", "metric": "latency", "threshold": 1}) == []


def test_gates_that_share_one_error_need_more_tasks_each() -> None:
    """Six wins show something by themselves; as one of two gates of which any is enough they do not."""
    sure = {"rule": "at_least", "threshold": 0.1}

    def named(tasks: int, *gates: Mapping[str, object]) -> int:
        chosen = suite(*gates, combine="any", env=[{"id": "vertigym/Returns-v0", "tasks": tasks}])
        lines = shortfalls(chosen, task_list(chosen))
        ones, zeros = (report(lambda i, s=s: s, tasks=tasks, clusters=tasks) for s in (1.0, 0.0))  # type: ignore[misc]
        checks = decide(chosen, ones, zeros).checks[1:]
        assert [check.passed for check in checks].count(False) == len(lines)
        assert all(check.too_few is not check.passed for check in checks)
        assert all(f"it takes {tasks + 1} clusters of tasks, there are {tasks}" in line for line in lines)
        return len(lines)

    assert named(6, IMPROVES) == 0
    assert named(6, IMPROVES, {**IMPROVES, "metric": "pass@1"}) == 2
    assert named(7, IMPROVES, {**IMPROVES, "metric": "pass@1"}) == 0
    assert named(6, IMPROVES, sure) == 0  # the sure one comes first, and leaves the other all of the error


def test_a_champion_that_leaves_nothing_to_gain_is_not_called_too_few_tasks() -> None:
    perfect = report(right_below(200))
    decision = decide(suite(IMPROVES), perfect, perfect)
    assert decision.reason.endswith("; not even a perfect policy gets past the bound")
    assert not decision.checks[1].too_few


def test_a_cluster_that_no_task_has_is_a_slip() -> None:
    for by, known in (("info.custmer", False), ("rules", True), ("case", True)):
        chosen = suite(IMPROVES, cluster=by, env=[{"id": "vertigym/Returns-v0", "tasks": 9}])
        if known:
            task_list(chosen)
        else:
            with pytest.raises(ConfigError, match="no task has one, and each would count as"):
                task_list(chosen)
