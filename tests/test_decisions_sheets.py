"""Decision tables in spreadsheets: what they mean, what is refused, which format a file has."""

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from vertigym.core.errors import DataError
from vertigym.decisions.findings import analyse
from vertigym.decisions.formats import ReadOptions, guess, read_model
from vertigym.decisions.model import CaseError, DecisionError
from vertigym.decisions.protocols import RuleModel
from vertigym.envs.decision.importer import import_decision

RETURNS = """\
F,category,days,receipt,since,-> decision,-> desk fee
1,"books, music",<= 30,true,,accept,0
2,,31..60,,>= 2024-01-01,store credit,4.5
3,not(toys),,,,"ask, then decide",-
4,,,,,reject,0
"""


def sheet(tmp_path: Path, text: str, name: str = "returns.csv") -> RuleModel:
    file = tmp_path / name
    file.write_text(text)
    return read_model(file)


def answers(model: RuleModel, *cases: dict[str, Any]) -> list[Any]:
    found = []
    for case in cases:
        output = model.evaluate(case).output
        found.append({key: output[key] for key in ("decision", "desk_fee") if key in output})
    return found


CASES: tuple[dict[str, Any], ...] = (
    {"category": "music", "days": 30, "receipt": True},
    {"category": "music", "days": 31, "since": "2024-01-01"},
    {"category": "food", "days": 61},
    {"category": "toys", "days": 60, "since": "2023-12-31"},
)
EXPECTED = [
    {"decision": "accept", "desk_fee": 0},
    {"decision": "store credit", "desk_fee": 4.5},
    {"decision": "ask, then decide"},
    {"decision": "reject", "desk_fee": 0},
]


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_table(tmp_path: Path, separator: str) -> None:
    text = RETURNS
    if separator != ",":
        text = text.replace('"books, music"', "books+ music").replace('"ask, then decide"', "ask+ then decide")
        rows = text.splitlines()
        text = "\n".join(row.replace(",", separator).replace("+", ",") for row in rows)
    assert answers(sheet(tmp_path, text), *CASES) == EXPECTED


def workbook(tmp_path: Path, rows: Sequence[Sequence[Any]], **more: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    page = book.active
    assert page is not None
    for title, content in ((page.title, rows), *more.items()):
        target = page if title == page.title else book.create_sheet(title)
        for row in content:
            target.append(row)
    book.save(tmp_path / "returns.xlsx")
    return tmp_path / "returns.xlsx"


ROWS: list[list[Any]] = [
    ["F", "category", "days", "receipt", "since", "-> decision", "then desk fee"],
    [1, "books, music", "<= 30", True, None, "accept", 0],
    [2, None, "[31..60]", None, ">= 2024-01-01", "store credit", 4.5],
    [3, 'not("toys")', None, None, None, "ask, then decide", None],
    [],
    [4, "-", None, None, None, "reject", 0],
]


def test_a_workbook(tmp_path: Path) -> None:
    assert answers(read_model(workbook(tmp_path, ROWS)), *CASES) == EXPECTED


def test_a_workbook_with_a_date_cell_and_a_named_sheet(tmp_path: Path) -> None:
    file = workbook(tmp_path, ROWS, other=[["since", "decision"], [date(2024, 2, 1), "yes"], [None, "no"]])
    first = read_model(file)
    notes = first.notes
    assert answers(first, *CASES) == EXPECTED
    assert notes == ["sheet 'other' is not read: no outcome is marked with ->"]
    found = read_model(file, ReadOptions(sheet="other"))
    assert answers(found, {"since": "2024-02-01"}, {"since": "2024-02-02"}) == [
        {"decision": "yes"},
        {"decision": "no"},
    ]
    with pytest.raises(DecisionError, match="no sheet 'third'"):
        read_model(file, ReadOptions(sheet="third"))


def test_the_last_column_is_the_outcome_where_none_is_marked(tmp_path: Path) -> None:
    found = answers(sheet(tmp_path, "n,decision\n> 5,big\n,small\n"), {"n": 6}, {"n": 5})
    assert found == [{"decision": "big"}, {"decision": "small"}]


def test_hit_policies_of_a_sheet(tmp_path: Path) -> None:
    rows = "n,-> points\n1,> 5,10\n2,> 10,3\n"
    expected = {"F": 10, "C": [10, 3], "R": [10, 3], "C+": 13, "C<": 3, "C>": 10, "C#": 2}
    for policy, points in expected.items():
        model = sheet(tmp_path, f"{policy},{rows}")
        assert model.evaluate({"n": 11}).output["points"] == points
    buried = sheet(tmp_path, "U,n,k,-> fee\n1,>= 100,,3\n2,> 200,gold,1\n")
    assert {(f.kind, f.rule, f.by) for f in analyse(buried).findings} == {
        ("overlap", "rules:2", ("rules:1",)),
        ("shadowed", "rules:2", ("rules:1",)),
    }
    overlapping = sheet(tmp_path, f"U,{rows}")
    assert {f.kind for f in analyse(overlapping).findings} == {"overlap", "shadowed"}
    assert overlapping.evaluate({"n": 7}).output["points"] == 10
    with pytest.raises(CaseError):
        overlapping.evaluate({"n": 11})


def test_a_sheet_becomes_an_environment(tmp_path: Path) -> None:
    file = tmp_path / "returns.csv"
    file.write_text(RETURNS)
    report = import_decision(file, "acme/R-v0", tmp_path / "out", sizes={"train": 60, "eval": 20, "test": 20})
    assert report.coverage == 1.0
    assert report.outputs == ("decision", "desk_fee")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "a header row and at least one rule"),
        ("a,b\n", "a header row and at least one rule"),
        ("a,,b\n1,2,3\n", "column B has no header"),
        ("a,a,-> b\n1,2,3\n", "two columns are called 'a'"),
        ("-> a,-> b\n1,2\n", "needs a condition and an outcome"),
        ("a,b\n5,x\n65-18,y\n", r"cell A3: '65': the range ends at 18, before it starts"),
        ("a,b\nred,x\n7,y\n", r"column 'a' mixes types: a string in A2 \(red\), a number in A3 \(7\)"),
        ("a,b\n> 5,=A1*2\n", r"cell B2: a formula \(=A1\*2\)"),
        ("a,b\nlen(3) > 2,x\n", "cell A2.*unknown function 'len'"),
        ("a,b\n> 5,\n", "row 2 has no outcome"),
        ("P,a,-> b\n1,5,x\n", "use F"),
        ('a,b\n"5,x\n', "not CSV"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(DecisionError, match=says) as caught:
        sheet(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([["a", "b"], ["> 5", "=1+1"]], "cell B2: a formula"),
        ([["a", "b"], [datetime(2024, 1, 1, 12, 30), "x"]], "cell A2: a date with a time"),
        ([["a", "b"], ["#DIV/0!", "x"]], "cell A2: an error value"),
        ([], "0 sheets with content"),
    ],
)
def test_cells_that_a_program_shows_otherwise_are_refused(
    tmp_path: Path, rows: list[list[Any]], says: str
) -> None:
    with pytest.raises(DecisionError, match=says):
        read_model(workbook(tmp_path, rows))


def merged(file: Path, *ranges: str) -> Path:
    book = openpyxl.load_workbook(file)
    for each in ranges:
        book.worksheets[0].merge_cells(each)
    book.save(file)
    return file


def test_a_value_merged_over_rules_is_that_of_each(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["a", "n", "b"], ["x", "> 5", 1], [None, "< 2", 2], ["y", None, 3]]
    model = read_model(merged(workbook(tmp_path, rows), "A2:A3"))
    cases: list[dict[str, Any]] = [{"a": "y", "n": 1}, {"a": "x", "n": 1}, {"a": "x", "n": 6}]
    assert [model.evaluate(case).output["b"] for case in cases] == [3, 2, 1]


def test_a_value_merged_over_columns_and_a_broken_workbook_are_refused(tmp_path: Path) -> None:
    rows: list[list[Any]] = [["a", "n", "b"], ["x", None, 1], ["y", None, 3]]
    with pytest.raises(DecisionError, match="merged cells A2:B2: a value may be merged over several rules"):
        read_model(merged(workbook(tmp_path, rows), "A2:B2"))
    (tmp_path / "broken.xlsx").write_bytes(b"PK\x03\x04 nonsense")
    with pytest.raises(DecisionError, match="not a workbook"):
        read_model(tmp_path / "broken.xlsx")


def test_the_format_is_guessed(tmp_path: Path) -> None:
    for name, content, form in (
        ("a.json", "", "jdm"), ("a.DMN", "", "dmn"), ("a.csv", "", "csv"), ("b", ' {"nodes"', "jdm"),
        ("c", "<?xml", "dmn"), ("d", "PK\x03\x04", "xlsx"),
    ):  # fmt: skip
        (tmp_path / name).write_text(content)
        assert guess(tmp_path / name) == form
    (tmp_path / "e.doc").write_text("rules")
    with pytest.raises(DecisionError, match=r"not a known format of rules; known: \.json, \.dmn"):
        guess(tmp_path / "e.doc")
    with pytest.raises(DataError, match="no such file"):
        guess(tmp_path / "none.csv")
