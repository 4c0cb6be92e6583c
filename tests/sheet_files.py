"""Spreadsheets for tests: CSV text, workbooks, and what becomes of a column."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import openpyxl
from openpyxl.styles import Side

from vertigym.decisions.formats import ReadOptions, read_model
from vertigym.decisions.protocols import RuleModel
from vertigym.decisions.spreadsheets.declared import parse_columns

DOUBLE = Side(style="double")


def rules(tmp_path: Path, text: str, *columns: str) -> list[str]:
    """The rules of a CSV table in one line each."""
    (tmp_path / "t.csv").write_text(text, encoding="utf-8")
    model = read_model(tmp_path / "t.csv", ReadOptions(columns=parse_columns(columns)))
    return [rule.text for rule in model.rules.values()]


def column(tmp_path: Path, *cells: str, header: str = "a", words: str = "") -> list[str]:
    """What becomes of the cells of one condition."""
    text = f"{header};-> out\n" + "".join(f"{cell};o\n" for cell in cells)
    return [r.partition(" -> ")[0] for r in rules(tmp_path, text, *([f"{header}={words}"] if words else []))]


def workbook(tmp_path: Path, **sheets: Sequence[Sequence[Any]]) -> Path:
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for title, rows in sheets.items():
        page = book.create_sheet(title.replace("_", " "))
        for row in rows:
            page.append(list(row))
    book.save(tmp_path / "book.xlsx")
    return tmp_path / "book.xlsx"


def answer(model: RuleModel, field: str, **case: Any) -> Any:
    return model.evaluate(case).output.get(field)
