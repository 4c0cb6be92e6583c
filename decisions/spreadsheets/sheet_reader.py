"""From the tables of a spreadsheet to a decision model: a node for each, after those it takes values from."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

from vertigym.core.errors import ConfigError, suggest
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
from vertigym.decisions.model import DecisionError
from vertigym.decisions.sfeel import Term, quoted
from vertigym.decisions.spreadsheets.declared import Columns, Declared
from vertigym.decisions.spreadsheets.header_words import POLICIES
from vertigym.decisions.spreadsheets.sheet_columns import ReadColumn, decimal_mark, literal
from vertigym.decisions.spreadsheets.sheet_formulas import Formula, formula
from vertigym.decisions.spreadsheets.sheet_layout import NoTableError, RawColumn, RawTable, find_tables
from vertigym.decisions.spreadsheets.sheet_notation import Number
from vertigym.decisions.spreadsheets.sheet_pages import Cell, Page, read_pages
from vertigym.decisions.spreadsheets.sheet_tests import CellValue, Condition, Kind, condition, outcome

T = TypeVar("T")
_DMN_SHEETS = {
    "glossary": "a glossary",
    "decision": "the list of tables to run",
    "test": "tests",
}  # of pyDMNrules
_EXECUTE = "Execute Decision Table"


@dataclass(frozen=True, slots=True)
class SheetModel:
    """A decision model as JDM text, and what was not read: sheets that hold no table, with the reason."""

    text: str
    notes: tuple[str, ...]


def read_sheet(file: Path, sheet: str = "", columns: Columns | None = None) -> SheetModel:
    """The tables in a file as one model; `sheet` names one sheet of a workbook, `columns` declares columns.

    Raises:
        DecisionError: no table, a cell that is not understood or has two readings. ConfigError: a column is
        declared that is not there. MissingDependencyError: openpyxl is not installed.
    """
    source = str(file)
    raw, notes = _tables(read_pages(file), sheet, columns or {}, source)
    known = {name for table in raw for name in table.headers}
    for name in columns or {}:
        if name not in known:
            raise ConfigError(f"{source}: no column {name!r} to declare{suggest(name, known)}")
    tables = [_Table(table, source) for table in raw]
    every = [column for table in tables for column in table.columns]
    for column in every:
        column.decide()
    mark = decimal_mark(every, raw[0].page.delimiter)
    return SheetModel(_Chain(tables, mark, source).text(), notes)


def _tables(
    pages: Sequence[Page], sheet: str, columns: Columns, source: str
) -> tuple[list[RawTable], tuple[str, ...]]:
    """The tables that are read, and why other pages are not."""
    titles = [page.title for page in pages]
    if sheet and sheet not in titles:
        raise DecisionError(f"{source}: no sheet {sheet!r}; it has {', '.join(titles)}")
    wanted = [page for page in pages if page.title == sheet or not (sheet or page.hidden)]
    if not wanted:
        raise DecisionError(f"{source}: 0 sheets with content")
    found: list[RawTable] = []
    skipped: dict[str, str] = {page.title: "hidden" for page in pages if page.hidden and not sheet}
    listed = None
    for page in wanted:
        if why := _DMN_SHEETS.get(page.title.lower()) if not sheet and _first(page) in _DMN_SHEETS else "":
            skipped[page.title] = why
            listed = _listed(page, source) if page.title.lower() == "decision" else listed
            continue
        where = f"{source}: sheet {page.title!r}" if len(titles) > 1 else source
        try:
            found += find_tables(page, columns, where)
        except NoTableError as error:
            if len(wanted) == 1:
                raise
            skipped[page.title] = str(error).removeprefix(f"{where}: ")
    if listed is not None:
        skipped |= {t.title: "the sheet Decision does not name it" for t in found if t.title not in listed}
        found = [table for table in found if table.title in listed]
    if not found:
        reasons = "; ".join(f"{title}: {why}" for title, why in skipped.items())
        raise DecisionError(f"{source}: no sheet holds a table ({reasons})")
    chosen = [table for table in found if table.chosen]
    if len(found) > 1 and not chosen:
        names = ", ".join(table.title for table in found)
        raise DecisionError(
            f"{source}: {len(found)} sheets with content ({names}): name one with --sheet, or mark "
            "the outcomes of each "
            "table of rules with ->"
        )
    if chosen and len(found) > len(chosen):
        skipped |= {t.title: "no outcome is marked with ->" for t in found if not t.chosen}
        found = chosen
    return found, tuple(f"sheet {title!r} is not read: {why}" for title, why in skipped.items())


def _first(page: Page) -> str:
    return next((cell.text.lower() for row in page.grid for cell in row if cell.value is not None), "")


def _listed(page: Page, source: str) -> set[str]:
    """The tables that a sheet Decision runs, as pyDMNrules has it.

    Raises:
        DecisionError: it runs them under conditions.
    """
    rows = [[cell.text for cell in row] for row in page.grid]
    head = next((row for row in rows if _EXECUTE in row), [])
    before = [name for name in head[: head.index("Decisions") if "Decisions" in head else 0] if name]
    if not head or before:
        raise DecisionError(
            f"{source}: sheet {page.title!r}: a column {_EXECUTE!r} is needed, and tables that run "
            "only under conditions "
            f"({', '.join(before) or 'none'}) are not supported; name one sheet with --sheet"
        )
    return {row[head.index(_EXECUTE)] for row in rows[rows.index(head) + 1 :]} - {""}


def field_name(header: str) -> str:
    """A header as a field: `Order amount (EUR)` is Order_amount_EUR; a dot inside a word makes a record."""
    return ".".join(map(identifier, re.split(r"(?<=\w)\.(?=\w)", header)))


class _Table:
    """A table whose cells are read."""

    def __init__(self, raw: RawTable, source: str) -> None:
        self.raw, self.source = raw, source
        self.policy, self.aggregate = POLICIES[raw.policy]
        if self.policy in ("PRIORITY", "OUTPUT ORDER"):
            raise DecisionError(
                f"{source}: hit policy {self.policy} needs priorities of outputs, which a sheet does "
                "not state; put the rules "
                "in that order and use F"
            )
        if any(column.is_outcome and column.name == "Execute" for column in raw.columns):
            raise DecisionError(
                f"{source}: table {raw.title!r}: an outcome that runs another table is not supported"
            )
        names = [field_name(column.name) for column in raw.columns]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DecisionError(f"{source}: two columns are called {twice[0]!r}")
        self.fields = dict(zip((column.name for column in raw.columns), names, strict=True))
        self.conditions = [self._conditions(column) for column in raw.columns if not column.is_outcome]
        self.values: list[list[CellValue | Formula | None]] = []
        self.outcomes = [self._outcomes(column) for column in raw.columns if column.is_outcome]
        self.columns = [*self.conditions, *self.outcomes]
        for place, given in enumerate(zip(*self.values, strict=True)):
            if given.count(None) == len(given):
                raise DecisionError(f"{source}: {self._rule(place)} has no outcome")

    @property
    def decides(self) -> tuple[str, ...]:
        """The fields it gives."""
        return tuple(self.fields[column.name] for column in self.outcomes)

    @property
    def takes(self) -> tuple[str, ...]:
        """The fields it looks at."""
        return tuple(self.fields[column.name] for column in self.conditions)

    def _read(self, read: Callable[..., T], cell: Cell, *more: Any) -> T:
        try:
            return read(cell, *more)
        except ValueError as error:
            shown = str(cell.value) if len(str(cell.value)) < 60 else f"{str(cell.value)[:60]}…"
            raise DecisionError(f"{self.source}: cell {cell.where}: {shown!r}: {error}") from None

    def _conditions(self, column: RawColumn) -> ReadColumn:
        is_typed = self.raw.page.is_typed
        read = [self._read(lambda cell: condition(cell, is_typed=is_typed), cell) for cell in column.cells]
        atoms = [atom for each in read for test in each.tests for atom in test.atoms]
        return ReadColumn(column.name, self.source, column.declared, atoms, read)

    def _outcomes(self, column: RawColumn) -> ReadColumn:
        names = [each.name for each in self.conditions]

        def one(cell: Cell) -> CellValue | Formula | None:
            atom = outcome(cell, is_typed=self.raw.page.is_typed)
            if (
                atom is None
                or atom.exact is not None
                or atom.kinds != {"string"}
                or column.declared.kind == "string"
            ):
                return atom
            return formula(atom.text, atom.where, names) or atom

        values = [self._read(one, cell) for cell in column.cells]
        self.values.append(values)
        made = ReadColumn(
            column.name, self.source, column.declared, [v for v in values if isinstance(v, CellValue)]
        )
        for value in values:
            if isinstance(value, Formula):
                made.declared = column.declared.over(Declared(kind="number"))
                numbers = (part for part in value.parts if isinstance(part, Number))
                kinds: frozenset[Kind] = frozenset({"number"})
                made.computed += [
                    CellValue(value.text, value.where, kinds, number=n, bare=False) for n in numbers
                ]
        return made

    def policy_table(self, mark: str, schema: dict[str, Any], target: str) -> PolicyTable:
        """The table in the engine's words."""
        fields = self.decides
        single = len(fields) == 1
        terms = [Term(self.fields[c.name], c.kind, (self.fields[c.name],), True) for c in self.conditions]
        return PolicyTable(
            name=identifier(self.raw.title),
            target=fields[0] if single else target,
            columns=terms,
            outputs=(fields[0].rpartition(".")[2],) if single else fields,
            fields=fields,
            rows=list(self._rows(mark)),
            policy=self.policy,
            aggregate=self.aggregate,
            schema=schema,
            where=self.source,
        )

    def _rows(self, mark: str) -> Iterator[TableRow]:
        for column in self.conditions:
            column.check_lists()
        numbered = {c.name: self.fields[c.name] for c in self.conditions if c.kind == "number"}
        for place in range(len(self.conditions[0].conditions)):
            tests = tuple(_engine_tests(column, column.conditions[place], mark) for column in self.conditions)
            given = tuple(
                self._given(column, values[place], mark, numbered)
                for column, values in zip(self.outcomes, self.values, strict=True)
            )
            yield TableRow(tests, given, place + 1)

    def _rule(self, place: int) -> str:
        """Where a rule stands: a row, or a column where rules stand in columns."""
        cells = [column.cells[place].where for column in self.raw.columns]
        rows = {re.sub(r"[A-Z]+", "", where) for where in cells}
        return f"row {rows.pop()}" if len(rows) == 1 else f"column {re.sub('[0-9]+', '', cells[0])}"

    def _given(
        self, column: ReadColumn, value: CellValue | Formula | None, mark: str, numbered: Mapping[str, str]
    ) -> str:
        if value is None:
            return "null"
        if isinstance(value, CellValue):
            return _engine_value(column, value, mark, is_test=False)
        where = f"{self.source}: cell {value.where}: {value.text!r}"
        if other := set(value.names) - set(numbered):
            raise DecisionError(f"{where}: {sorted(other)[0]!r} is no number; put the text in quotes")
        try:
            return value.engine_text(numbered, mark)
        except ValueError as error:
            raise DecisionError(f"{where}: {error}") from None


def _engine_value(column: ReadColumn, atom: CellValue, mark: str, *, is_test: bool) -> str:
    """One value in the engine's words; a date in a test is read as one."""
    value = column.value(atom, mark)
    if isinstance(value, str):
        return quoted(value, f"{column.source}: cell {atom.where}")
    if isinstance(value, date):
        return f"date('{value.isoformat()}')" if is_test else f"'{value.isoformat()}'"
    return literal(value)


def _engine_tests(column: ReadColumn, found: Condition, mark: str) -> str:
    """A cell in the engine's words; empty where it matches anything.

    Raises:
        DecisionError: it can never fail or never hold as written.
    """
    texts, equal = [], True
    above: list[Any] = []
    below: list[Any] = []
    for test in found.tests:
        values = [_engine_value(column, atom, mark, is_test=True) for atom in test.atoms]
        exact = [column.value(atom, mark) for atom in test.atoms]
        if test.high is not None:
            if exact[0] > exact[1]:
                raise column.fail(test.low, f"the range ends at {test.high.text}, before it starts")
            texts.append(f"{test.sign[0]}{values[0]}..{values[1]}{test.sign[1]}")
        elif test.sign in ("=", "!="):
            texts.append(values[0] if test.sign == "=" else f"!= {values[0]}")
        else:
            (above if test.sign[0] == ">" else below).append(exact[0])
            texts.append(f"{test.sign} {values[0]}")
        equal &= test.sign == "="
    if above and below and min(above) <= max(below):
        raise column.fail(
            found.tests[0].low, "any of these holds for every value; write the range [5..10] for both"
        )
    if not found.negated:
        return ", ".join(texts)
    if equal:
        return f"!= {texts[0]}" if len(texts) == 1 else f"not in [{', '.join(texts)}]"
    return " and ".join(f"not ({_about_it(test, text)})" for test, text in zip(found.tests, texts, strict=True))


def _about_it(test: Any, text: str) -> str:
    return f"$ in {text}" if test.high is not None else f"$ == {text}" if test.sign == "=" else f"$ {text}"


class _Chain:
    """Tables in the order they run."""

    def __init__(self, tables: Sequence[_Table], mark: str, source: str) -> None:
        self.mark, self.source = mark, source
        self.gives: dict[str, _Table] = {}
        for table in tables:
            for field in table.decides:
                if field in self.gives:
                    raise DecisionError(
                        f"{source}: {field!r} is decided by two tables "
                        f"({self.gives[field].raw.title}, {table.raw.title}): name "
                        "one with --sheet"
                    )
                self.gives[field] = table
        self.tables = self._in_order(tables)

    def _in_order(self, tables: Sequence[_Table]) -> list[_Table]:
        order: list[_Table] = []
        waiting = list(tables)
        while ready := [t for t in waiting if all(self.gives.get(f, t) in (*order, t) for f in t.takes)]:
            order += ready
            waiting = [table for table in waiting if table not in ready]
        own = next((f"{t.raw.title} takes {f}" for t in tables for f in t.takes if self.gives.get(f) is t), "")
        if waiting or own:
            names = own or " and ".join(table.raw.title for table in waiting)
            raise DecisionError(f"{self.source}: tables take what they decide themselves ({names})")
        return order

    def text(self) -> str:
        """All tables as JDM text."""
        fields: dict[str, dict[str, Any]] = {}
        kinds: dict[str, tuple[str, str]] = {}
        for table in self.tables:
            for column in table.conditions:
                name = table.fields[column.name]
                self._check_kind(kinds, name, column.kind, table)
                if name not in self.gives:
                    fields[name] = field_schema(column.kind)
            for column in table.outcomes:
                is_list = table.policy in ("COLLECT", "RULE ORDER") and not table.aggregate
                kinds[table.fields[column.name]] = ("list" if is_list else column.kind, table.raw.title)
        spec = ModelSpec([], schema_of(fields))
        for table in self.tables:
            target = "results" if len(self.tables) == 1 else f"{identifier(table.raw.title)}_results"
            spec.nodes += table.policy_table(self.mark, spec.schema, target).nodes()
        for path, part in fields.items():
            put_path(spec.example, path, example_of(part))
        return spec.text()

    def _check_kind(self, kinds: dict[str, tuple[str, str]], name: str, kind: str, table: _Table) -> None:
        known, title = kinds.setdefault(name, (kind, table.raw.title))
        if kind and known and known != kind:
            raise DecisionError(
                f"{self.source}: {name!r} is a {known} in {title} and a {kind} in {table.raw.title}: "
                "declare one type"
            )
