"""One cell as tests, or as an outcome: what it says, before it is known what type its column has.

    books, music     [31..60]  31-60  31 – 60     <= 30   ≤ 30     65+     not(toys)   ≠ toys     "n/a"
    (empty)  -  –  *  any      matches anything

What has two readings whatever stands beside it (`n/a`, `5 or 10`, `under 18`) is refused, with what to write.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any, Literal

from vertigym.core.bounds import MOST_LEVELS
from vertigym.decisions.spreadsheets.sheet_notation import Number, days, number
from vertigym.decisions.spreadsheets.sheet_pages import Cell

Kind = Literal["number", "string", "boolean", "date"]

_ANY = {"", "-", "–", "—", "*", "any"}  # noqa: RUF001 (dashes as people type them)
_NOTHING = {"", "-", "–", "—"}  # noqa: RUF001
_MISSING = re.compile(r"n\s?[./]\s?a\.?|na|#n/a|k\.\s?a\.?|\?|tbd", re.IGNORECASE)
_CATCH_ALL = {
    "all", "alle", "tous", "toutes", "every", "everything", "beliebig", "egal", "otherwise", "else", "sonst",
    "sinon", "default", "other", "others", "rest", "andere", "autre", "autres", "empty", "blank", "(blank)",
    "missing", "leer", "vide",
}  # fmt: skip
_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "\u2010": "-", "\u2011": "-"})
_DASHES = "-\u2013\u2014\u2212"
_BETWEEN = re.compile(rf"\s*(?:\.\.\.?|…|[{_DASHES}])\s*|\s+(?:to|bis|à)\s+")
_SIGNS = {"≤": "<=", "≥": ">=", "≠": "!=", "<>": "!=", "==": "="}
_SIGN = r"<=|>=|<>|!=|==|≤|≥|≠|<|>|="
_COMPARED = re.compile(rf"({_SIGN})\s*([^<>=≤≥≠].*)", re.DOTALL)
_TWO_SIDED = re.compile(
    r"(<=|>=|≤|≥|<|>)\s*([^<>=≤≥]+?)\s*(?:\band\b|\bund\b|\bet\b|&&?)\s*(<=|>=|≤|≥|<|>)\s*([^<>=≤≥]+)"
)
_INTERVAL = re.compile(r"([\[(\]])(.+?)\s*\.\.\.?\s*(.+?)([\])\[])", re.DOTALL)
_CALL = re.compile(r'date\s*\(\s*("[^"]*")\s*\)|@("[^"]*")')
_BEFORE = (  # words that make a test of the value after them
    r"under|below|over|above|at least|at most|no more than|more than|less than|up to|from|until|before|after|"
    r"since|max\.?|min\.?|maximum|minimum|not|no|except|all but|unter|über|ab|bis|mindestens|höchstens|"
    r"maximal|minimal|mehr als|weniger als|vor|nach|seit|nicht|außer|ohne|moins de|plus de|au moins|au plus|"
    r"jusqu'à|à partir de|avant|après|sauf"
)
_AFTER = r"more|over|older|above|less|under|younger|mehr|älter|weniger|plus"
_WORDS = re.compile(
    rf"(?:{_BEFORE})\s+(?P<rest>.*)|.*\d.*\b(?:and|or|und|oder|et|ou)\s+(?:{_AFTER})", re.IGNORECASE | re.DOTALL
)
_OR = re.compile(r"\s(?:or|oder|ou)\s|\|\|?|\n", re.IGNORECASE)
_MOST_WORDS = 100  # characters of a range, or of a test in words
_MARKS = {"x", "✓", "✔", "☑", "✗", "✘", "☒"}


@dataclass(frozen=True, slots=True)
class CellValue:
    """One value as written, with the types it may have. `exact` is that of a typed cell, a quoted text, null.

    `stored`: how a typed file keeps digits that are no number: "text", or "format" where it also shows them so.
    `bare`: no operator, range or list around it, so a comma in it may stand between two values.
    """

    text: str
    where: str
    kinds: frozenset[Kind]
    exact: Any = None
    number: Number | None = None
    days: Mapping[str, date] | None = None
    stored: Literal["", "text", "format"] = ""
    bare: bool = True

    @property
    def is_digits(self) -> bool:
        """Whether it may be a number and a code."""
        return self.kinds == {"number", "string"}


@dataclass(frozen=True, slots=True)
class Test:
    """`= != < <= > >=` one value, or between two: `[ ]` closed, `( )` open ends."""

    sign: str
    low: CellValue
    high: CellValue | None = None

    @property
    def atoms(self) -> tuple[CellValue, ...]:
        """Its values."""
        return (self.low,) if self.high is None else (self.low, self.high)


@dataclass(frozen=True, slots=True)
class Condition:
    """Tests of which one must hold, or none; no tests: anything goes."""

    tests: tuple[Test, ...] = ()
    negated: bool = False


def condition(cell: Cell, *, is_typed: bool) -> Condition:
    """A cell as a condition.

    Raises:
        ValueError: what is wrong with it, and what to write.
    """
    if not isinstance(cell.value, str):
        return Condition(() if cell.value is None else (Test("=", typed(cell)),))
    text = _unfolded(cell.value)
    if text.lower() in _ANY:
        return Condition()
    _check_missing(text, "leave it empty for anything, null for no value, or")
    if text.lower() in _CATCH_ALL:
        raise ValueError(f'anything, no value, or a text? Leave it empty, write null, or "{text}" in quotes')
    if text.count("[") + text.count("(") > MOST_LEVELS:
        raise ValueError(f"brackets more than {MOST_LEVELS} deep")
    negated = re.fullmatch(r"not\s*\((.*)\)", text, re.DOTALL)
    parts = list(_split(negated[1] if negated else text))
    tests = [test for part in parts for test in _tests(part, cell, is_typed=is_typed)]
    unequal = [test for test in tests if test.sign == "!="]
    if unequal and len(tests) > 1:
        raise ValueError("several values of which none may be: write not(a, b)")
    return Condition(tuple(tests), bool(negated))


def outcome(cell: Cell, *, is_typed: bool) -> CellValue | None:
    """A cell as an outcome; None where it gives none.

    Raises:
        ValueError: as above.
    """
    if not isinstance(cell.value, str):
        return None if cell.value is None else typed(cell)
    text = _unfolded(cell.value)
    if text in _NOTHING or text == "null":
        return None
    _check_missing(text, "leave it empty for no value, or")
    if _COMPARED.fullmatch(text):
        raise ValueError("an outcome is a value, not a test")
    return atom(text, cell, is_typed=is_typed)


def typed(cell: Cell) -> CellValue:
    """The value of a cell whose type the file knows."""
    value, shown = cell.value, str(cell.value)
    if isinstance(value, bool):
        return CellValue(shown.lower(), cell.where, frozenset({"boolean"}), value)
    if isinstance(value, date):
        return CellValue(value.isoformat(), cell.where, frozenset({"date"}), value)
    if cell.padded:
        raise ValueError(
            "a number shown with leading zeros: is it a number or a text? Format it as one of them"
        )
    exact = Decimal(repr(value))
    if isinstance(value, int) and not cell.percent:
        if abs(value) > 10**15:
            raise ValueError("more than 15 digits: a number does not keep them; write a text in quotes")
        return CellValue(shown, cell.where, frozenset({"number", "string"}), exact, Number(exact, exact))
    unit = "%" if cell.percent else ""
    scaled = exact * 100 if cell.percent else exact
    return CellValue(shown, cell.where, frozenset({"number"}), exact, Number(scaled, scaled, unit))


def atom(text: str, cell: Cell, *, is_typed: bool, bare: bool = True) -> CellValue:
    """A text as one value.

    Raises:
        ValueError: no value, or one that is written otherwise.
    """
    where = cell.where
    if found := _CALL.fullmatch(text):
        literal = (found[1] or found[2])[1:-1]
        if re.fullmatch(r"\d{4}-\d\d-\d\d", literal) and (known := days(literal)):
            return CellValue(text, where, frozenset({"date"}), known["dmy"], bare=bare)
        raise ValueError('a date is written date("2024-01-31")')
    if quoted := re.fullmatch(r'"((?:[^"\\]|\\.)*)"|\'([^\']*)\'', text):
        plain = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted[1] is not None else quoted[2]
        return CellValue(text, where, frozenset({"string"}), plain, bare=bare)
    if len(text) > _MOST_WORDS:
        if re.fullmatch(r"[\d.,]+", text):
            raise ValueError("more digits than a number keeps; write a text in quotes")
        return CellValue(text, where, frozenset({"string"}), bare=bare)
    if '"' in text or text[0] == "'":
        raise ValueError('quotes go around a whole text: "a text"')
    if text.lower() in ("true", "false"):
        return CellValue(text, where, frozenset({"boolean"}), text.lower() == "true", bare=bare)
    if found_days := days(text):
        return CellValue(text, where, frozenset({"date"}), None, None, found_days, bare=bare)
    if found_number := number(text):
        digits = bare and re.fullmatch(r"[1-9]\d*|0", text) is not None
        kinds: frozenset[Kind] = frozenset({"number", "string"} if digits else {"number"})
        stored: Any = ("format" if cell.as_text else "text") if is_typed and digits else ""
        return CellValue(text, where, kinds, None, found_number, stored=stored, bare=bare)
    if re.fullmatch(r"\d+([.,]\d+)?e[+-]?\d+", text, re.IGNORECASE):
        raise ValueError("a number in powers of ten, or a code? Write all digits, or the code in quotes")
    return CellValue(text, where, frozenset({"string"}), bare=bare)


def _unfolded(text: str) -> str:
    return text.strip().translate(_QUOTES)


def _check_missing(text: str, write: str) -> None:
    if _MISSING.fullmatch(text):
        raise ValueError(f'not applicable, unknown, or a text? {write} "{text}" in quotes for the text')


def _split(text: str) -> Iterator[str]:
    """The tests in a cell: split at `;` and at commas, but those between digits, in brackets and quotes."""
    depth, quoted, start = 0, "", 0
    for place, sign in enumerate(text):
        if sign == '"':
            quoted = "" if quoted else sign
        if quoted:
            continue
        depth += (sign in "([") - (sign in ")]")
        if sign not in ",;" or depth > 0:
            continue
        if sign == "," and text[place - 1 : place].isdigit() and text[place + 1 : place + 2].isdigit():
            continue
        yield text[start:place].strip()
        start = place + 1
    yield text[start:].strip()


def _tests(part: str, cell: Cell, *, is_typed: bool) -> Iterator[Test]:
    """The tests in one part: one, but of `1,2,3` several."""
    if part in _NOTHING:
        raise ValueError("a value is missing beside a comma")
    if part == "null":
        yield Test("=", CellValue(part, cell.where, frozenset(), "null"))
    elif re.fullmatch(r"\d+(?:,\d+)+", part) and not number(part):
        yield from (Test("=", atom(digits, cell, is_typed=is_typed)) for digits in part.split(","))
    else:
        yield _test(part, cell, is_typed=is_typed)


def _test(part: str, cell: Cell, *, is_typed: bool) -> Test:
    def bound(text: str) -> CellValue:
        return atom(text.strip(), cell, is_typed=is_typed, bare=False)

    if len(part) > _MOST_WORDS:
        return Test("=", _word(part, cell, is_typed=is_typed))
    if found := _TWO_SIDED.fullmatch(part):
        return _between(found, bound)
    if found := _COMPARED.fullmatch(part):
        sign = _SIGNS.get(found[1], found[1])
        return Test(sign, atom(found[2], cell, is_typed=is_typed, bare=sign in ("=", "!=")))
    if found := _INTERVAL.fullmatch(part):
        low, high = _shared(found[2].strip(), found[3])
        return Test(
            f"{'[' if found[1] == '[' else '('}{']' if found[4] == ']' else ')'}", bound(low), bound(high)
        )
    if ends := _range(part):
        low, high = _shared(*ends)
        return Test("[]", bound(low), bound(high))
    if (over := part.removesuffix("+")) != part and number(over.strip()):
        return Test(">=", bound(over))
    return Test("=", _word(part, cell, is_typed=is_typed))


def _word(part: str, cell: Cell, *, is_typed: bool) -> CellValue:
    """A value that is compared as it is; what looks like a test in words is refused."""
    found = atom(part, cell, is_typed=is_typed)
    if found.kinds != {"string"} or found.exact is not None:
        return found
    if "*" in part:
        raise ValueError("patterns are not supported; a text is written in quotes")
    if call := re.match(r"(\w+)\(", part):
        raise ValueError(f"unknown function {call[1]!r}; a text is written in quotes")
    if re.search(r"[<>=≤≥≠]", part):
        raise ValueError("not a test; write < 5, [5..10], a list with commas, or a text in quotes")
    if part[0] in "[](" or part[-1] in "[]":
        raise ValueError("brackets stand around a range, [18..65]; a text with them is written in quotes")
    if words := _WORDS.fullmatch(part[: _MOST_WORDS + 1]):
        raise ValueError(
            f"a test in words; write < <= > >= and a value, not({words['rest'] or '…'}), or quotes"
        )
    if _OR.search(part):
        raise ValueError("several values, or one text? Write a comma between values, or the text in quotes")
    if re.fullmatch(rf"\d+\s*[{_DASHES}]\s*\d+", part):
        raise ValueError("a range, or a code? Write [1..5] for the range, or the code in quotes")
    return found


def _between(found: re.Match[str], bound: Any) -> Test:
    one, first, two, second = found.groups()
    one, two = _SIGNS.get(one, one), _SIGNS.get(two, two)
    if one[0] == two[0]:
        raise ValueError("two limits on one side; write [5..10]")
    if one[0] == "<":
        one, first, two, second = two, second, one, first
    return Test(f"{'[' if '=' in one else '('}{']' if '=' in two else ')'}", bound(first), bound(second))


def _range(part: str) -> tuple[str, str] | None:
    """The two ends where `part` is two numbers or two dates with a dash, dots or `to` between them."""
    if _is_value(part):
        return None
    found = []
    for place in range(1, len(part) - 1):
        match = _BETWEEN.match(part, place)
        if match and _is_value(part[: match.start()].strip()) and _is_value(part[match.end() :].strip()):
            found.append((part[: match.start()].strip(), part[match.end() :].strip()))
    ends = list(dict.fromkeys(found))
    if len(ends) > 1:
        ends = [pair for pair in ends if pair[1][0] in _DASHES] or ends  # -5--1
    return ends[0] if ends else None


def _is_value(text: str) -> bool:
    return bool(text) and bool(number(text) or days(text))


def _shared(low: str, high: str) -> tuple[str, str]:
    """`5 – 10 %`: the unit of the second end is that of both."""
    first, second = number(low.strip()), number(high.strip())
    if first and second and second.unit and not first.unit and second.unit == "%":
        return f"{low}%", high
    return low, high


def is_mark(found: CellValue) -> bool:
    """Whether it is a cross or a tick."""
    return found.exact is None and found.text.lower() in _MARKS
