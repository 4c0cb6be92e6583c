"""From the sheets of a file to a decision model: a node for each table, after those it takes values from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vertigym.core.errors import ConfigError, suggest
from vertigym.decisions.jdm import ModelSpec, example_of, field_schema, identifier, put_path, schema_of
from vertigym.decisions.model import DecisionError
from vertigym.decisions.spreadsheets.declared import Columns
from vertigym.decisions.spreadsheets.sheet_columns import decimal_mark
from vertigym.decisions.spreadsheets.sheet_layout import NoTableError, RawTable, find_tables
from vertigym.decisions.spreadsheets.sheet_pages import Page, read_pages
from vertigym.decisions.spreadsheets.sheet_table import SheetTable

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
    tables = [SheetTable(table, source) for table in raw]
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
    missing = (listed or set()) - {table.title for table in found}
    if not found or missing:
        reasons = "; ".join(f"{title}: {why}" for title, why in skipped.items())
        what = (
            f"no table {sorted(missing)[0]!r}, which the sheet Decision names" if missing else "no table in it"
        )
        raise DecisionError(f"{source}: {what} ({reasons})")
    chosen = [table for table in found if table.chosen]
    if len(found) > 1 and not chosen:
        names = ", ".join(table.title for table in found)
        raise DecisionError(
            f"{source}: {len(found)} sheets with content ({names}): name one with --sheet, or mark the "
            "outcomes of each table of rules with ->"
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
            f"{source}: sheet {page.title!r}: a column {_EXECUTE!r} is needed, and tables that run only under "
            f"conditions ({', '.join(before) or 'none'}) are not supported; name one sheet with --sheet"
        )
    return {row[head.index(_EXECUTE)] for row in rows[rows.index(head) + 1 :]} - {""}


class _Chain:
    """Tables in the order they run."""

    def __init__(self, tables: Sequence[SheetTable], mark: str, source: str) -> None:
        self.mark, self.source = mark, source
        self.gives: dict[str, SheetTable] = {}
        for table in tables:
            for field in table.decides:
                if field in self.gives:
                    raise DecisionError(
                        f"{source}: {field!r} is decided by two tables ({self.gives[field].raw.title}, "
                        f"{table.raw.title}): name one with --sheet"
                    )
                self.gives[field] = table
        names = {field for table in tables for field in (*table.decides, *table.takes)}
        for name in sorted(names):
            parents = {name[:place] for place, letter in enumerate(name) if letter == "."}
            if both := parents & names:
                raise DecisionError(
                    f"{source}: {both.pop()!r} is a column, and a record that holds {name!r}: rename one"
                )
        self.tables = self._in_order(tables)

    def _in_order(self, tables: Sequence[SheetTable]) -> list[SheetTable]:
        order: list[SheetTable] = []
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

    def _check_kind(self, kinds: dict[str, tuple[str, str]], name: str, kind: str, table: SheetTable) -> None:
        known, title = kinds.setdefault(name, (kind, table.raw.title))
        if kind and known and known != kind:
            raise DecisionError(
                f"{self.source}: {name!r} is a {known} in {title} and a {kind} in {table.raw.title}: declare "
                "one type"
            )
