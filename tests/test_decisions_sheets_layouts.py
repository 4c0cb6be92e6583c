"""Spreadsheets as people lay them out: titles, notes, groups, several tables, and those of other tools."""

from pathlib import Path
from typing import Any

import openpyxl
import pytest
from openpyxl.styles import Border

from tests.conftest import CommandLine
from tests.sheet_files import DOUBLE, answer, rules, workbook
from vertigym.core.errors import ConfigError
from vertigym.decisions.formats import read_model
from vertigym.decisions.model import CaseError, DecisionError
from vertigym.decisions.spreadsheets.declared import parse_columns
from vertigym.envs.decision.importer import import_decision

# Layouts.


def test_titles_numbers_notes_and_empty_rows_are_no_rules(tmp_path: Path) -> None:
    text = "Fees 2024\nvalid from May\n\nNr.;tier;-> fee;Remarks\n1;gold;5;> ask Jo\n\n2;;1;12\n"
    assert rules(tmp_path, text) == ["tier 'gold' -> fee 5", "otherwise -> fee 1"]


@pytest.mark.parametrize("header", ["Remarks", "Bemerkung", "Commentaires", "notes", "#"])
def test_notes_are_never_conditions(tmp_path: Path, header: str) -> None:
    note = ("1", "2") if header == "#" else ("see", "that")
    text = f"{header};tier;fee\n{note[0]};gold;5\n{note[1]};;1\n"
    assert rules(tmp_path, text) == ["tier 'gold' -> fee 5", "otherwise -> fee 1"]


@pytest.mark.parametrize(
    ("low", "high"), [("Age from", "Age to"), ("min. Alter", "max. Alter"), ("von", "bis")]
)
def test_columns_that_look_like_the_ends_of_a_range_are_refused(tmp_path: Path, low: str, high: str) -> None:
    text = f"{low};{high};-> fee\n18;65;3\n66;99;2\n"
    with pytest.raises(DecisionError, match="the ends of one condition"):
        rules(tmp_path, text)
    assert len(rules(tmp_path, text, f"{low}=condition", f"{high}=condition")) == 2
    assert len(rules(tmp_path, "Age from;Weight to;-> fee\n18;65;3\n")) == 1


def test_what_may_be_a_note_is_declared(tmp_path: Path) -> None:
    text = "description;tier;fee\nlow;gold;5\nhigh;;1\n"
    with pytest.raises(DecisionError, match="--column 'description=annotation'"):
        rules(tmp_path, text)
    assert rules(tmp_path, text, "description=note") == ["tier 'gold' -> fee 5", "otherwise -> fee 1"]
    assert rules(tmp_path, text, "description=condition")[0] == "description 'low', tier 'gold' -> fee 5"


def test_a_row_declares_roles_and_types(tmp_path: Path) -> None:
    text = "plan;due;fee;why\ncondition text;date m/d/y;outcome number 1,5;note\n41603;01/02/2024;1.500;x\n"
    assert rules(tmp_path, text) == ["plan '41603', date(due) date('2024-01-02') -> fee 1500"]


def test_groups_over_the_headers_give_roles_and_tell_names_apart(tmp_path: Path) -> None:
    assert rules(tmp_path, "If;;Then;\nage;tier;fee;desk\n> 5;gold;1;A\n;;2;B\n") == [
        "age > 5, tier 'gold' -> fee 1, desk 'A'",
        "otherwise -> fee 2, desk 'B'",
    ]
    assert (
        rules(tmp_path, "Own;Partner;\nage;age;-> fee\n> 5;> 7;1\n;;2\n")[0]
        == "Own.age > 5, Partner.age > 7 -> fee 1"
    )


@pytest.mark.parametrize("labels", ["", ";Rule 1;Rule 2\n", "F;1;2\n"])
def test_rules_in_columns(tmp_path: Path, labels: str) -> None:
    found = rules(tmp_path, f"{labels}age;> 5;\ntier;gold;silver\n-> fee;1;2\n")
    assert found == ["age > 5, tier 'gold' -> fee 1", "tier 'silver' -> fee 2"]


def test_headers_that_are_repeated_are_no_rule(tmp_path: Path) -> None:
    with pytest.raises(DecisionError, match="row 3 repeats the headers"):
        rules(tmp_path, "tier;desk\ngold;A\ntier;desk\n")


def test_an_error_names_the_column_of_a_rule_in_a_column(tmp_path: Path) -> None:
    with pytest.raises(DecisionError, match="column C has no outcome"):
        rules(tmp_path, "age;> 5;7\n-> fee;1;\n")


# Several tables.

ROUTES: list[list[Any]] = [["fee", "-> desk"], ["> 3", "A"], [None, "B"]]
FEES: list[list[Any]] = [["tier", "-> fee"], ["gold", 5], [None, 1]]


def test_tables_that_take_from_each_other_are_one_model(tmp_path: Path) -> None:
    file = workbook(
        tmp_path, routes=ROUTES, fees=FEES, read_me=[["For the desk"]], log=[["on", "who"], ["May", "Jo"]]
    )
    model = read_model(file)
    notes = model.notes
    assert [node.name for node in model.nodes if node.rules] == ["fees", "routes"]
    assert model.evaluate({"tier": "gold"}).output == {"tier": "gold", "fee": 5, "desk": "A"}
    assert list(model.schema["properties"]) == ["tier"]
    assert notes == [
        "sheet 'read me' is not read: a table needs a header row and at least one rule",
        "sheet 'log' is not read: no outcome is marked with ->",
    ]


@pytest.mark.parametrize(
    ("sheets", "says"),
    [
        (
            {"a": [["x", "y"], [1, 2]], "b": [["x", "z"], [1, 2]]},
            r"2 sheets with content \(a, b\): name one with --sheet",
        ),
        ({"a": FEES, "b": FEES}, "'fee' is decided by two tables"),
        ({"a": ROUTES, "b": [["desk", "-> fee"], ["A", 4]]}, "take what they decide themselves"),
        ({"a": FEES, "b": [["fee", "-> desk"], ["high", "A"]]}, "'fee' is a number in a and a string in b"),
        ({"a": [["x", "x.y", "-> z"], [1, 2, 3]]}, "'x' is a column, and a record that holds 'x.y'"),
        ({"a": [["x"], [1]], "b": [["y"], [1]]}, "no table in it"),
    ],
)
def test_sheets_that_do_not_fit_are_refused(tmp_path: Path, sheets: dict[str, Any], says: str) -> None:
    with pytest.raises(DecisionError, match=says):
        read_model(workbook(tmp_path, **sheets))


def test_tables_under_each_other(tmp_path: Path) -> None:
    assert rules(tmp_path, "tier;-> fee\ngold;5\n\nfee;-> desk\n> 3;A\n") == [
        "tier 'gold' -> fee 5",
        "fee > 3 -> desk 'A'",
    ]


def test_a_file_of_another_encoding_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes("Größe;-> fee\n5;1\n".encode("latin-1"))
    with pytest.raises(DecisionError, match=r"not UTF-8 .*: save it as 'CSV UTF-8'"):
        read_model(tmp_path / "t.csv")


# Declarations.


def test_declarations_come_from_options_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[columns]\n"Order amount" = "number 1,5"\n')
    assert parse_columns([str(tmp_path / "c.toml"), "plan=text"]) == {
        "Order amount": "number 1,5",
        "plan": "text",
    }
    for wrong in ("plan=large", "=text", "plan"):
        with pytest.raises(ConfigError, match="HEADER=WORDS"):
            parse_columns([wrong])
    with pytest.raises(ConfigError, match="no column 'plam' to declare; did you mean 'plan'"):
        rules(tmp_path, "plan;-> fee\ngold;5\n", "plam=text")


# Tables of other tools.


def dmn_rules(tmp_path: Path, *, turned: bool) -> Path:
    rows: list[list[Any]] = [
        ["U", "Customer", "Order Size", "Discount", "Note"],
        [1, '"Business"', "<10", 0.05, "small"],
        [2, '"Business"', ">=10", 0.1, None],
        [3, '"Private", "Club"', None, 0, None],
    ]
    if turned:
        rows = [*zip(*rows, strict=True)]  # type: ignore[list-item]
        rows = [*rows[1:4], rows[0]]
    listed = [["Decision"], ["Decisions", "Execute Decision Table"], ["rate", "Discount table"]]
    glossary = [["Glossary"], ["Variable", "Business Concept"]]
    file = workbook(tmp_path, Glossary=glossary, Decision=listed, Sheet3=[["Discount table"], *rows])
    book = openpyxl.load_workbook(file)
    page = book["Sheet3"]
    for place in range(1, 6):
        if turned:
            page.cell(3, place).border = Border(bottom=DOUBLE)
        else:
            page.cell(place + 1, 3).border = Border(right=DOUBLE)
            page.cell(place + 1, 4).border = Border(right=DOUBLE)
    book.save(file)
    return file


@pytest.mark.parametrize("turned", [False, True])
def test_a_workbook_of_pydmnrules(tmp_path: Path, turned: bool) -> None:
    model = read_model(dmn_rules(tmp_path, turned=turned))
    notes = model.notes
    assert answer(model, "Discount", Customer="Business", Order_Size=12) == 0.1
    assert answer(model, "Discount", Customer="Club") == 0
    assert [node.name for node in model.nodes if node.rules] == ["Discount_table"]
    assert notes == [
        "sheet 'Glossary' is not read: a glossary",
        "sheet 'Decision' is not read: the list of tables to run",
    ]


def test_a_table_that_the_decision_sheet_names_must_be_there(tmp_path: Path) -> None:
    file = dmn_rules(tmp_path, turned=False)
    book = openpyxl.load_workbook(file)
    book["Decision"].append(["more", "Other table"])
    book.save(file)
    with pytest.raises(DecisionError, match="no table 'Other table', which the sheet Decision names"):
        read_model(file)


DROOLS = '''RuleSet,com.acme
,
RuleTable Pricing
NAME,CONDITION,CONDITION,ACTION,ACTION
,$d : Driver,,$p : Policy,
,"age >= $1, age < $2","getRisk().equals(""$param"")",$p.setBasePrice($param);,"note = ""$param"""
Base,Age,Risk,Price,Note
young,"18, 25",LOW,450,a b
old,"25, 99",,300,c
'''


def test_a_decision_table_of_drools(tmp_path: Path) -> None:
    assert rules(tmp_path, DROOLS) == [
        "age [18..25), risk 'LOW' -> basePrice 450, note 'a b'",
        "age [25..99) -> basePrice 300, note 'c'",
    ]
    overlap = DROOLS.replace('"25, 99"', '"20, 99"')
    rules(tmp_path, overlap)
    model = read_model(tmp_path / "t.csv")
    with pytest.raises(CaseError):  # Drools fires both
        model.evaluate({"age": 22, "risk": "LOW"})
    first = overlap.replace("NAME", "ACTIVATION-GROUP").replace("young", "g").replace("\nold", "\ng")
    rules(tmp_path, first)
    assert answer(read_model(tmp_path / "t.csv"), "basePrice", age=22, risk="LOW") == 450


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("$p.setBasePrice($param);", "System.out.println($param);", "the action .* is code"),
        ("getRisk().equals", "risks.contains", "the condition .* is code"),
        ("NAME", "NO-LOOP", "NO-LOOP of a Drools table"),
        ('"18, 25"', "18", "two values with a comma"),
    ],
)
def test_drools_code_is_refused_by_name(tmp_path: Path, old: str, new: str, says: str) -> None:
    with pytest.raises(DecisionError, match=says):
        rules(tmp_path, DROOLS.replace(old, new))


# The import.


def test_an_import_says_what_is_given_and_asked(tmp_path: Path) -> None:
    file = tmp_path / "fees.csv"
    file.write_text(
        "Größe;Beginn;-> Gebühr;-> eilig\n> 1,5;>= 01.02.2024;2,5;true\n;;1;false\n", encoding="utf-8"
    )
    report = import_decision(file, "acme/F-v0", tmp_path / "out", sizes={"train": 30, "eval": 10, "test": 10})
    assert report.given == {"Grosse": "number", "Beginn": "date"}
    assert report.asked == {"Gebuhr": "number", "eilig": "true or false"}


def test_the_command_line_declares_columns(command: CommandLine) -> None:
    Path("t.csv").write_text("plan;-> fee\n10115;1,5\n20095;2\n;3\n")
    words = ["env", "import", "t.csv", "--id", "a/T-v0"]
    remedy = "a number or a code? Declare --column 'plan=text' or --column 'plan=number'"
    assert command(*words) == (2, "", f"vertigym: t.csv: cell A2: '10115': {remedy}\n")
    code, text, _ = command(*words, "--column", "plan=text")
    assert code == 0
    assert "given:     plan (text)\nasked for: fee (number)\n" in text
