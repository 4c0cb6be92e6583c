"""One type for each column, one decimal mark for a file, one order of day and month for a column; or a refusal.

A mark is taken from what has one reading: `1.234,5`, `>= 0,5`, `12,5 %` show a comma, `4.5` and `1,234.5` a
point. Then `1.500` is fifteen hundred or one and a half; where nothing shows the mark, it must be declared.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

from vertigym.decisions.model import DecisionError
from vertigym.decisions.spreadsheets.declared import Declared
from vertigym.decisions.spreadsheets.sheet_notation import plain_number
from vertigym.decisions.spreadsheets.sheet_tests import CellValue, Condition, Kind, is_mark

_TRUTH = {
    "true": True, "yes": True, "y": True, "ja": True, "oui": True, "x": True, "✓": True, "✔": True, "1": True,
    "false": False, "no": False, "n": False, "nein": False, "non": False, "0": False,
}  # fmt: skip
_CODE = 5  # digits from which a number that is only compared with = may be a code
_MARK_WORDS = {",": "1,5", ".": "1.5"}


@dataclass(slots=True)
class ReadColumn:
    """A column whose cells are read: their values, and what was decided of it."""

    name: str
    source: str
    declared: Declared
    atoms: list[CellValue]
    conditions: list[Condition] = field(default_factory=list)
    computed: list[CellValue] = field(default_factory=list)  # the numbers in formulas
    kind: Kind | str = ""
    order: str = ""

    def fail(self, atom: CellValue, what: str) -> DecisionError:
        """An error that names a cell."""
        return DecisionError(f"{self.source}: cell {atom.where}: {atom.text!r}: {what}")

    def hint(self, words: str) -> str:
        """What to write on the command line to declare it."""
        return f"--column '{self.name}={words}'"

    def decide(self) -> None:
        """Set `kind` and `order`.

        Raises:
            DecisionError: two types, or two readings of one.
        """
        self.kind = self.declared.kind or self._kind()
        if self.kind == "number":
            self._check_units()
        elif self.kind == "date":
            self.order = self.declared.order or self._order()
        for condition in self.conditions:
            self._check_signs(condition)

    def _kind(self) -> Kind | str:
        certain: dict[str, CellValue] = {}
        digits = [atom for atom in self.atoms if atom.is_digits]
        for atom in self.atoms:
            if len(atom.kinds) == 1:
                certain.setdefault(next(iter(atom.kinds)), atom)
        if len(certain) > 1:
            raise self._mixed(certain)
        if not certain:
            return self._kind_of_digits(digits) if digits else ""
        (kind, first) = next(iter(certain.items()))
        if kind == "string" and all(map(is_mark, self.atoms)):
            raise self.fail(first, f"a mark for yes, or a text? Write true, or declare {self.hint('boolean')}")
        is_code = any(atom.exact is None and atom.text.isdigit() and not atom.is_digits for atom in self.atoms)
        for atom in digits if kind != "number" else ():
            if not (kind == "string" and (is_code or atom.stored)):
                raise self._mixed({kind: first, "number": atom})
        return kind

    def _mixed(self, found: dict[str, CellValue]) -> DecisionError:
        cells = ", ".join(f"a {kind} in {atom.where} ({atom.text})" for kind, atom in found.items())
        return DecisionError(
            f"{self.source}: column {self.name!r} mixes types: {cells}; a range is written [18..65], a text "
            f"in quotes; or declare one type, {self.hint('text')}"
        )

    def _kind_of_digits(self, digits: Sequence[CellValue]) -> Kind:
        stored = {atom.stored for atom in digits}
        if "" in stored:
            self._check_codes(digits)
            return "number"
        if "format" in stored:
            return "string"
        raise self.fail(
            digits[0], f"digits kept as a text: declare {self.hint('number')} or {self.hint('text')}"
        )

    def _check_codes(self, digits: Sequence[CellValue]) -> None:
        """Raise DecisionError where digits of one length are only compared as they are: `10115` and `41603`."""
        written = [atom.text for atom in digits if atom.exact is None]
        are_round = not self.conditions and all(text.endswith("00") for text in written)
        if (
            len(written) == len(self.atoms)
            and len(set(map(len, written))) == 1
            and len(written[0]) >= _CODE
            and not are_round
        ):
            raise self.fail(
                digits[0], f"a number or a code? Declare {self.hint('text')} or {self.hint('number')}"
            )

    def _check_units(self) -> None:
        units: dict[str, CellValue] = {}
        for atom in self.atoms:
            if atom.number and (atom.number.unit or atom.number.value(".") != 0):
                units.setdefault(atom.number.unit, atom)
        money = [unit for unit in units if unit not in ("", "%")]
        if len(money) > 1 or ("%" in units and len(units) > 1):
            one, other = [units[unit] for unit in (money if len(money) > 1 else sorted(units)[:2])][:2]
            raise self.fail(
                other,
                f"another unit than {one.text!r} in {one.where}; write all values of a column in one unit",
            )

    def _order(self) -> str:
        """Day or month first, where the column's dates show it."""
        slashed = [
            atom for atom in self.atoms if (atom.days and len(set(atom.days.values())) != 1) or _one_order(atom)
        ]
        typed = [
            atom
            for atom in self.atoms
            if isinstance(atom.exact, date) and not atom.text.startswith(("date", "@"))
        ]
        orders = {order for order in ("dmy", "mdy") if all(a.days and order in a.days for a in slashed)}
        if slashed and (len(orders) != 1 or typed):
            raise self.fail(
                slashed[0],
                f"day or month first? Declare {self.hint('date d/m/y')} or {self.hint('date m/d/y')}",
            )
        return next(iter(orders)) if slashed else "dmy"

    def _check_signs(self, condition: Condition) -> None:
        for test in condition.tests:
            if self.kind not in ("number", "date") and test.sign not in ("=", "!="):
                raise self.fail(
                    test.low, f"< <= > >= and ranges compare numbers and dates, this column holds a {self.kind}"
                )
            if len(test.atoms) > 1 and "null" in [atom.exact for atom in test.atoms]:
                raise self.fail(test.low, "null is no end of a range")

    def value(self, atom: CellValue, mark: str) -> Any:
        """The atom as this column's type: Decimal, str, bool, date; None for null.

        Raises:
            DecisionError: it has no such reading.
        """
        if atom.exact == "null" and not atom.kinds:
            return None
        if self.kind == "number":
            return self._number(atom, mark)
        if self.kind == "date":
            found = atom.exact if isinstance(atom.exact, date) else (atom.days or {}).get(self.order)
            if found is None:
                raise self.fail(atom, "not a date; write 2024-01-31")
            return found
        if self.kind == "boolean":
            truth = atom.exact if isinstance(atom.exact, bool) else _TRUTH.get(atom.text.lower())
            if truth is None:
                raise self.fail(atom, "not a truth value; write true or false")
            return truth
        return self._text(atom)

    def _number(self, atom: CellValue, mark: str) -> Decimal:
        found = atom.number.value(mark) if atom.number else None
        if found is not None:
            return found
        if atom.number:
            raise self.fail(
                atom,
                f"the file's decimal mark is {mark!r}: write {_MARK_WORDS[mark]}, or a comma and a space "
                "between values",
            )
        raise self.fail(atom, "not a number")

    def _text(self, atom: CellValue) -> str:
        if isinstance(atom.exact, str):
            return atom.exact
        if isinstance(atom.exact, Decimal) and atom.exact % 1:
            raise self.fail(atom, "a number with a fraction as a text: put the text in quotes")
        if self.conditions and "," in atom.text and atom.exact is None:
            raise self.fail(
                atom, "one value or several? Write a comma and a space between values, or the text in quotes"
            )
        return atom.text

    def check_lists(self) -> None:
        """Raise DecisionError where a text seems to join values that stand alone elsewhere (`EU/US`)."""
        known = {atom.text for atom in self.atoms}
        for atom in self.atoms if self.conditions and self.kind == "string" else ():
            parts = {part.strip() for sign in "/&+" for part in atom.text.split(sign) if sign in atom.text}
            if atom.exact is None and parts & known:
                raise self.fail(
                    atom, "one value or several? Write a comma between values, or the text in quotes"
                )


def _one_order(atom: CellValue) -> bool:
    return bool(atom.days) and len(atom.days or {}) == 1


def decimal_mark(columns: Iterable[ReadColumn], delimiter: str) -> str:
    """The file's decimal mark: declared, or the one that explains all; "." where it makes no difference.

    Raises:
        DecisionError: cells show both marks, or a cell has two readings and none shows the mark.
    """
    numbers = [column for column in columns if column.kind == "number"]
    stated = {column.declared.mark: column for column in numbers if column.declared.mark}
    if len(stated) > 1:
        raise DecisionError(f"{numbers[0].source}: both decimal marks are declared; a file has one")
    if stated:
        return next(iter(stated))
    shown: dict[str, tuple[ReadColumn, CellValue]] = {}
    for column, atom, mark, certain in _evidence(numbers, delimiter):
        if certain:
            shown.setdefault(mark, (column, atom))
    if len(shown) > 1:
        (column, atom), (_, other) = shown.values()
        raise column.fail(
            atom,
            f"shows one decimal mark, {other.text!r} in {other.where} another: write all numbers with one mark",
        )
    if shown:
        return next(iter(shown))
    for column in numbers:
        for atom in (*column.atoms, *column.computed):
            if atom.number and atom.number.point != atom.number.comma:
                raise column.fail(
                    atom,
                    f"which mark is the decimal one? Declare {column.hint('number 1,5')} or "
                    f"{column.hint('number 1.5')}",
                )
    return "."


def _evidence(
    numbers: Iterable[ReadColumn], delimiter: str
) -> Iterator[tuple[ReadColumn, CellValue, str, bool]]:
    """Values that one mark alone explains, and whether that is certain: `1,5` may also be two values."""
    for column in numbers:
        for atom in (*column.atoms, *column.computed):
            if not atom.number or (atom.number.point is None) == (atom.number.comma is None):
                continue
            mark = "," if atom.number.point is None else "."
            yield column, atom, mark, mark == "." or not (atom.number.plain and atom.bare) or delimiter == ";"


def literal(value: Any) -> str:
    """A number, truth value or null as the engine spells it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return "null" if value is None else plain_number(value)
