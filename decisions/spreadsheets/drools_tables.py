"""Decision tables of Drools (`RuleSet`, `RuleTable`) as pages with marked headers, where they are plain tables.

    RuleTable Pricing
    NAME      CONDITION                CONDITION   ACTION
              Driver                               policy : Policy
              age >= $1, age <= $2     risk        setBasePrice($param)
              Age bracket              Risk        Base price            (labels, which say nothing)
    young     18, 24                   LOW         450

Drools fires every rule that matches, in no stated order, so the table is read with hit policy U; where all
rules are of one ACTIVATION-GROUP the first decides. Code beyond a comparison and a setter is refused by name.

Source: the Drools documentation, "Spreadsheet decision tables".
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vertigym.decisions.model import DecisionError
from vertigym.decisions.spreadsheets.sheet_pages import Cell, Grid, Page, is_blank

_HEADS = {
    "CONDITION": "C",
    "ACTION": "A",
    "NAME": "N",
    "DESCRIPTION": "N",
    "PRIORITY": "P",
    "ACTIVATION-GROUP": "G",
}
_SHORT = {"C": "C", "A": "A", "N": "N", "I": "N", "P": "P", "X": "G", "G": "G"}
_PATH = r"(?:this\.)?((?:[A-Za-z_$]\w*\.)*)(get[A-Z]\w*\(\)|[A-Za-z_]\w*)"
_ONE = re.compile(
    rf"{_PATH}\s*(?:(==|!=|<=|>=|<|>)\s*(\"?)\$(?:param|1)\4|(\.equals)\(\s*(\"?)\$(?:param|1)\6\s*\))?"
)
_TWO = re.compile(rf"{_PATH}\s*(>=|>)\s*\$1\s*(?:,|&&)\s*{_PATH}\s*(<=|<)\s*\$2")
_SETTER = re.compile(r'(?:\$?\w+\.)?(?:set([A-Z]\w*)\s*\(\s*|(\w+)\s*=\s*)("?)\$(?:param|1)\3\s*\)?\s*;?')


@dataclass(frozen=True, slots=True)
class _Column:
    """A column's field, the signs of its tests (none for an outcome), and whether its values are texts."""

    place: int
    name: str
    signs: tuple[str, ...]
    is_text: bool = False


def drools_pages(page: Page, source: str) -> list[Page] | None:
    """The rule tables on a page, each as a page with marked headers; None where there are none.

    Raises:
        DecisionError: one is more than a table.
    """
    heads = [(y, x) for y, row in enumerate(page.grid) for x, cell in enumerate(row) if _opens_table(cell)]
    if not heads:
        return None
    ends = [y for y, _ in heads[1:]] + [len(page.grid)]
    return [_table(page, y, x, end, source) for (y, x), end in zip(heads, ends, strict=True)]


def _opens_table(cell: Cell) -> bool:
    return isinstance(cell.value, str) and cell.value.lower().startswith("ruletable")


def _table(page: Page, top: int, left: int, end: int, source: str) -> Page:
    if end - top < 6:
        raise DecisionError(
            f"{source}: {page.grid[top][left].text}: five rows of headers and a rule are needed"
        )
    heads, _, code, _ = (page.grid[top + place] for place in (1, 2, 3, 4))
    columns: list[_Column] = []
    policy, ordered = "U", False
    below = page.grid[top + 5 : end]
    rules = below[: next((y for y, row in enumerate(below) if is_blank(row[left:])), len(below))]
    for x in range(left, len(heads)):
        kind = heads[x].text.upper()
        if not kind:
            continue
        kind = _HEADS.get(kind) or _SHORT.get(kind, "")
        if not kind:
            raise DecisionError(
                f"{source}: cell {heads[x].where}: {heads[x].text} of a Drools table is not supported"
            )
        if kind == "G":
            policy = _group(rules, x, source)
        elif kind in ("C", "A"):
            columns.append(_column(x, kind, code[x], source))
        ordered |= kind == "P"
    if policy == "F" and ordered:
        raise DecisionError(
            f"{source}: PRIORITY in an activation group is not supported: put the rules in their order"
        )
    names = [column.name for column in columns]
    twice = next((name for name in names if names.count(name) > 1), "")
    if twice:
        raise DecisionError(
            f"{source}: {page.grid[top][left].text}: two columns are about {twice!r}: not supported"
        )
    blank = Cell(None, "")
    head = [replace(blank, value=policy), *(replace(code[c.place], value=_header(c)) for c in columns)]
    body: Grid = [
        [Cell(str(number), row[left].where), *(_cell(row[c.place], c, source) for c in columns)]
        for number, row in enumerate(rules, 1)
    ]
    title = page.grid[top][left].text[len("RuleTable") :].strip() or page.title
    return replace(page, title=title, grid=[head, *body], merged=())


def _group(rules: Sequence[Sequence[Cell]], x: int, source: str) -> str:
    groups = {row[x].text for row in rules}
    if len(groups) > 1:
        raise DecisionError(
            f"{source}: rules of several activation groups ({', '.join(sorted(groups))}): not supported"
        )
    return "U" if groups == {""} else "F"


def _column(x: int, kind: str, code: Cell, source: str) -> _Column:
    text = code.text
    if kind == "A":
        if found := _SETTER.fullmatch(text):
            return _Column(x, _property(found[1]) if found[1] else found[2], (), bool(found[3]))
        raise DecisionError(f"{source}: cell {code.where}: the action {text!r} is code, not setField($param)")
    if (two := _TWO.fullmatch(text)) and two[2] == two[5]:
        return _Column(x, _property(two[2]), (two[3], two[6]))
    if one := _ONE.fullmatch(text):
        return _Column(x, _property(one[2]), (one[3] or "==",), bool(one[4] or one[6]))
    raise DecisionError(f"{source}: cell {code.where}: the condition {text!r} is code, not field == $param")


def _property(name: str) -> str:
    """`getBasePrice()` and `BasePrice` are the field basePrice."""
    plain = name[3:-2] if name.endswith("()") else name
    return plain if plain == name and plain[0].islower() else plain[0].lower() + plain[1:]


def _header(column: _Column) -> str:
    return column.name if column.signs else f"-> {column.name}"


def _cell(cell: Cell, column: _Column, source: str) -> Cell:
    """A rule's cell as a condition or an outcome of ours."""
    if cell.value is None:
        return cell
    value = cell.text
    if len(column.signs) == 2:
        ends = [end.strip() for end in value.split(",")]
        if len(ends) != 2:
            raise DecisionError(f"{source}: cell {cell.where}: {value!r}: two values with a comma are needed")
        low, high = column.signs
        return replace(
            cell, value=f"{'[' if '=' in low else '('}{ends[0]}..{ends[1]}{']' if '=' in high else ')'}"
        )
    if column.is_text:
        value = f'"{value}"'
    if column.signs in ((), ("==",)):
        return replace(cell, value=value) if column.is_text else cell
    return replace(cell, value=f"{column.signs[0]} {value}")
