"""Where the table is on a page, and what each of its columns is for.

    Discounts 2024                        a title: rows that name no columns
    If               | Then               a row of groups (merged, or these words)
    F  tier  amount  | -> rate   Remarks  the headers; a hit policy may stand over the rules' numbers
       text  number    number             a row of declarations (see `declared.py`)
    1  gold  > 100     5 %       as in May

Outcomes are marked (`->`, `then`), declared, under Then, or right of a double line; without any of these the
last column is the outcome. Remarks, notes and rule numbers are recognised and never conditions. Rules may stand
in columns where marks or labels show it. What could be one or the other is refused.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NoReturn

from vertigym.decisions.model import DecisionError
from vertigym.decisions.spreadsheets.declared import Columns, Declared, Role, declared
from vertigym.decisions.spreadsheets.drools_tables import drools_pages
from vertigym.decisions.spreadsheets.header_words import (
    GROUPS,
    MAYBE_NOTES,
    POLICIES,
    REMARKS,
    RULE_NUMBERS,
    is_marked,
    is_name,
    is_numbering,
    is_test,
    is_wrong_policy,
    range_end,
    unmarked,
)
from vertigym.decisions.spreadsheets.sheet_pages import MOST_COLUMNS, Cell, Page, is_blank, turned

_MOST_TITLES = 50  # rows over a table


class NoTableError(DecisionError):
    """A page on which no table of rules is found; the message is the reason."""


@dataclass(frozen=True, slots=True)
class RawColumn:
    """A column before its cells are read: the header without its mark, the cells of the rules."""

    name: str
    declared: Declared
    cells: tuple[Cell, ...]

    @property
    def is_outcome(self) -> bool:
        """An outcome; else a condition."""
        return self.declared.role == "outcome"


@dataclass(frozen=True, slots=True)
class RawTable:
    """A table before its cells are read. `chosen`: something on the page says that it is one."""

    title: str
    policy: str
    columns: tuple[RawColumn, ...]
    page: Page
    chosen: bool
    headers: frozenset[str]


def find_tables(page: Page, columns: Columns, source: str) -> list[RawTable]:
    """The tables on a page: one, or several under each other where each has marks or a hit policy.

    Raises:
        NoTableError: there is none. DecisionError: there is one, but it has two readings.
    """
    width = len(page.grid[0]) if page.grid else 0
    if width > MOST_COLUMNS:
        raise DecisionError(f"{source}: {width:,} columns; a table has at most {MOST_COLUMNS}")
    parts = drools_pages(page, source) or [_turned_upright(part) for part in _parts(page)]
    return [_Layout(part, columns, source).table() for part in parts]


def _parts(page: Page) -> list[Page]:
    """The page cut at empty rows, where what follows each cut has marked headers."""
    if all(map(is_blank, page.grid)):
        return [page]
    starts = [
        y for y, row in enumerate(page.grid) if not is_blank(row) and (not y or is_blank(page.grid[y - 1]))
    ]
    ends = [*starts[1:], len(page.grid)]
    strong = [y for y, end in zip(starts, ends, strict=True) if any(map(_is_head, page.grid[y:end]))]
    if len(strong) < 2:
        return [page]
    parts: list[Page] = []
    for top, end in zip([starts[0], *strong[1:]], [*strong[1:], len(page.grid)], strict=True):
        titles = [cell.text for cell in page.grid[top] if cell.value is not None]
        title = titles[0] if len(set(titles)) == 1 else f"{page.title} {len(parts) + 1}"
        parts.append(replace(_cut(page, top, end), title=title))
    return parts


def _cut(page: Page, top: int, end: int) -> Page:
    merged = tuple((a - top, b, c - top, d) for a, b, c, d in page.merged if a >= top and c < end)
    return replace(page, grid=page.grid[top:end], merged=merged)


def _is_head(row: Sequence[Cell]) -> bool:
    """Whether a row has marks, or a hit policy and names right of it."""
    filled = [cell for cell in row if cell.value is not None]
    named = len(filled) > 2 and filled[0].text in POLICIES and all(map(is_name, filled[1:]))
    return named or any(map(is_marked, filled))


def _turned_upright(page: Page) -> Page:
    """The page with one rule a row, where marks or rules' labels show that rules stand in columns."""
    top = next((y for y, row in enumerate(page.grid) if len({cell.value for cell in row} - {None}) > 1), 0)
    below = _cut(page, top, len(page.grid))
    rows = [row for row in below.grid if not is_blank(row)]
    left = next((x for x in range(len(rows[0]) if rows else 0) if not is_blank([row[x] for row in rows])), 0)
    if len(rows) < 2 or any(is_marked(cell) for row in rows for cell in row[left + 1 :]):
        return page
    first, last = rows[0], rows[-1]
    if all(map(is_name, (row[left] for row in rows[:-1]))) and _numbers_rules(last, left, POLICIES):
        title = next((cell.text for cell in page.grid[top - 1] if top and cell.value is not None), page.title)
        return turned(
            replace(below, title=title, grid=[last, *below.grid[: below.grid.index(last)]], merged=())
        )
    if any(is_marked(row[left]) for row in rows[1:]):
        return turned(below)
    names = [row[left] for row in rows[1:]]
    if _numbers_rules(first, left, {*POLICIES, *RULE_NUMBERS}) and all(map(is_name, names)):
        return turned(below)
    return page


def _numbers_rules(row: Sequence[Cell], left: int, heads: Collection[str]) -> bool:
    labels = [cell for cell in row[left + 1 :] if cell.value is not None]
    head = row[left].text
    return len(labels) > 1 and (head in heads or head.lower() in heads) and is_numbering(labels)


class _Layout:
    def __init__(self, page: Page, columns: Columns, source: str) -> None:
        self.page, self.columns, self.source = page, columns, source
        self.lines = [y for y, row in enumerate(page.grid) if not is_blank(row)]
        if len(self.lines) < 2:
            raise NoTableError(f"{source}: a table needs a header row and at least one rule")
        used = [x for x in range(len(page.grid[0])) if not is_blank([row[x] for row in page.grid])]
        self.left, self.right = min(used), max(used) + 1
        self.head = self._find_head()
        rest = [y for y in self.lines if y > self.head]
        self.types = self._declared_row(rest[0]) if rest else {}
        self.body = rest[1:] if self.types else rest
        if not self.body:
            raise NoTableError(f"{source}: a table needs a header row and at least one rule")
        self._check_merges()
        heads = [cell.text for cell in self._row(self.head)]
        for y in self.body:
            if [cell.text for cell in self._row(y)] == heads:
                raise DecisionError(f"{self.source}: row {_number(y)} repeats the headers: delete it")

    def _row(self, y: int) -> list[Cell]:
        return self.page.grid[y][self.left : self.right]

    # The header row.

    def _find_head(self) -> int:
        marked = [y for y in self.lines if any(map(is_marked, self._row(y)))]
        if len(marked) > 1:
            raise DecisionError(
                f"{self.source}: outcomes are marked in rows {_number(marked[0])} and {_number(marked[1])}: a "
                "sheet holds one table; put the second on a sheet of its own"
            )
        if marked:
            return marked[0]
        head = next(self._heads(), None)
        if head is None:
            self._say_why(self.lines[0])
        filled = set(self.lines)
        for y in self.lines[self.lines.index(head) + 2 :]:
            if y - 1 not in filled and all(map(is_name, self._row(y))):
                raise DecisionError(
                    f"{self.source}: row {_number(y)} looks like the headers of another table: mark the "
                    "outcomes with -> in the header row, delete the empty row, or put each table on a sheet "
                    "of its own"
                )
        return head

    def _heads(self) -> Iterator[int]:
        """Rows that may be headers without marks: under groups, over declarations, or naming every column."""
        for y, below in list(pairwise(self.lines))[:_MOST_TITLES]:
            if self._groups(y) and not self._names_all(y):
                yield below
            elif self._declared_row(below) or self._names_all(y):
                yield y

    def _names_all(self, y: int) -> bool:
        """Whether each column with content from here on has a name of its own in this row."""
        row = self._row(y)
        if row[0].value is None:
            first = [self._row(line)[0] for line in self.lines if line > y]
            row = row[1:] if is_blank(first) or is_numbering(first) else []
        names = {cell.text for cell in row}
        headers = all(is_name(cell) or cell.text.lower() in RULE_NUMBERS for cell in row)
        return headers and "" not in names and 1 < len(names) == len(row)

    def _say_why(self, y: int) -> NoReturn:
        row = self._row(y)
        unnamed = [cell for cell in row if cell.value is None]
        if tests := [cell for cell in row[1:] if is_test(cell)]:
            raise DecisionError(
                f"{self.source}: {tests[0].where} ({tests[0].text}) is no header; where the rules stand in "
                f"columns, {_MARK_THEM}"
            )
        if len(unnamed) < len(row) - 1 and unnamed:
            raise NoTableError(f"{self.source}: column {re.sub(r'[0-9]', '', unnamed[0].where)} has no header")
        raise NoTableError(f"{self.source}: no row names every column, each by a name of its own")

    def _declared_row(self, y: int) -> dict[int, Declared]:
        """The declarations by column where this row holds nothing else; {} where it holds rules."""
        found = {x: declared(cell.text) for x, cell in enumerate(self._row(y)) if cell.value is not None}
        if len(found) < 2 or any(not isinstance(self._row(y)[x].value, str) for x in found):
            return {}
        known = {x: each for x, each in found.items() if each is not None}
        if len(known) < len(found):
            return {}
        if {(each.role, each.kind) for each in known.values()} == {("", "string")}:
            raise DecisionError(
                f"{self.source}: row {_number(y)}: types, or a rule? Write condition text, outcome text for "
                "the types"
            )
        return known

    def _check_merges(self) -> None:
        for top, left, bottom, right in self.page.merged:
            cells = [self.page.grid[y][x] for y in (top, bottom) for x in (left, right)]
            if bottom > self.head and (right > left or top <= self.head) and cells[0].value is not None:
                raise DecisionError(
                    f"{self.source}: merged cells {cells[0].where}:{cells[-1].where}: a value may be merged "
                    "over several rules of one column, not over several columns; unmerge them"
                )

    # The columns.

    def table(self) -> RawTable:
        """The table with the role of each column."""
        row = self._row(self.head)
        groups = self._groups(self.head - 1) if self.head - 1 in self.lines else {}
        skip, policy = self._numbering(row[0])
        places = [x for x in range(skip, len(row)) if not self._is_empty(x)]
        for x in places:
            if row[x].value is None:
                raise DecisionError(f"{self.source}: column {re.sub(r'[0-9]', '', row[x].where)} has no header")
        stated = {x: self._stated(x, row[x], groups.get(x, ""), skip) for x in places}
        chosen = bool(policy) or any(each.role == "outcome" for each in stated.values())
        words = not chosen and all(is_name(cell) for y in (self.head, *self.body) for cell in self._row(y))
        if words and (len(row) > len(self.body) + 1 or self._groups(self.head)):
            raise DecisionError(
                f"{self.source}: which row or column holds the headers? {_MARK_THEM.capitalize()}"
            )
        roles = self._roles(places, row, stated)
        names = self._names(places, row)
        self._check_ends([names[x] for x in places if roles[x] == "condition" and not stated[x].role])
        columns = tuple(
            RawColumn(names[x], Declared(roles[x]).over(stated[x]), tuple(self._cells(x)))
            for x in places
            if roles[x] != "annotation"
        )
        if len({column.is_outcome for column in columns}) < 2:
            raise NoTableError(f"{self.source}: a table needs a condition and an outcome (headers marked '->')")
        heads = frozenset(unmarked(row[x]) for x in places)
        return RawTable(self._title(policy), policy or "F", columns, self.page, chosen, heads)

    def _title(self, policy: str) -> str:
        """The sheet's title; over a hit policy the table's own, where it stands alone in the row above."""
        above = self._row(self.head - 1) if policy and self.head - 1 in self.lines else []
        alone = len({cell.value for cell in above} - {None}) == 1
        return above[0].text if alone and above[0].value is not None else self.page.title

    def _cells(self, x: int) -> Iterator[Cell]:
        return (self._row(y)[x] for y in self.body)

    def _is_empty(self, x: int) -> bool:
        return self._row(self.head)[x].value is None and is_blank(list(self._cells(x)))

    def _numbering(self, head: Cell) -> tuple[int, str]:
        """How many columns hold the rules' numbers (0 or 1), and the hit policy over them."""
        cells = list(self._cells(0))
        filled = [cell for cell in cells if cell.value is not None]
        numbered = len(filled) in (0, len(cells)) and (not filled or is_numbering(cells))
        counts = [c.text for c in filled] == [str(n) for n, _ in enumerate(filled, 1)]
        if counts and len(filled) > 1 and is_wrong_policy(head.text):
            raise DecisionError(
                f"{self.source}: {head.text} in {head.where} counts the rules, and is no hit policy: write "
                f"{', '.join(POLICIES)}, or # where it has none; or give a condition a longer name"
            )
        if head.text not in POLICIES or not (numbered or is_numbering(filled)):
            return (int(head.value is None and numbered)), ""
        digits = all(cell.text.isdigit() for cell in filled)
        if numbered and (not digits or counts):
            return 1, head.text
        raise DecisionError(
            f"{self.source}: is {head.text} in {head.where} a hit policy or a condition? Number each rule 1, "
            "2, 3 for the hit policy, or give the condition a longer name"
        )

    def _groups(self, y: int) -> dict[int, Role]:
        """The role of each column by a row of groups; {} where it is none."""
        row = self._row(y)
        words = {cell.text.lower().rstrip(":") for cell in row} - {""}
        if words - set(GROUPS) or not {"condition", "outcome"} <= {GROUPS[word] for word in words}:
            return {}
        is_merged = any(top <= y <= bottom and right > left for top, left, bottom, right in self.page.merged)
        found: dict[int, Role] = {}
        role: Role = ""
        for x, cell in enumerate(row):
            role = GROUPS.get(cell.text.lower().rstrip(":"), "" if is_merged else role)
            found[x] = role
        return found

    def _stated(self, x: int, head: Cell, group: Role, skip: int) -> Declared:
        """What is said of a column: by an option, the declared row, a mark, its group, double lines."""
        name = unmarked(head)
        found = declared(self.columns.get(name, "")) or Declared()
        found = found.over(self.types.get(x, Declared()))
        if is_marked(head):
            return found.over(Declared("outcome"))
        if group and not self._is_note(x, head):
            found = found.over(Declared(group))
        row = self._row(self.head)  # double lines: outcomes are right of the first, notes right of the second
        lines = sum("right" in row[i].edges or "left" in row[i + 1].edges for i in range(skip, x))
        return found.over(Declared("annotation" if lines > 1 else "outcome")) if lines else found

    def _is_note(self, x: int, head: Cell) -> bool:
        name = head.text.lower().rstrip(":")
        return name in REMARKS or (name in RULE_NUMBERS and is_numbering(list(self._cells(x))))

    def _roles(
        self, places: Sequence[int], row: Sequence[Cell], stated: dict[int, Declared]
    ) -> dict[int, Role]:
        roles: dict[int, Role] = {
            x: each.role or ("annotation" if self._is_note(x, row[x]) else "") for x, each in stated.items()
        }
        outcomes = [x for x in places if roles[x] == "outcome"]
        open_ = [x for x in places if not roles[x]]
        for x in open_:
            name = row[x].text.lower().rstrip(":")
            if name in MAYBE_NOTES and outcomes and x > outcomes[-1]:
                roles[x] = "annotation"
            elif name in RULE_NUMBERS or name in MAYBE_NOTES:
                raise DecisionError(
                    f"{self.source}: is the column {row[x].text!r} a note or part of the rules? Declare it: "
                    f"--column '{row[x].text}=annotation' (or =condition, =outcome)"
                )
        open_ = [x for x in open_ if not roles[x]]
        if not outcomes and open_:
            roles[open_.pop()] = "outcome"
        for x in open_:
            roles[x] = roles[x] or "condition"
        return roles

    def _check_ends(self, names: Sequence[str]) -> None:
        """Raise DecisionError where two conditions look like the ends of one: `age from`, `age to`."""
        ends = {name: range_end(name) for name in names}
        for one, (subject, end) in ends.items():
            other = next((n for n, found in ends.items() if end == "low" and found == (subject, "high")), "")
            if other:
                raise DecisionError(
                    f"{self.source}: are {one!r} and {other!r} the ends of one condition? Write ranges, "
                    f"[18..65], in one column, or declare each: --column '{one}=condition' --column "
                    f"'{other}=condition'"
                )

    def _names(self, places: Sequence[int], row: Sequence[Cell]) -> dict[int, str]:
        """Headers without marks; under groups where two are the same."""
        names = {x: unmarked(row[x]) for x in places}
        above = self._row(self.head - 1) if self.head - 1 in self.lines else []
        if len(set(names.values())) < len(names) and len({c.text for c in above} - {""}) > 1:
            return {x: f"{above[x].text}.{name}" if above[x].text else name for x, name in names.items()}
        return names


_MARK_THEM = "mark each outcome with -> in front of its name"


def _number(line: int) -> int:
    return line + 1
