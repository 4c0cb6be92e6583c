"""Files of spreadsheets (xlsx, csv) as pages of cells that know where they stand.

What a cell means must not depend on the program that shows it: formulas, errors and times of day are refused by
name. Merged cells all hold what the first of them holds.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.core.files import dumps, read_text
from vertigym.decisions.model import MOST_CHARACTERS, DecisionError

MOST_COLUMNS = 500
_MOST_CELLS = 200_000
_MOST_UNPACKED = 10_000_000  # bytes of a workbook
_DELIMITERS = ",;\t|"
_SAMPLE = 100  # rows from which the delimiter is told


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell: None, bool, int, float, date, or a text without space around it.

    `percent`, `padded` and `as_text` say how a workbook shows it: 0.05 as 5%, 7 as 007, digits as a text.
    `edges` names the sides with a double line.
    """

    value: Any
    where: str
    percent: bool = False
    padded: bool = False
    as_text: bool = False
    edges: frozenset[str] = frozenset()

    @property
    def text(self) -> str:
        """The value as a header or a title shows it."""
        return "" if self.value is None else " ".join(str(self.value).split())


Grid = list[list[Cell]]


@dataclass(frozen=True, slots=True)
class Page:
    """A sheet. `merged` are (top, left, bottom, right); `is_typed`: the file tells numbers from texts;
    `delimiter` is that of a CSV file."""

    title: str
    grid: Grid
    merged: tuple[tuple[int, int, int, int], ...] = ()
    is_typed: bool = False
    delimiter: str = ""
    hidden: bool = False


def read_pages(file: Path) -> list[Page]:
    """The pages of a file.

    Raises:
        DecisionError: it is no such file, or too large. MissingDependencyError: openpyxl is not installed.
    """
    with file.open("rb") as opened:
        packed = opened.read(4) == b"PK\x03\x04"
    if not packed and file.suffix.lower() == ".xlsx":
        raise DecisionError(f"{file}: not a workbook: save it as .xlsx, or name a table of text .csv")
    return _workbook(file) if packed else [_csv(file)]


def letter(place: int) -> str:
    """0 -> A, 26 -> AA."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(65 + rest) + letters
    return letters


def _csv(file: Path) -> Page:
    try:
        text = read_text(file, MOST_CHARACTERS)
    except DataError as error:
        remedy = ": save it as 'CSV UTF-8'" if "UTF-8" in str(error) else ""
        raise DecisionError(f"{error}{remedy}") from None
    delimiter = _delimiter(text)
    rows: list[list[str]] = []
    try:
        rows.extend(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True, strict=True))
    except csv.Error as error:
        raise DecisionError(f"{file}: row {len(rows) + 1}: not CSV ({error})") from None
    width = max(map(len, rows), default=0)
    _check_size(file, len(rows), width)
    grid = []
    for y, row in enumerate(rows):
        cells = (*row, *[""] * (width - len(row)))
        grid.append([_csv_cell(text, f"{letter(x)}{y + 1}", file) for x, text in enumerate(cells)])
    return Page("rules", grid, delimiter=delimiter)


def _delimiter(text: str) -> str:
    """The delimiter under which most rows have one number of columns, and of these that with most columns."""

    def score(delimiter: str) -> tuple[float, int]:
        rows = islice(csv.reader(io.StringIO(text), delimiter=delimiter, skipinitialspace=True), _SAMPLE)
        widths = [len(row) for row in rows if any(row)]
        usual = max(set(widths) - {1}, key=widths.count, default=1)
        return (widths.count(usual) / len(widths), usual) if usual > 1 else (0, 0)

    try:
        return max(_DELIMITERS, key=score)
    except csv.Error:
        return ","


def _csv_cell(text: str, where: str, file: Path) -> Cell:
    text = _clean(text)
    if text.startswith("=") and not text.startswith("=>"):
        raise DecisionError(f"{file}: cell {where}: a formula ({text}): write its value")
    return Cell(text or None, where)


def _workbook(file: Path) -> list[Page]:
    try:
        import openpyxl
    except ImportError:
        raise MissingDependencyError("openpyxl", "formats", "reading a workbook") from None
    try:
        with zipfile.ZipFile(file) as packed:
            unpacked = sum(part.file_size for part in packed.infolist())
        if unpacked > _MOST_UNPACKED:
            raise ValueError(f"{unpacked:,} bytes unpacked, at most {_MOST_UNPACKED:,} are read")
        book = openpyxl.load_workbook(file, data_only=False)
    except Exception as error:  # the reader's many errors for what is no workbook
        raise DecisionError(f"{file}: not a workbook (xlsx): {' '.join(str(error).split())}") from None
    return [
        _page(sheet, file) for sheet in book.worksheets if sheet.max_row > 1 or sheet["A1"].value is not None
    ]


def _page(sheet: Any, file: Path) -> Page:
    _check_size(file, sheet.max_row, sheet.max_column)
    hidden = [*_hidden(sheet.row_dimensions, "row"), *_hidden(sheet.column_dimensions, "column")]
    if hidden and sheet.sheet_state == "visible":
        raise DecisionError(f"{file}: sheet {sheet.title!r}: {hidden[0]} is hidden: show it, or delete it")
    grid = [[_cell(cell, file) for cell in row] for row in sheet.iter_rows()]
    merged = tuple(
        (found.min_row - 1, found.min_col - 1, found.max_row - 1, found.max_col - 1)
        for found in sorted(sheet.merged_cells.ranges, key=str)
    )
    for top, left, bottom, right in merged:
        for y in range(top, bottom + 1):
            for x in range(left, right + 1):
                inner = grid[y][x]
                grid[y][x] = replace(grid[top][left], where=inner.where, edges=inner.edges)
    return Page(sheet.title, grid, merged, is_typed=True, hidden=sheet.sheet_state != "visible")


def _hidden(dimensions: Any, kind: str) -> Iterator[str]:
    yield from (f"{kind} {key}" for key, dimension in dimensions.items() if dimension.hidden)


def _clean(text: str) -> str:
    """The text without space around it and without letters that nobody sees."""
    return re.sub(r"[\u200b\u200c\u2060\ufeff\u00ad]", "", text).strip()


def _check_size(file: Path, rows: int, columns: int) -> None:
    if rows * columns > _MOST_CELLS:
        raise DecisionError(
            f"{file}: its last cell is in row {rows:,}, column {columns:,}: more than {_MOST_CELLS:,} cells"
        )


def _cell(cell: Any, file: Path) -> Cell:
    value, where = cell.value, cell.coordinate
    if cell.data_type == "f" and not str(value).startswith("=>"):
        raise DecisionError(f"{file}: cell {where}: a formula ({value}): write its value")
    if cell.data_type == "e":
        raise DecisionError(f"{file}: cell {where}: an error value ({value})")
    if isinstance(value, datetime):
        if value.hour or value.minute or value.second:
            raise DecisionError(f"{file}: cell {where}: a date with a time is not supported, only dates")
        value = value.date()
    if isinstance(value, str):
        value = _clean(value) or None
    elif not (value is None or isinstance(value, bool | int | float | date)):
        raise DecisionError(f"{file}: cell {where}: {dumps(str(value))} is not a text, number or date")
    if not cell.has_style:
        return Cell(value, where)
    if value is not None and cell.font is not None and cell.font.strike:
        raise DecisionError(f"{file}: cell {where}: struck out: delete it, or write it plainly")
    shown = str(cell.number_format)
    return Cell(
        value,
        where,
        percent="%" in shown,
        padded=re.fullmatch(r"0{2,}", shown) is not None,
        as_text=shown == "@",
        edges=frozenset(_edges(cell.border)),
    )


def _edges(border: Any) -> Iterator[str]:
    for side in ("left", "right", "top", "bottom"):
        if getattr(border, side) is not None and getattr(border, side).style == "double":
            yield side


_TURNED = {"left": "top", "top": "left", "right": "bottom", "bottom": "right"}


def turned(page: Page) -> Page:
    """The page with rows for columns; each cell still knows where it stands in the file."""
    grid = [
        [replace(cell, edges=frozenset(_TURNED[e] for e in cell.edges)) for cell in row] for row in page.grid
    ]
    merged = tuple((left, top, right, bottom) for top, left, bottom, right in page.merged)
    return replace(page, grid=[list(row) for row in zip(*grid, strict=True)], merged=merged)


def is_blank(cells: Sequence[Cell]) -> bool:
    """Whether none of the cells holds anything."""
    return all(cell.value is None for cell in cells)
