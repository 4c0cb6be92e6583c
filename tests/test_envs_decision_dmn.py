"""DMN files as environments: limits, dialects, wrong cells, differences, and the rules in a prompt."""

import json
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.types import Split
from vertigym.decisions.dmn.dmn_model import DmnModel
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.model import DecisionError
from vertigym.decisions.sampler import Sampler
from vertigym.envs.check import check
from vertigym.envs.decision.diff import compare_files
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.stale import old_version
from vertigym.envs.registry import make

from .test_decisions_dmn import N, document, table
from .test_decisions_dmn_graph import file_of, item_definition, knowledge, literal, uses

SIZES: dict[Split, int] = {"train": 60, "eval": 20, "test": 20}
CAMUNDA = '<definitions xmlns="http://www.omg.org/spec/DMN/20151101/dmn.xsd" namespace="http://camunda.org/schema/1.0/dmn"'


def column(text: str, kind: str, values: str = "") -> str:
    limits = f"<inputValues><text>{values}</text></inputValues>" if values else ""
    return f'<input><inputExpression typeRef="{kind}"><text>{text}</text></inputExpression>{limits}</input>'


def rule(*cells: str) -> str:
    *tests, result = (cell.replace("<", "&lt;") for cell in cells)
    inputs = "".join(f"<inputEntry><text>{cell}</text></inputEntry>" for cell in tests)
    return f"<rule>{inputs}<outputEntry><text>{result}</text></outputEntry></rule>"


def dish() -> str:
    """Camunda's way: no input data, a decision that is known by its output's name."""
    season = (
        '<decision id="s" name="Season by temperature"><decisionTable hitPolicy="FIRST">'
        f'{column("temperature", "integer")}<output name="season" typeRef="string"/>'
        f"""{rule("> 25", '"Summer"')}{rule("-", '"Winter"')}</decisionTable></decision>"""
    )
    menu = (
        '<decision id="d" name="Dish"><informationRequirement><requiredDecision href="#s"/>'
        f"</informationRequirement><decisionTable>{column('season', 'string')}"
        f'{column("guests", "integer", "[1..20]")}<output name="dish" typeRef="string"/>'
        f"""{rule('"Summer"', "-", '"Salad"')}{rule('"Winter"', "<= 8", '"Roast"')}"""
        f"""{rule('"Winter"', "> 8", '"Stew"')}</decisionTable></decision>"""
    )
    return f"{CAMUNDA} id='x' name='x'>{season}{menu}</definitions>"


def test_a_camunda_file_without_input_data_becomes_a_fair_environment(tmp_path: Path) -> None:
    file = file_of(tmp_path, dish())
    report = import_decision(file, "acme/Dish-v0", tmp_path / "env", sizes=SIZES, rules="shown")
    assert (report.outputs, report.coverage, report.findings) == (("Dish",), 1.0, ())
    assert any("temperature, guests" in warning for warning in report.warnings)
    assert check(str(tmp_path / "env"), tasks=20).passed(strict=False)
    env: Any = make(str(tmp_path / "env"))
    shown = env.system
    assert "### Season by temperature" in shown
    assert '| "Winter" | <= 8 | "Roast" |' in shown
    rows = [json.loads(line) for line in (tmp_path / "env/tasks/train.jsonl").read_text().splitlines()]
    cases = [row["info"]["input"] for row in rows]
    assert all(case["guests"] is None or 1 <= case["guests"] <= 20 for case in cases)
    assert all(case["guests"] is None or isinstance(case["guests"], int) for case in cases)


@pytest.mark.parametrize(
    ("cell", "holds", "fails"),
    [
        ("== 8", [8], [7]), ("!= 8", [7], [8]), ("cellInput >= 8", [8], [7]), ("${guests > 3}", [4], [3]),
        ("${guests > 3 && guests != 5}", [4], [5]), ("#{!(guests == 4)}", [], []),
    ],
)  # fmt: skip
def test_what_tools_write_for_a_condition_means_the_same(
    tmp_path: Path, cell: str, holds: list[Any], fails: list[Any]
) -> None:
    body = (
        f'<decision id="d" name="D"><decisionTable hitPolicy="FIRST">{column("guests", "integer")}'
        f'<output name="o"/>{rule(cell.replace("&", "&amp;"), "true")}{rule("-", "false")}'
        "</decisionTable></decision>"
    )
    file = file_of(tmp_path, f"{CAMUNDA} id='x' name='x'>{body}</definitions>")
    if not holds:
        with pytest.raises(DecisionError, match="not FEEL"):
            DmnModel(file)
        return
    model = DmnModel(file)
    assert all(model.evaluate({"guests": value}).output["D"] is True for value in holds)
    assert all(model.evaluate({"guests": value}).output["D"] is False for value in fails)


@pytest.mark.parametrize("language", ["groovy", "javascript", "python", "juel"])
def test_other_languages_are_refused_by_name_but_for_plain_names_and_literals(
    tmp_path: Path, language: str
) -> None:
    def read(text: str) -> DmnModel:
        said = literal(text, f"expressionLanguage='{language}'")
        body = f'<decision id="d" name="D">{said}</decision>'
        return DmnModel(file_of(tmp_path, f"{CAMUNDA} id='x' name='x'>{body}</definitions>"))

    assert read("customer.name").evaluate({"customer": {"name": "Ada"}}).output == {"D": "Ada"}
    assert read('"a text"').graph.decisions
    with pytest.raises(DecisionError, match=f"'{language}' is not supported, only FEEL: 'customer.call"):
        read("customer.call(1)")


def test_limits_of_any_form_hold_in_every_sampled_case(tmp_path: Path) -> None:
    items = (
        item_definition("tPct", "number", "(0..100)")
        + item_definition("tOdd", "number", "odd(?)")
        + item_definition("tDay", "date", '>= date("2024-01-01")')
    )
    columns = [("p", "number"), ("o", "number"), ("t", "date")]
    rows = [
        ["< 50", "-", "-", "1"],
        [">= 50", "> 7", "-", "2"],
        [">= 50", "<= 7", '> date("2024-06-30")', "3"],
    ]
    content = document(
        ("D", table(columns, rows, "hitPolicy='FIRST'"), ["p", "o", "t"]),
        inputs=[("p", "tPct"), ("o", "tOdd"), ("t", "tDay")],
        more=items,
    )
    model = read_model(file_of(tmp_path, content))
    found = Sampler(model, 0).run(300)
    assert found.hit == {"D:1", "D:2", "D:3"}
    cases = [sample.case for sample in found.samples]
    assert all(case["p"] is None or 0 < case["p"] < 100 for case in cases)
    assert all(case["o"] is None or case["o"] % 2 == 1 for case in cases)
    assert all(case["t"] is None or case["t"] >= "2024-01-01" for case in cases)


def test_rules_that_cannot_hold_and_cells_that_are_no_values_are_named(tmp_path: Path) -> None:
    columns = [("n", "number"), ("t", "date")]
    rows = [
        ["< 10", "-", "1"],
        ["[3..5]", "-", "2"],
        ['"many"', "-", "3"],
        ["> 20", 'date("2024-02-30")', "4"],
        ["> 20", 'date("2024-02-29")', "5"],
    ]
    content = document(
        ("D", table(columns, rows, "hitPolicy='FIRST'"), ["n", "t"]), inputs=[("n", "number"), ("t", "date")]
    )
    found = {(f.kind, f.rule): f.reason for f in analyse(read_model(file_of(tmp_path, content))).findings}
    assert found["shadowed", "D:2"] == "D:1 matches wherever it matches"
    assert found["never", "D:3"] == "no input meets its conditions"
    assert found["cell", "D:3"] == 'n: "many" ("many" is not of the column\'s type number)'
    assert found["cell", "D:4"] == 't: date("2024-02-30") (date("2024-02-30") is no value)'
    assert set(found) == {("shadowed", "D:2"), ("never", "D:3"), ("cell", "D:3"), ("cell", "D:4")}


def test_proofs_hold_on_dates_and_through_decisions(tmp_path: Path) -> None:
    columns = [("t", "date")]
    early = table(columns, [['< date("2024-01-01")', '"old"'], ["-", '"new"']], "hitPolicy='FIRST'")
    late = table(
        [("A", "string"), ("t", "date")],
        [['"old"', '< date("2023-01-01")', "1"], ['"old"', '>= date("2024-01-01")', "2"], ["-", "-", "3"]],
        "hitPolicy='FIRST'",
    )
    content = document(("A", early, ["t"]), ("D", late, ["A", "t"]), inputs=[("t", "date")])
    found = [(f.kind, f.rule) for f in analyse(read_model(file_of(tmp_path, content))).findings]
    assert found == [("unreachable", "D:2")]


def test_rules_of_a_knowledge_model_are_reached_through_its_arguments(tmp_path: Path) -> None:
    grade = knowledge(
        "grade", "points", table([("points", "number")], [["< 137", '"low"'], [">= 137", '"high"']])
    )
    content = document(("D", uses("grade") + literal("grade(n * 1)"), ["n"]), more=grade)
    report = import_decision(
        file_of(tmp_path, content), "acme/G-v0", tmp_path / "env", sizes=SIZES, rules="shown"
    )
    assert (report.rules, report.not_hit) == (2, ())
    env: Any = make(str(tmp_path / "env"))
    assert "### grade(points)" in env.system


def test_two_versions_are_compared_and_the_old_one_is_kept(tmp_path: Path) -> None:
    old = file_of(tmp_path, document(("D", table(N, [["< 10", "1"], [">= 10", "2"]]), ["n"])), "old.dmn")
    new = file_of(tmp_path, document(("D", table(N, [["< 15", "1"], [">= 15", "2"]]), ["n"])), "new.dmn")
    comparison = compare_files(old, new)
    changed = {c.case["n"] for c in comparison.compared if c.is_changed}
    assert changed
    assert all(10 <= n < 15 for n in changed)
    comparison.write(tmp_path / "env", "acme/Change-v0", sizes=SIZES)
    assert (tmp_path / "env" / "decision-old.dmn").is_file()
    env: Any = make(str(tmp_path / "env"))
    assert old_version(env).evaluate({"n": 12}).output == {"D": 2}
    again = compare_files(old, tmp_path / "env")
    assert again.difference().changed


def test_an_imported_file_lies_in_the_environment_and_the_asked_decisions_are_kept(tmp_path: Path) -> None:
    lib = document(("Rate", literal("n * 2"), ["n"])).replace('namespace="y"', 'namespace="urn:lib"')
    file_of(tmp_path, lib, "lib.dmn")
    needs = '<informationRequirement><requiredDecision href="urn:lib#d_Rate"/></informationRequirement>'
    rows = [["> 90", '"a"'], ["[11..90]", '"b"'], ["<= 10", '"c"']]
    content = document(
        ("D", needs + table([("lib.Rate", "number")], rows), []),
        ("E", literal("1"), []),
        more='<import name="lib" namespace="urn:lib" importType="http://www.omg.org/spec/DMN/20180521/MODEL/"/>',
    )
    out = tmp_path / "env"
    how = ReadOptions(decisions=("D",))
    import_decision(file_of(tmp_path, content), "acme/L-v0", out, sizes=SIZES, rules="shown", how=how)
    assert (out / "lib.dmn").read_text() == lib
    assert 'decisions = ["D"]' in (out / "env.toml").read_text()
    env: Any = make(str(out))
    assert "### E" not in env.system
    assert len(make(str(out)).tasks.ids("train")) > 20


def test_decisions_are_chosen_only_in_dmn(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("n,-> d\n1,2\n")
    with pytest.raises(DecisionError, match="only a DMN file holds several decisions"):
        read_model(file, ReadOptions(decisions=("d",)))
