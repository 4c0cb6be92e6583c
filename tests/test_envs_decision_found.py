"""Models as people keep them: a constant at the top, functions nobody calls, inputs without a type, one answer
that dominates. Each becomes an environment that passes its check, or is refused in one line."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vertigym import cli
from vertigym.core.types import Split
from vertigym.decisions.dmn.dmn_model import DmnModel
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import read_model
from vertigym.decisions.model import CaseError, DecisionError
from vertigym.decisions.outputs import project
from vertigym.envs.check import check
from vertigym.envs.decision.importer import DecisionImportReport, import_decision
from vertigym.envs.registry import make

from .test_decisions_dmn import document, table
from .test_decisions_dmn_graph import SPACE, entry, file_of, knowledge, literal, uses
from .test_envs_decision_dmn import CAMUNDA, column, rule
from .test_envs_decision_import import graph
from .test_envs_decision_import import table as jdm_table

SIZES: dict[Split, int] = {"train": 120, "eval": 30, "test": 40}


def imported(tmp_path: Path, content: str, name: str = "rules.dmn") -> DecisionImportReport:
    return import_decision(file_of(tmp_path, content, name), "acme/Found-v0", tmp_path / "env", sizes=SIZES)


def answers(tmp_path: Path) -> Counter[str]:
    texts = [(tmp_path / f"env/tasks/{split}.jsonl").read_text() for split in SIZES]
    return Counter(json.dumps(json.loads(line)["answer"]) for line in "".join(texts).splitlines())


def failures(tmp_path: Path) -> list[str]:
    report = check(str(tmp_path / "env"), tasks=60)
    return [finding.message for finding in report.findings if finding.level == "failure"]


def camunda(columns: str, rules: str, policy: str = "UNIQUE", output: str = "string") -> str:
    return (
        f'{CAMUNDA} id="x" name="x"><decision id="d" name="D"><decisionTable hitPolicy="{policy}">{columns}'
        f'<output name="o" typeRef="{output}"/>{rules}</decisionTable></decision></definitions>'
    )


DISCOUNT = table(
    [("size", "number"), ("kind", "string")],
    [["< 10", '"shop"', "5"], [">= 10", '"shop"', "9"], ["-", '"home"', "1"]],
    'hitPolicy="FIRST"',
)
SERVICE = (
    '<decisionService id="s_S" name="Pricing"><variable name="Pricing"/><outputDecision href="#d_Price"/>'
    '<inputData href="#i_n"/></decisionService>'
)
PRICE = table([("n", "number")], [["< 10", "1"], ["[10..20]", "2"], ["> 20", "3"]], 'hitPolicy="FIRST"')


@pytest.mark.parametrize(
    ("content", "asked", "given"),
    [
        (  # a knowledge model that the decision invokes with constants
            document(
                ("Top", uses("Rate") + literal('Rate(5, "shop")'), []),
                more=knowledge("Rate", "size kind", DISCOUNT),
                space=SPACE,
            ),
            ("Rate",),
            {"size", "kind"},
        ),
        (  # a function in a context, and one that is the whole decision
            document(("Top", f"<context>{entry('f', literal('function(a, b) 2 * a + b'))}"
                             f"{entry('', literal('f(1, 2)'))}</context>", []), space=SPACE),
            ("f",),
            {"a", "b"},
        ),
        (
            document(("Top", literal("function(x: number) if x > 7 then x else 0"), []), space=SPACE),
            ("d_Top~Top",),
            {"x"},
        ),
        (  # a decision service, whose input is not given to what is asked at the top
            document(("Price", PRICE, ["n"]), ("Top", literal('if Price = 9 then "a" else "b"'), ["Price"]),
                     more=SERVICE, space=SPACE),
            ("Price", "Top"),
            {"n"},
        ),
    ],
)  # fmt: skip
def test_where_the_top_is_constant_something_else_of_the_file_is_asked_for(
    tmp_path: Path, content: str, asked: tuple[str, ...], given: set[str]
) -> None:
    report = imported(tmp_path, content)
    assert any(f"asked for instead is {', '.join(asked)}" in warning for warning in report.warnings)
    assert set(report.given) == given
    env: Any = make(str(tmp_path / "env"))
    assert env.config.decisions == asked
    model = env.config.model(env.folder)
    task = env.tasks.get(env.tasks.ids("test")[0])
    assert project(model.evaluate(task.info["input"]).output, env.config.outputs) == task.answer
    assert not failures(tmp_path)


def test_a_service_can_be_asked_for_by_its_name(tmp_path: Path) -> None:
    file = file_of(tmp_path, document(("Price", PRICE, ["n"]), more=SERVICE, space=SPACE))
    assert DmnModel(file, ["Pricing"]).evaluate({"n": 15}).output == {"Pricing": 2}
    with pytest.raises(DecisionError, match="no decision 'Nobody'; there are: Price, Pricing"):
        DmnModel(file, ["Nobody"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (document(("Top", literal('"always"'), []), space=SPACE), "no inputs to vary"),
        (
            document(("Top", literal('if n > 1 then "a" else "a"'), ["n"]), space=SPACE),
            'one answer, {"Top": "a"}',
        ),
        (
            camunda(column("n", "number"), rule("> 5", '"a"') + rule("-", '"else"')),
            r"one answer, .*\(\d+ of \d+ cases have none: D: rules 1, 2 match together",
        ),
    ],
)
def test_a_constant_is_refused_in_one_line(
    tmp_path: Path, content: str, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = file_of(tmp_path, content)
    words = ["env", "import", str(file), "--id", "acme/X-v0", "--out", str(tmp_path / "env")]
    monkeypatch.setattr(sys, "argv", ["vertigym", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    with pytest.raises(DecisionError, match=f"holds nothing to learn: .*{why}"):
        imported(tmp_path, content)
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize(
    "content",
    [
        camunda(column("n", "number"), rule("[1..9]", '"a"') + rule("[20..29]", '"b"')),
        camunda(column("n", "number"), rule("> 0.0", '"a"'), "COLLECT"),
        camunda(
            column("k", "string"),
            rule('starts with(?, "EU")', '"in"') + rule('ends with(?, "X")', '"out"'),
            "FIRST",
        ),
        camunda(column("k", "string") + column("n", "number"), rule('"a"', "< 5", '"x"'), "FIRST"),
    ],
)  # fmt: skip
def test_an_answer_that_few_inputs_have_is_found_often_enough(tmp_path: Path, content: str) -> None:
    imported(tmp_path, content)
    found = answers(tmp_path)
    assert max(found.values()) <= 0.56 * found.total()
    assert not failures(tmp_path)


def test_a_field_that_never_varies_does_not_make_a_guess_pay(tmp_path: Path) -> None:
    rows = [["'a'", "1", "'air'"], ["'b'", "2", "'air'"]]
    text = graph(jdm_table("t", ["k", ""], ["fee", "way"], [[r[0], "n > 3", *r[1:]] for r in rows]))
    imported(tmp_path, text, "rules.json")
    assert not failures(tmp_path)


def test_a_record_that_is_null_is_an_answer(tmp_path: Path) -> None:
    outputs = ['<output name="a"/>', '<output name="b"/>']
    body = table([("n", "number")], [["< 10", "1", "2"], ["[10..20]", "2", "3"]], outputs=outputs)
    imported(tmp_path, document(("D", body, ["n"]), space=SPACE))
    assert '{"D": null}' in answers(tmp_path)
    assert project({"x": None, "y": {"z": 1}}, ["x.a", "x.b", "y.z", "y.w"]) == {"x": None, "y": {"z": 1}}


@pytest.mark.parametrize(
    ("column_text", "cells", "kind"),
    [
        ("when", ['<= date("2024-05-01")', '> date("2024-05-01")'], "date"),
        ("when", ['<= date and time("2024-05-01T12:00:00")', "-"], "date and time"),
        ("span", ['< duration("P30D")', "-"], "days and time duration"),
        ("span", ["? in [@\"P1Y\"..@\"P2Y\"]", "-"], "years and months duration"),
    ],
)  # fmt: skip
def test_an_input_without_a_type_has_that_of_what_it_is_compared_with(
    tmp_path: Path, column_text: str, cells: list[str], kind: str
) -> None:
    one = f"<input><inputExpression><text>{column_text}</text></inputExpression></input>"
    rules = "".join(rule(cell, f'"{place}"') for place, cell in enumerate(cells))
    file = file_of(tmp_path, camunda(one, rules, "FIRST"))
    model = DmnModel(file)
    assert model.types[column_text].base.name == kind
    imported(tmp_path, file.read_text())


@pytest.mark.parametrize(
    ("text", "name", "kind"),
    [
        ('if upper case(x) = "A" then 1 else 2', "x", "string"),
        ("if x > y and y > 5 then 1 else 2", "x", ["number", "null"]),
        ("if count(x) > 2 then 1 else 2", "x", "array"),
        ("if x and n > 1 then 1 else 2", "x", "boolean"),
        ("sum(for i in x return i.price * 2)", "x", "array"),
        ("if x = 1 then 1 else if x = \"a\" then 2 else 3", "x", ""),
    ],
)  # fmt: skip
def test_what_expressions_tell_of_an_inputs_type(tmp_path: Path, text: str, name: str, kind: str) -> None:
    content = f'{CAMUNDA} id="x" name="x"><decision id="d" name="D">{literal(text)}</decision></definitions>'
    said = DmnModel(file_of(tmp_path, content)).schema["properties"][name].get("type", "")
    assert said == kind or said == [kind, "null"]


def test_a_column_that_says_string_and_orders_numbers_is_read_as_number(tmp_path: Path) -> None:
    rules = rule("> 2", '"b"') + rule("[0..2]", '"a"')
    report = imported(tmp_path, camunda(column("years", "string"), rules))
    assert report.given == {"years": "number"}
    assert any("'years' says string and compares numbers" in warning for warning in report.warnings)
    mixed = camunda(column("years", "string"), rules + rule('"many"', '"c"'))
    assert DmnModel(file_of(tmp_path, mixed)).types["years"].base.name == "string"


def test_input_values_of_a_list_limit_its_items(tmp_path: Path) -> None:
    content = camunda(
        column("tags", "list", '"a","b"'), rule('list contains(?, "a")', '"yes"') + rule("-", '"no"'), "FIRST"
    )
    model = DmnModel(file_of(tmp_path, content))
    assert model.evaluate({"tags": ["b", "a"]}).output == {"D": "yes"}
    with pytest.raises(CaseError, match="tags is"):
        model.evaluate({"tags": ["c"]})
    report = imported(tmp_path, content)
    assert report.coverage == 1.0


def test_contains_of_a_tool_asks_a_list_for_its_items(tmp_path: Path) -> None:
    rules = rule('.contains("ab")', '"yes"') + rule("-", '"no"')
    one = "<input><inputExpression><text>tags</text></inputExpression></input>"
    model = DmnModel(file_of(tmp_path, camunda(one, rules, "FIRST")))
    found = [model.evaluate({"tags": tags}).output["D"] for tags in (["ab"], ["abc"], "xabc", "xa")]
    assert found == ["yes", "no", "yes", "no"]


def test_a_rule_with_an_earlier_rules_conditions_is_shadowed_whatever_they_are(tmp_path: Path) -> None:
    rules = rule("> m", '"a"') + rule("< m", '"b"') + rule("> m", '"c"') + rule("-", '"d"')
    model = read_model(file_of(tmp_path, camunda(column("n", "number"), rules, "FIRST")))
    assert {f.rule: f.by for f in analyse(model).findings} == {"D:3": ("D:1",)}
    assert analyse(model).unreachable == {"D:3"}


def test_too_few_cases_and_rules_that_no_task_reaches_fail_the_check(tmp_path: Path) -> None:
    few = graph(jdm_table("t", ["k"], ["o"], [["'a'", "1"], ["'b'", "2"], ["'c'", "3"], ["'d'", "4"]]))
    report = imported(tmp_path, few, "few.json")
    said = "only 4 distinct cases, at least 12 are needed"
    assert said in report.warnings
    assert said in failures(tmp_path)


def test_a_task_more_or_less_decides_whether_the_rules_are_reached(tmp_path: Path) -> None:
    rows = [[f"'k{n}'", "> 0" if n % 2 else "< 100", str(n)] for n in range(10)]
    imported(tmp_path, graph(jdm_table("t", ["k", "n"], ["o"], rows)), "ten.json")
    assert not failures(tmp_path)
    for keep, fails in ((8, False), (7, True)):
        kept = {f"t:{n}" for n in range(1, keep + 1)}
        for split in SIZES:
            path = tmp_path / f"env/tasks/{split}.jsonl"
            lines = [
                line for line in path.read_text().splitlines() if set(json.loads(line)["info"]["rules"]) <= kept
            ]
            path.write_text("".join(f"{line}\n" for line in lines))
        found = [message for message in failures(tmp_path) if "rules are hit" in message]
        assert bool(found) is fails, found
    assert found[0].startswith(
        "only 7 of 10 rules are hit by a task, at least 80% are needed; not hit: t:8, t:9"
    )


def test_an_environment_whose_model_is_gone_is_still_checked(tmp_path: Path) -> None:
    imported(tmp_path, document(("Price", PRICE, ["n"]), space=SPACE))
    (tmp_path / "env/decision.dmn").unlink()
    report = check(str(tmp_path / "env"), tasks=20)
    assert [r.verdict for r in report.results if r.check == "the tasks reach the rules"] == ["skipped"]
    assert report.passed()
