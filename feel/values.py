"""What a FEEL expression can be worth, in Python's terms.

| FEEL | Python |
|---|---|
| null | `None` (why it is null: the `reasons` of `evaluate`) |
| number | `decimal.Decimal`, 34 digits, half even (IEEE 754 decimal128) |
| string, boolean | `str`, `bool` |
| date, time, date and time, both kinds of duration | the classes of `temporal.py` |
| list, context | `list`, `dict` with text keys |
| range, function | `Range`, `Function` |

Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.
"""

import decimal
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vertigym.core.errors import DataError
from vertigym.feel.feel_types import ANY, FeelType
from vertigym.feel.temporal import Date, DateTime, DaysTime, Time, YearsMonths

DECIMAL128 = decimal.Context(
    prec=34,
    rounding=decimal.ROUND_HALF_EVEN,
    Emin=-6143,
    Emax=6144,
    traps=[decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow],
)
MOST_ITEMS = 100_000  # of a list that a range or a function makes
MOST_CHARACTERS = 1_000_000  # of a string that an expression makes


class FeelError(DataError):
    """A text that is not FEEL, or an evaluation past its bounds."""


class NoValue(Exception):  # noqa: N818 - not an error: FEEL's null, and why
    """Why an operation or function has no value. Evaluation turns it into null and keeps the reason.

    A callable registered as a `Function` may raise it.
    """


@dataclass(frozen=True, slots=True)
class Range:
    """`[low..high]`, with `None` for an end that is open to infinity, as in `< 5`."""

    low: "Value"
    high: "Value"
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True, eq=False)
class Function:
    """Something that can be invoked: a closure, or what the caller registers (a business knowledge model).

    `call` takes one value for each parameter, in their order, and returns a value or raises `NoValue`. Where
    `types` are given, arguments that do not conform to them make the result null, without a call.
    """

    name: str
    parameters: tuple[str, ...]
    call: Callable[..., "Value"] = field(repr=False)
    types: tuple[FeelType, ...] = ()
    result: FeelType = ANY


Value = (
    None
    | bool
    | Decimal
    | str
    | Date
    | Time
    | DateTime
    | YearsMonths
    | DaysTime
    | list[Any]
    | dict[str, Any]
    | Range
    | Function
)


def number(value: int | str | Decimal) -> Decimal:
    """A number of 34 digits.

    Raises:
        decimal.InvalidOperation: the text is no number.
    """
    return DECIMAL128.create_decimal(value)


def kind_of(value: Value) -> str:
    """The name of a value's type."""
    return "function" if isinstance(value, Function) else _KINDS[type(value)]


def shown(value: Value) -> str:
    """A value in a reason: short."""
    if isinstance(value, str):
        return f'"{value[:40]}"' if len(value) <= 40 else f'"{value[:40]}…"'
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value)[:60] if isinstance(value, Decimal) else f"a {kind_of(value)}"


def measure(value: Value, most: int) -> int:
    """How many values lie in a value, itself among them, counted as far as `most`.

    A part that stands in many places counts each time: this is what walking through the value costs.
    """
    count, left = 0, [value]
    while left and count <= most:
        item = left.pop()
        count += 1
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            left += item.values()
    return count + len(left)


_KINDS: dict[type, str] = {
    type(None): "null",
    bool: "boolean",
    Decimal: "number",
    str: "string",
    Date: "date",
    Time: "time",
    DateTime: "date and time",
    YearsMonths: "years and months duration",
    DaysTime: "days and time duration",
    list: "list",
    dict: "context",
    Range: "range",
}
