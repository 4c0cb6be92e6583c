"""A decision table in a spreadsheet (xlsx, csv): a header row, then one rule a row.

    F   category       days        receipt   -> decision   -> fee
    1   books, music   <= 30       true      accept        0
    2                  [31..60]              credit        4.5
    3                                        reject        0

Columns marked `->` (or `then`) are outcomes, the others conditions; without a mark the last one is the
outcome. A first column headed by a hit policy (U A F R C, C+ C< C> C#) holds rule numbers; without it the
first rule that matches decides. A condition is S-FEEL (`sfeel.py`), where texts need no quotes and an ISO
date is a date; an empty cell or `-` matches anything. Field names may be dotted. What a cell means must not
depend on the program that shows it: formulas, errors, merged cells and times of day are refused by name.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import Any

from vertigym.core.bounds import whole_number
from vertigym.core.errors import MissingDependencyError
from vertigym.core.files import dumps, read_text
from vertigym.decisions.hit_policies import PolicyTable
from vertigym.decisions.jdm import (
    ModelSpec,
    TableRow,
    example_of,
    field_schema,
    identifier,
    put_path,
    schema_of,
)
from vertigym.decisions.model import MOST_CHARACTERS, DecisionError
from vertigym.decisions.sfeel import Name, Term, expression, unary_tests

Grid = list[list[Any]]  # cells: None, bool, int, float, str, date

_MARK = re.compile(r"^(?:->|=>|→|⇒|then\b)\s*", re.IGNORECASE)
_POLICIES = {
    "U": ("UNIQUE", ""), "A": ("ANY", ""), "P": ("PRIORITY", ""), "F": ("FIRST", ""), "R": ("RULE ORDER", ""),
    "O": ("OUTPUT ORDER", ""), "C": ("COLLECT", ""), "C+": ("COLLECT", "SUM"), "C<": ("COLLECT", "MIN"),
    "C>": ("COLLECT", "MAX"), "C#": ("COLLECT", "COUNT"),
}  # fmt: skip
_TEXT = re.compile(r"[^\W\d_][^\"'\\,<>=()\[\]]*")  # bare words
_ISO = re.compile(r"\d{4}-\d\d-\d\d")
_RANGE = re.compile(r"(-?\d+(?:\.\d+)?)\s*\.\.\s*(-?\d+(?:\.\d+)?)")
_MOST_CELLS = 200_000
_MOST_COLUMNS = 500
_MOST_UNPACKED = 10_000_000  # bytes of a workbook
_HEADER = 4000  # characters of the first line that the delimiter is guessed from


def read_sheet(file: Path, sheet: str = "") -> str:
    """The table in a file as JDM text; `sheet` names a sheet of a workbook that has several.

    Raises:
        DecisionError: no table, a cell that is not understood, several sheets and none named.
        MissingDependencyError: openpyxl is not installed.
    """
    title, grid = _workbook(file, sheet) if _is_workbook(file) else ("rules", _csv(file))
    return _Sheet(_trimmed(grid), str(file), title).text()


class _Sheet:
    def __init__(self, grid: Grid, source: str, title: str) -> None:
        self.source = source
        self.title = identifier(title)
        if len(grid) < 2:
            raise DecisionError(f"{source}: a table needs a header row and at least one rule")
        head = [str(cell).strip() if cell is not None else "" for cell in grid[0]]
        given = [row[0] for row in grid[1:]]
        in_order = given in (list(range(1, len(grid))), [None] * len(given))
        numbered = in_order and (head[0] in _POLICIES or head[0] in ("#", ""))
        self.policy, self.aggregate = _POLICIES[head[0]] if numbered and head[0] in _POLICIES else ("FIRST", "")
        skip = int(numbered)
        if len(head) > _MOST_COLUMNS:
            raise DecisionError(f"{source}: {len(head):,} columns; a table has at most {_MOST_COLUMNS}")
        head, self.body = head[skip:], [row[skip:] for row in grid[1:]]
        if "" in head:
            raise DecisionError(f"{source}: column {_letter(head.index('') + skip)} has no header")
        marked = [bool(_MARK.match(name)) for name in head] if any(map(_MARK.match, head)) else []
        is_outcome = marked or [place == len(head) - 1 for place in range(len(head))]
        names = [".".join(map(identifier, _MARK.sub("", name).split("."))) for name in head]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DecisionError(f"{source}: two columns are called {sorted(twice)[0]!r}")
        self.conditions = [(i, n) for i, (n, out) in enumerate(zip(names, is_outcome, strict=True)) if not out]
        self.outcomes = [(i, n) for i, (n, out) in enumerate(zip(names, is_outcome, strict=True)) if out]
        if not self.conditions or not self.outcomes:
            raise DecisionError(f"{source}: a table needs a condition and an outcome (headers marked '->')")
        self.skip = skip

    def text(self) -> str:
        """The table as JDM text."""
        if self.policy in ("PRIORITY", "OUTPUT ORDER"):
            raise DecisionError(
                f"{self.source}: hit policy {self.policy} needs priorities of outputs, which a sheet does not "
                "state; put the rules in that order and use F"
            )
        columns = [self._column(place, name) for place, name in self.conditions]
        fields = {term.text: field_schema(term.type) for term in columns}
        rows = [
            TableRow(self._conditions(row, number, columns), self._outcome(row, number), number)
            for number, row in enumerate(self.body, 1)
        ]
        names = tuple(name for _, name in self.outcomes)
        single = len(names) == 1
        table = PolicyTable(
            name=self.title,
            target=names[0] if single else "results",
            columns=columns,
            outputs=(names[0].rpartition(".")[2],) if single else names,
            fields=names,
            rows=rows,
            policy=self.policy,
            aggregate=self.aggregate,
            schema=schema_of(fields),
            where=self.source,
        )
        spec = ModelSpec([], schema_of(fields))
        spec.nodes = table.nodes()
        for path, part in fields.items():
            put_path(spec.example, path, example_of(part))
        return spec.text()

    # Cells.

    def _where(self, place: int, number: int) -> str:
        return f"{self.source}: cell {_letter(place + self.skip)}{number + 1}"

    def _column(self, place: int, name: str) -> Term:
        """A condition's column with the one type that all its cells have."""
        found: dict[str, str] = {}  # type -> the first cell that has it
        for number, row in enumerate(self.body, 1):
            for part in _parts(row[place]):
                kind = _kind(part)
                if kind:
                    found.setdefault(kind, f"{_letter(place + self.skip)}{number + 1} ({part})")
        if len(found) > 1:
            cells = ", ".join(f"a {kind} in {cell}" for kind, cell in found.items())
            raise DecisionError(
                f"{self.source}: column {name!r} mixes types: {cells}; a range is written [18..65]"
            )
        return Term(name, next(iter(found), ""), (name,), True)

    def _conditions(self, row: Sequence[Any], number: int, columns: Sequence[Term]) -> tuple[str, ...]:
        names = {term.text: Name(term.text, term.type) for term in columns}
        cells = []
        for (place, _), term in zip(self.conditions, columns, strict=True):
            text = _feel(row[place])
            cells.append(unary_tests(text, replace(term), names, self._where(place, number)))
        return tuple(cells)

    def _outcome(self, row: Sequence[Any], number: int) -> tuple[str, ...]:
        found = []
        for place, _ in self.outcomes:
            cell, where = row[place], self._where(place, number)
            if cell in (None, "-"):
                plain = "null"
            elif isinstance(cell, str) and not _literal(cell) and '"' not in cell:
                plain = f'"{cell}"'
            else:
                plain = _feel(cell)
            found.append(expression(plain, {}, where).text)
        if all(value == "null" for value in found):
            raise DecisionError(f"{self.source}: row {number + 1} has no outcome")
        return tuple(found)


def _parts(cell: Any) -> list[str]:
    """The tests in a condition's cell, as they stand: split at commas outside brackets and quotes."""
    if not isinstance(cell, str):
        return [] if cell is None else [_feel(cell)]
    text = cell.strip()
    negated = re.fullmatch(r"not\s*\((.*)\)", text, re.DOTALL)
    parts, depth, quoted, start = list[str](), 0, False, 0
    inner = negated[1] if negated else text
    for place, letter in enumerate(inner):
        quoted ^= letter == '"'
        depth += (letter in "([" and not quoted) - (letter in ")]" and not quoted)
        if letter == "," and depth <= 0 and not quoted:
            parts.append(inner[start:place].strip())
            start = place + 1
    return [part for part in (*parts, inner[start:].strip()) if part not in ("", "-")]


def _feel(cell: Any) -> str:
    """A cell as S-FEEL: bare words become texts, ISO dates become dates, `18..65` an interval."""
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, datetime | date):
        return f'date("{cell:%Y-%m-%d}")'
    if isinstance(cell, int | float):
        return repr(cell)
    parts = [_worded(part) for part in _parts(cell)]
    text = ", ".join(parts)
    return f"not({text})" if re.match(r"not\s*\(", cell.strip()) else text


def _worded(part: str) -> str:
    if part.lower() in ("true", "false", "null"):
        return part.lower()
    if found := _RANGE.fullmatch(part):
        return f"[{found[1]}..{found[2]}]"
    if _TEXT.fullmatch(part) and not re.match(r"(date|time|date and time)\s*\(", part):
        return f'"{part}"'
    return _ISO.sub(lambda m: f'date("{m.group()}")', part) if '"' not in part else part


def _kind(part: str) -> str:
    """The type of one test."""
    text = _worded(part)
    for pattern, kind in (
        (r"date\(|@\"\d{4}-\d\d-\d\d\"", "date"),
        (r'"', "string"),
        (r"\b(true|false)\b", "boolean"),
    ):
        if re.search(pattern, text):
            return kind
    return "number" if re.search(r"\d", text) else ""


def _literal(text: str) -> bool:
    """Whether an outcome's text is a literal as it stands: a number, a truth value, null, quoted, a date."""
    return bool(
        re.fullmatch(r"-?\d+(\.\d+)?|true|false|null|\"[^\"]*\"", text, re.IGNORECASE) or _ISO.fullmatch(text)
    )


# Files.


def _is_workbook(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(4) == b"PK\x03\x04"


def _csv(file: Path) -> Grid:
    text = read_text(file, MOST_CHARACTERS)
    try:
        dialect: Any = csv.Sniffer().sniff(text.partition("\n")[0][:_HEADER], delimiters=",;\t|")
    except csv.Error:
        dialect = csv.excel
    rows: Grid = []
    try:
        for row in csv.reader(io.StringIO(text), dialect, strict=True):
            rows.append([_plain(cell) for cell in row])
    except (csv.Error, ValueError) as error:
        raise DecisionError(f"{file}: row {len(rows) + 1}: not CSV ({error})") from None
    if sum(map(len, rows)) > _MOST_CELLS:
        raise DecisionError(f"{file}: more than {_MOST_CELLS:,} cells")
    for number, row in enumerate(rows, 1):
        for place, cell in enumerate(row):
            if isinstance(cell, str) and cell.startswith("=") and not cell.startswith("=>"):
                raise DecisionError(
                    f"{file}: cell {_letter(place)}{number}: a formula ({cell}): write its value"
                )
    return rows


def _plain(cell: str) -> Any:
    """A CSV cell: empty, a number, or a text.

    Raises:
        ValueError: a number has more digits than are read.
    """
    text = cell.strip()
    if re.fullmatch(r"-?\d+", text):
        return whole_number(text)
    return float(text) if re.fullmatch(r"-?\d+\.\d+", text) else text or None


def _workbook(file: Path, sheet: str) -> tuple[str, Grid]:
    """The sheet's title and its cells."""
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
    filled = [s.title for s in book.worksheets if s.max_row > 1 or s.cell(1, 1).value is not None]
    if sheet and sheet not in book.sheetnames:
        raise DecisionError(f"{file}: no sheet {sheet!r}; it has {', '.join(book.sheetnames)}")
    if not sheet and len(filled) != 1:
        raise DecisionError(
            f"{file}: {len(filled)} sheets with content ({', '.join(filled)}): name one with --sheet"
        )
    page = book[sheet or filled[0]]
    if page.max_row * page.max_column > _MOST_CELLS:
        raise DecisionError(
            f"{file}: its last cell is in row {page.max_row:,}, column {page.max_column:,}: more than "
            f"{_MOST_CELLS:,} cells"
        )
    if page.merged_cells.ranges:
        first = min(map(str, page.merged_cells.ranges))
        raise DecisionError(f"{file}: merged cells {first}: a rule is one row; unmerge them")
    return page.title, [[_cell(cell, file) for cell in row] for row in page.iter_rows()]


def _cell(cell: Any, file: Path) -> Any:
    value = cell.value
    if cell.data_type == "f" and not str(value).startswith("=>"):
        raise DecisionError(f"{file}: cell {cell.coordinate}: a formula ({value}): write its value")
    if cell.data_type == "e":
        raise DecisionError(f"{file}: cell {cell.coordinate}: an error value ({value})")
    if isinstance(value, datetime) and (value.hour or value.minute or value.second):
        raise DecisionError(f"{file}: cell {cell.coordinate}: a date with a time is not supported, only dates")
    if value is None or isinstance(value, bool | int | float | date):
        return value
    if not isinstance(value, str):
        raise DecisionError(
            f"{file}: cell {cell.coordinate}: {dumps(str(value))} is not a text, number or date"
        )
    return value.strip() or None


def _trimmed(grid: Grid) -> Grid:
    """Without empty rows, all of one width, without empty columns at the end."""
    rows = [row for row in grid if any(cell not in (None, "") for cell in row)]
    width = max((i + 1 for row in rows for i, cell in enumerate(row) if cell not in (None, "")), default=0)
    return [list(_padded(row, width)) for row in rows]


def _padded(row: Sequence[Any], width: int) -> Iterator[Any]:
    for place in range(width):
        yield row[place] if place < len(row) else None


def _letter(place: int) -> str:
    """0 -> A, 26 -> AA."""
    letters = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        letters = chr(65 + rest) + letters
    return letters
