"""`vertigym rules`: a file of rules shown, asked, tested and checked from the command line."""

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from typer.testing import CliRunner, Result

from vertigym.cli import app
from vertigym.core.errors import DataError, InputError
from vertigym.decisions.rule_tests import read_tests

LENDER = Path(__file__).parents[1] / "examples" / "lender" / "loans.csv"
APPROVED = {"score": 700, "income": 50, "amount": 20, "employed": True}
KIT = """<testCases xmlns="http://www.omg.org/spec/DMN/20160719/testcase"
  xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">
  <testCase id="1"><inputNode name="age"><value xsi:type="decimal">17</value></inputNode>
    <resultNode name="Fee"><expected><value xsi:type="decimal">{fee}</value></expected></resultNode></testCase>
</testCases>"""
DMN = """<definitions xmlns="https://www.omg.org/spec/DMN/20191111/MODEL/" id="d" name="d" namespace="n">
  <inputData id="age" name="age"><variable name="age" typeRef="number"/></inputData>
  <decision id="f" name="Fee"><variable name="Fee" typeRef="number"/>
    <informationRequirement><requiredInput href="#age"/></informationRequirement>
    <decisionTable hitPolicy="UNIQUE">
      <input><inputExpression typeRef="number"><text>age</text></inputExpression></input>
      <output typeRef="number"/>
      <rule><inputEntry><text>&lt; 18</text></inputEntry><outputEntry><text>2.5</text></outputEntry></rule>
      <rule><inputEntry><text>&gt;= 18</text></inputEntry><outputEntry><text>5</text></outputEntry></rule>
    </decisionTable></decision>
</definitions>"""


BROKEN = """<decision id="l" name="Lost"><variable name="Lost"/>
  <literalExpression><text>age +</text></literalExpression></decision>"""


def rules(*words: object) -> Result:
    return CliRunner().invoke(app, ["rules", *map(str, words)])


@pytest.fixture
def dmn(tmp_path: Path) -> Path:
    (tmp_path / "fee.dmn").write_text(DMN)
    return tmp_path / "fee.dmn"


def test_a_table_is_shown_with_what_is_given() -> None:
    said = rules("show", LENDER)
    assert "given:   score (number, null)" in said.stdout
    assert "score   income  amount  employed  → decision  → rate" in said.stdout
    assert "4  >= 700  >= 40   <= 25   true      'approve'   'standard'" in said.stdout
    shown = json.loads(rules("show", LENDER, "--json").stdout)
    assert len(shown["nodes"][1]["rules"]) == 7


def test_a_decision_graph_says_what_needs_what(dmn: Path) -> None:
    said = rules("show", dmn).stdout
    assert "Fee  (table, hit policy" in said
    assert "< 18" in said


def test_a_case_is_decided_with_a_reason_for_every_rule(tmp_path: Path) -> None:
    case = tmp_path / "case.json"
    case.write_text(json.dumps(APPROVED))
    found = json.loads(rules("run", LENDER, "--case", case, "--json").stdout)
    assert (found["answer"]["decision"], found["answer"]["rate"]) == ("approve", "standard")
    reasons = {line["rule"]: (line["hit"], line["reason"]) for line in found["rules"]}
    assert reasons["rules:4"] == (True, "")
    assert reasons["rules:1"] == (False, "score is 700: '< 580' does not hold")
    assert reasons["rules:2"][1].endswith("employed is true: 'false' does not hold")
    assert reasons["rules:7"][1] == "its conditions hold, but rules:4 was taken"


def test_reasons_come_from_dmn_too(dmn: Path, tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text('{"age": 17}')
    found = json.loads(rules("run", dmn, "--case", tmp_path / "case.json", "--json").stdout)
    assert found["answer"] == {"Fee": 2.5}
    assert [line["hit"] for line in found["rules"]] == [True, False]
    assert found["rules"][1]["reason"] == "age is 17: '>= 18' does not hold"


@pytest.mark.parametrize(("fee", "code"), [("2.5", 0), ("2.500000001", 0), ("3", 1)])
def test_the_kits_tests_run_against_a_dmn_file(fee: str, code: int, dmn: Path, tmp_path: Path) -> None:
    (tmp_path / "tests.xml").write_text(KIT.format(fee=fee))
    said = rules("test", dmn, tmp_path / "tests.xml", "--junit", tmp_path / "junit.xml")
    assert said.exit_code == code
    assert f"{1 - code} of 1 tests pass" in said.stdout
    assert ("Fee is 2.5, not 3" in said.stdout) == bool(code)
    suite = ET.parse(tmp_path / "junit.xml").getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("1", str(code))


def test_lines_of_tests_name_the_fields_they_look_at(tmp_path: Path) -> None:
    rows = [
        {"name": "good", "input": APPROVED, "output": {"decision": "approve"}},
        {"name": "bad", "input": APPROVED, "output": {"decision": "approve", "rate": "prime"}},
    ]
    (tmp_path / "tests.jsonl").write_text("\n".join(map(json.dumps, rows)))
    said = rules("test", LENDER, tmp_path / "tests.jsonl")
    assert said.exit_code == 1
    assert said.stdout == "failed  bad: rate is 'standard', not 'prime'\n1 of 2 tests pass\n"


def test_a_check_names_a_rule_that_cannot_be_hit(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("n,-> out\n> 3,a\n> 5,b\n,c\n")
    said = rules("check", tmp_path / "m.csv")
    assert said.exit_code == 1
    assert "shadowed  rules:2: n > 5 -> out 'b': rules:1 matches wherever it matches" in said.stdout
    assert "2 of 3 rules hit" in said.stdout
    assert rules("check", LENDER).exit_code == 0


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("t.jsonl", "{", "not JSON"),
        ("t.jsonl", '{"input": 1, "output": 2}', "a test is"),
        ("t.jsonl", '{"input": {}, "output": 2, "decison": "x"}', "unknown key 'decison'"),
        ("t.jsonl", "\n", "no test in it"),
        ("t.xml", "<a/>", "no test file of the DMN compliance kit"),
        ("t.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>", "document type or entities"),
    ],
)
def test_what_is_no_test_is_refused(file: str, text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(DataError, match=message):
        read_tests(tmp_path / file)


@pytest.mark.parametrize("command", [("test",), ("run", "--case", "nope.json")])
def test_what_is_missing_is_named(command: tuple[str, ...]) -> None:
    name, *options = command
    said = rules(name, LENDER, *options)
    assert isinstance(said.exception, InputError)
    assert ("holds no tests of its own" if name == "test" else "no such file") in str(said.exception)


def test_what_of_a_case_or_a_file_is_not_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "case.json").write_text(json.dumps(APPROVED | {"scor": 1}))
    said = rules("run", LENDER, "--case", tmp_path / "case.json")
    assert "not read: scor; the inputs are score, income, amount, employed" in said.stderr
    (tmp_path / "two.dmn").write_text(DMN.replace("</definitions>", BROKEN + "</definitions>"))
    said = rules("show", tmp_path / "two.dmn")
    assert "Lost" in said.stderr
    assert "cannot be used" in said.stderr


def test_a_model_that_reads_the_clock_is_checked_at_a_moment(tmp_path: Path) -> None:
    (tmp_path / "clock.dmn").write_text(
        DMN.replace("<text>2.5</text>", "<text>now().year</text>").replace(
            "<text>5</text>", "<text>now().year</text>"
        )
    )
    said = rules("check", tmp_path / "clock.dmn")
    assert isinstance(said.exception, DataError)
    assert "'Fee' reads the clock: give --now" in str(said.exception)
    assert rules("check", tmp_path / "clock.dmn", "--now", "2026-01-31T12:00:00Z").exit_code == 0
