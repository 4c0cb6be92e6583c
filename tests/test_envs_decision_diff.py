"""A change of the rules: which cases and rules, the suites, and gates: learn the change, keep the rest."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.test_envs_decision_import import expression, graph, table
from vertigym.cli import app
from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.types import SPLITS, Prompt
from vertigym.decisions.model import DecisionModel
from vertigym.decisions.outputs import project
from vertigym.envs.decision.config import OLD_DECISION
from vertigym.envs.decision.diff import CHANGED, RuleComparison, compare_files
from vertigym.envs.decision.env import load
from vertigym.envs.folders import EnvFolder
from vertigym.evals.gate import decide
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite, task_list
from vertigym.policies.scripted import Scripted

EXAMPLE = Path(__file__).parents[1] / "examples" / "change"
OLD, NEW = EXAMPLE / "expenses-old.csv", EXAMPLE / "expenses.csv"


@pytest.fixture(scope="module")
def comparison() -> RuleComparison:
    return compare_files(OLD, NEW)


@pytest.fixture(scope="module")
def folder(comparison: RuleComparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("change") / "expenses"
    comparison.write(out, "acme/Expenses-v0", sizes={"train": 120, "eval": 240, "test": 60})
    return out


def test_it_names_the_rules_that_changed_and_only_cases_they_decide_change(comparison: RuleComparison) -> None:
    found = comparison.difference()
    assert found.removed == (
        "rules: days > 90 -> decision 'reject', payer 'none'",
        "rules: kind 'hotel', amount <= 150 -> decision 'pay', payer 'card'",
    )
    assert found.added == (
        "rules: days > 60 -> decision 'reject', payer 'none'",
        "rules: kind 'hotel', amount <= 120 -> decision 'pay', payer 'card'",
    )
    assert sum(change.cases for change in found.changes) == found.changed > 100
    assert {rule for change in found.changes for rule, _ in change.now} == {"rules:1", "rules:7"}
    for compared in comparison.compared:
        case = compared.case
        late = isinstance(case["days"], int | float) and 60 < case["days"] <= 90
        dear = (
            case["kind"] == "hotel" and isinstance(case["amount"], int | float) and 120 < case["amount"] <= 150
        )
        assert not compared.is_changed or late or dear


def test_every_answer_is_that_of_its_model(comparison: RuleComparison) -> None:
    for compared in comparison.compared[::50]:
        for model, answer in ((comparison.old, compared.old_answer), (comparison.new, compared.new_answer)):
            assert answer == project(model.evaluate(compared.case).output, comparison.fields)


def test_the_environment_tags_its_tasks_and_keeps_the_old_rules(folder: Path) -> None:
    old = DecisionModel.read(folder / OLD_DECISION)
    for change in ("changed", "same"):
        env = load(EnvFolder(folder), only=change)
        for split in ("train", "eval", "test"):
            tasks = [env.tasks.get(i) for i in env.tasks.ids(split)]
            assert tasks
            for task in tasks:
                before = project(old.evaluate(task.info["input"]).output, env.config.outputs)
                assert (before != task.answer) is (change == "changed")
    assert len(load(EnvFolder(folder)).tasks.ids("eval")) == sum(
        len(load(EnvFolder(folder), only=change).tasks.ids("eval")) for change in ("changed", "same")
    )


def test_many_tasks_changed_though_nearly_all_changed_to_one_answer(
    comparison: RuleComparison, folder: Path
) -> None:
    to = Counter(dumps(found.new_answer) for found in comparison.compared if found.is_changed)
    assert max(to.values()) > 0.8 * to.total()
    env = load(EnvFolder(folder))
    tasks = [env.tasks.get(i) for split in SPLITS for i in env.tasks.ids(split)]
    changed = [task for task in tasks if task.info["change"] == CHANGED]
    common = Counter(dumps(task.answer) for task in changed).most_common(1)[0][0]
    assert len(changed) > len(tasks) / 4
    guesses = [env.rubric.score(task=task, completion=common).value or 0.0 for task in tasks]
    assert sum(guesses) / len(guesses) <= 0.56


def test_a_suite_holds_only_the_changed_cases(folder: Path) -> None:
    listed = task_list(load_suite(folder / "changed.toml"))
    assert {task.task.info["change"] for task in listed.tasks} == {"changed"}
    both = task_list(load_suite(folder / "change.toml"))
    assert {(task.env, task.task.info["change"]) for task in both.tasks} == {
        ("changed", "changed"),
        ("same", "same"),
    }


def measured(folder: Path, *, new_on_changed: bool, right_on_same: bool) -> Report:
    """A policy that knows the new rules where they changed or not, and forgets a fifth of the rest or not."""
    old = DecisionModel.read(folder / OLD_DECISION)
    env = load(EnvFolder(folder))

    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        task = prompt.task
        answer: Any = task.answer
        if task.info["change"] == "changed" and not new_on_changed:
            answer = project(old.evaluate(task.info["input"]).output, env.config.outputs)
        if task.info["change"] == "same" and not right_on_same and int(task.id, 16) % 5 == 0:
            answer = {"decision": "lost", "payer": "none"}
        return json.dumps(answer)

    return run_suite(load_suite(folder / "change.toml"), Scripted(write), model="scripted")


def test_the_gates_ask_for_the_change_and_for_the_rest(folder: Path) -> None:
    suite = load_suite(folder / "change.toml")
    start = measured(folder, new_on_changed=False, right_on_same=True)
    learnt = measured(folder, new_on_changed=True, right_on_same=True)
    forgot = measured(folder, new_on_changed=True, right_on_same=False)
    assert decide(suite, learnt, start, start=start).passed
    nothing = decide(suite, start, start, start=start)
    assert not nothing.passed
    assert "improves on exact of changed" in nothing.reason
    lost = decide(suite, forgot, start, start=start)
    assert not lost.passed
    assert "not_worse(0.05) on exact of same" in lost.reason


def test_what_no_rule_explains_is_put_down_to_an_expression() -> None:
    rows = [["> 10", "'high'"], ["", "'low'"]]
    models = [
        DecisionModel(graph(expression("net", {"net": f"a * {rate}"}), table("t", ["a"], ["o"], rows)))
        for rate in (2, 3)
    ]
    found = RuleComparison(*models).difference()
    assert found.nodes == ("net",)
    assert found.removed == found.added == ()
    assert {(change.before, change.now) for change in found.changes} == {((), ())}


def test_models_that_agree_or_read_the_clock_make_no_environment(tmp_path: Path) -> None:
    same = compare_files(NEW, NEW)
    assert same.difference().changed == 0
    with pytest.raises(ConfigError, match="0 cases change their answer"):
        same.write(tmp_path / "out", "acme/None-v0")
    clock = tmp_path / "clock.json"
    clock.write_text(graph(expression("e", {"x": "date('now') - date(a)"}), tests=[{"a": "2024-01-01"}]))
    with pytest.raises(ConfigError, match=r"reads the clock.*--now"):
        compare_files(clock, clock)
    assert compare_files(clock, clock, now="2024-03-01T00:00:00Z").difference().changed == 0


def test_the_command_says_it_and_writes_it(tmp_path: Path) -> None:
    out = tmp_path / "environments" / "expenses"
    asked = ["env", "diff", str(OLD), str(NEW), "--id", "acme/Expenses-v0", "-o", str(out)]
    said = CliRunner().invoke(app, asked)
    assert said.exit_code == 0
    assert "change their answer (12%)" in said.stdout
    assert "+ rules: days > 60 -> decision 'reject', payer 'none'" in said.stdout
    assert (out / "change.toml").is_file()
    told = json.loads(CliRunner().invoke(app, ["env", "diff", str(OLD), str(out), "--json"]).stdout)
    assert told["changed"] > 0
    assert told["removed"] == [
        "rules: days > 90 -> decision 'reject', payer 'none'",
        "rules: kind 'hotel', amount <= 150 -> decision 'pay', payer 'card'",
    ]
