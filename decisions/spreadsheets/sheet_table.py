"""One table of a spreadsheet, its cells read, in the engine's words."""

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Any, TypeVar

from vertigym.decisions.hit_policies import PolicyTable
from vertigym.decisions.jdm import TableRow, identifier, quoted
from vertigym.decisions.model import DecisionError
from vertigym.decisions.spreadsheets.declared import Declared
from vertigym.decisions.spreadsheets.header_words import POLICIES
from vertigym.decisions.spreadsheets.sheet_columns import ReadColumn, literal
from vertigym.decisions.spreadsheets.sheet_formulas import Formula, formula
from vertigym.decisions.spreadsheets.sheet_layout import RawColumn, RawTable
from vertigym.decisions.spreadsheets.sheet_notation import Number
from vertigym.decisions.spreadsheets.sheet_pages import Cell
from vertigym.decisions.spreadsheets.sheet_tests import CellValue, Condition, Kind, Test, condition, outcome

T = TypeVar("T")


def field_name(header: str) -> str:
    """A header as a field: `Order amount (EUR)` is Order_amount_EUR; a dot inside a word makes a record."""
    return ".".join(map(identifier, re.split(r"(?<=\w)\.(?=\w)", header)))


class SheetTable:
    """A table whose cells are read."""

    def __init__(self, raw: RawTable, source: str) -> None:
        self.raw, self.source = raw, source
        self.policy, self.aggregate = POLICIES[raw.policy]
        if self.policy in ("PRIORITY", "OUTPUT ORDER"):
            raise DecisionError(
                f"{source}: hit policy {self.policy} needs priorities of outputs, which a sheet does not "
                "state; put the rules in that order and use F"
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

    def _read(self, read: Callable[[Cell], T], cell: Cell) -> T:
        try:
            return read(cell)
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
        names = [(self.fields[column.name], column.kind) for column in self.conditions]
        return PolicyTable(
            name=identifier(self.raw.title),
            target=fields[0] if single else target,
            columns=tuple(f"date({name})" if kind == "date" else name for name, kind in names),
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


def _about_it(test: Test, text: str) -> str:
    return f"$ in {text}" if test.high is not None else f"$ == {text}" if test.sign == "=" else f"$ {text}"
