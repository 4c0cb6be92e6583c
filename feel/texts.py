"""Values as texts (`string(value)`), and as JSON.

A text, date or duration stands for itself; inside a list, context or range a text is quoted.
"""

import re
from decimal import Decimal
from typing import Any, NoReturn

from vertigym.core.bounds import MOST_DIGITS
from vertigym.feel.temporal_text import text_of
from vertigym.feel.values import (
    MOST_CHARACTERS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    measure,
    number,
)

MOST_PARTS = 1_000_000  # of a value that is turned into a text or JSON
_PLAIN_KEY = re.compile(r"[^\W\d]\w*")


def text(value: Value) -> str:
    """What `string(value)` gives.

    Raises:
        FeelError: the text would be too long.
    """
    check_parts(value)
    found = value if isinstance(value, str) else _quoted(value)
    if len(found) > MOST_CHARACTERS:
        raise FeelError(f"a text of more than {MOST_CHARACTERS} characters")
    return found


def number_text(value: Decimal) -> str:
    """A number in plain notation, without zeros at its end."""
    plain = f"{value:f}"
    if "." in plain:
        plain = plain.rstrip("0").rstrip(".")
    return "0" if plain in ("-0", "") else plain


def _quoted(value: Value) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case str():
            return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        case Decimal():
            return number_text(value)
        case list():
            return f"[{', '.join(map(_quoted, value))}]"
        case dict():
            return "{" + ", ".join(f"{_key(key)}: {_quoted(item)}" for key, item in value.items()) + "}"
        case Range():
            return _range_text(value)
        case Function():
            return f"function({', '.join(value.parameters)})"
    return text_of(value)


def _key(key: str) -> str:
    return key if _PLAIN_KEY.fullmatch(key) else _quoted(key)


def _range_text(ends: Range) -> str:
    if ends.low is None:
        return f"{'<=' if ends.high_closed else '<'} {_quoted(ends.high)}"
    if ends.high is None:
        return f"{'>=' if ends.low_closed else '>'} {_quoted(ends.low)}"
    low, high = "[" if ends.low_closed else "(", "]" if ends.high_closed else ")"
    return f"{low}{_quoted(ends.low)}..{_quoted(ends.high)}{high}"


def from_json(value: Any) -> Any:
    """A JSON value as FEEL's: numbers exactly as they are printed; texts stay texts.

    Raises:
        NoValue: it is no JSON value, or a number is infinite or none.
    """
    match value:
        case None | bool() | str():
            return value
        case int() | float() | Decimal():
            try:
                return number(str(value)) if Decimal(str(value)).is_finite() else _no_json(value)
            except ArithmeticError:
                return _no_json(value)
        case list() | tuple():
            return [from_json(item) for item in value]
        case dict():
            return {str(key): from_json(item) for key, item in value.items()}
    return _no_json(value)


def to_json(value: Value) -> Any:
    """A FEEL value as JSON: whole numbers as int, others as the nearest float; dates, ranges and such as text.

    Raises:
        FeelError: it has too many parts, or a number is too large.
    """
    check_parts(value)
    return _json(value)


def _json(value: Value) -> Any:
    match value:
        case None | bool() | str():
            return value
        case Decimal():
            return _json_number(value)
        case list():
            return [_json(item) for item in value]
        case dict():
            return {key: _json(item) for key, item in value.items()}
    return _quoted(value)


def _json_number(value: Decimal) -> int | float:
    if value.adjusted() >= MOST_DIGITS:
        raise FeelError(f"{value} is too large for JSON: more than {MOST_DIGITS} digits")
    return int(value) if value == value.to_integral_value() else float(value)


def _no_json(value: Any) -> NoReturn:
    raise NoValue(f"{value!r} is no JSON value")


def check_parts(value: Value) -> None:
    """Refuses a value that is too large to walk through.

    Raises:
        FeelError: it has too many parts.
    """
    if measure(value, MOST_PARTS) > MOST_PARTS:
        raise FeelError(f"a value of more than {MOST_PARTS} parts")
