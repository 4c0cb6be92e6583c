"""FEEL's arithmetic, comparison and equality of values.

Each operation is a row of a table, by the types on its two sides. A date beside a date and time is its midnight
in UTC. Local and zoned times are neither comparable nor subtracted from each other, and are never equal.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.13, tables 45 to 62.
"""

import decimal
from collections.abc import Callable
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any

from vertigym.feel.temporal import DAY, Date, DateTime, DaysTime, Time, YearsMonths
from vertigym.feel.values import (
    DECIMAL128,
    MOST_CHARACTERS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    kind_of,
    shown,
)

_INFINITY = Decimal("Infinity")
MOST_DURATION = 10**33  # nanoseconds, or months
Operation = Callable[[Any, Any], Value]


def operate(operator: str, left: Value, right: Value) -> Value:
    """`left operator right` for `+ - * / **`.

    Raises:
        NoValue: the types do not fit, or there is no such number or date.
    """
    operation = _OPERATIONS[operator].get((type(left), type(right)))
    if not operation:
        raise NoValue(f"{shown(left)} {operator} {shown(right)}: not for {kind_of(left)} and {kind_of(right)}")
    try:
        result = operation(left, right)
    except (decimal.DecimalException, ZeroDivisionError):
        result = _INFINITY
    if isinstance(result, Decimal) and not result.is_finite():
        raise NoValue(f"{shown(left)} {operator} {shown(right)}: there is no such number")
    return result


def negate(value: Value) -> Value:
    """`-value`.

    Raises:
        NoValue: it is neither a number nor a duration.
    """
    match value:
        case Decimal():
            return DECIMAL128.minus(value)
        case YearsMonths(months):
            return YearsMonths(-months)
        case DaysTime(nanoseconds):
            return DaysTime(-nanoseconds)
    raise NoValue(f"-{shown(value)}: not for {kind_of(value)}")


def equal(left: Value, right: Value) -> bool | None:
    """`left = right`; `None` where they are of different kinds. Inside lists and contexts these are unequal."""
    if left is None or right is None:
        return left is right
    if type(left) is not type(right):
        return None
    if isinstance(left, Decimal | str | bool):
        return left == right
    match left, right:
        case (Time() | DateTime(), Time() | DateTime()):
            return _is_local(left) == _is_local(right) and left.instant == right.instant
        case list(), list():
            return len(left) == len(right) and all(
                equal(a, b) is True for a, b in zip(left, right, strict=True)
            )
        case dict(), dict():
            return left.keys() == right.keys() and all(equal(left[key], right[key]) is True for key in left)
        case Range(), Range():
            ends = equal(left.low, right.low) is True and equal(left.high, right.high) is True
            return ends and (left.low_closed, left.high_closed) == (right.low_closed, right.high_closed)
        case Function(), Function():
            return left is right
    return left == right


def order(left: Value, right: Value) -> int:
    """Below 0, 0 or above 0, as `left` comes before, with or after `right`.

    Raises:
        NoValue: they cannot be compared.
    """
    if isinstance(left, Date) and isinstance(right, DateTime):
        left = _midnight(left)
    elif isinstance(left, DateTime) and isinstance(right, Date):
        right = _midnight(right)
    if type(left) is type(right):
        if isinstance(left, Decimal | str | Date | YearsMonths | DaysTime):
            return _sign(left, right)
        if isinstance(left, Time | DateTime):
            if _is_local(left) != _is_local(right):
                raise NoValue(f"{shown(left)} and {shown(right)}: one has a time zone, one has none")
            return _sign(left.instant, right.instant)  # type: ignore[union-attr]
    raise NoValue(f"{shown(left)} and {shown(right)} cannot be compared: {kind_of(left)} and {kind_of(right)}")


def compare(operator: str, left: Value, right: Value) -> bool | None:
    """`left operator right` for `= != < <= > >=`.

    Raises:
        NoValue: they cannot be compared.
    """
    if operator in ("=", "!="):
        same = equal(left, right)
        if same is None:
            raise NoValue(f"{shown(left)} {operator} {shown(right)}: {kind_of(left)} and {kind_of(right)}")
        return same == (operator == "=")
    return _ORDERED[operator](order(left, right), 0)


def in_range(value: Value, ends: Range) -> bool:
    """Whether a value lies in a range.

    Raises:
        NoValue: it cannot be compared with an end.
    """
    if ends.low is not None:
        low = order(value, ends.low)
        if low < 0 or (low == 0 and not ends.low_closed):
            return False
    if ends.high is not None:
        high = order(value, ends.high)
        if high > 0 or (high == 0 and not ends.high_closed):
            return False
    return True


def _sign(left: Any, right: Any) -> int:
    return int(left > right) - int(left < right)


def _is_local(value: Any) -> bool:
    return value.zone is None


def _midnight(date: Date) -> DateTime:
    return DateTime(date, Time(0, 0, 0, 0, 0))


def _joined(left: str, right: str) -> str:
    if len(left) + len(right) > MOST_CHARACTERS:
        raise FeelError(f"+ makes a string of more than {MOST_CHARACTERS} characters")
    return left + right


def _dated(date: Date) -> Date:
    if not date.is_valid():
        raise NoValue("a date beyond the year 999,999,999")
    return date


def _plus_months(date: Date | DateTime, months: YearsMonths) -> Date | DateTime:
    if isinstance(date, DateTime):
        return DateTime(_dated(date.date.plus_months(months.months)), date.time)
    return _dated(date.plus_months(months.months))


def _plus_time(start: Date | DateTime | Time, duration: DaysTime) -> Date | DateTime | Time:
    match start:
        case Date():
            return _dated(Date.of_ordinal((start.ordinal * DAY + duration.nanoseconds) // DAY))
        case Time():
            return Time.of_nanoseconds(start.nanoseconds + duration.nanoseconds, start.zone)
    later = start.plus(duration.nanoseconds)
    _dated(later.date)
    return later


def _between(left: Any, right: Any) -> DaysTime:
    """How much later `left` is."""
    left, right = (_midnight(end) if isinstance(end, Date) else end for end in (left, right))
    if _is_local(left) != _is_local(right):
        raise NoValue(f"{shown(left)} - {shown(right)}: one has a time zone, one has none")
    return DaysTime(left.instant - right.instant)


def _months(amount: Decimal) -> YearsMonths:
    """Whole months, what is left over cut off."""
    return YearsMonths(_whole(amount))


def _time(amount: Decimal) -> DaysTime:
    return DaysTime(_whole(amount))


def _whole(amount: Decimal) -> int:
    if abs(amount) > MOST_DURATION:
        raise NoValue("a duration beyond what is computed with")
    return int(amount)


def _swapped(operation: Operation) -> Operation:
    return lambda left, right: operation(right, left)


def _times(length: Any, factor: Decimal) -> Value:
    if isinstance(length, YearsMonths):
        return _months(DECIMAL128.multiply(Decimal(length.months), factor))
    return _time(DECIMAL128.multiply(Decimal(length.nanoseconds), factor))


def _over(length: Any, divisor: Decimal) -> Value:
    if isinstance(length, YearsMonths):
        return _months(DECIMAL128.divide(Decimal(length.months), divisor))
    return _time(DECIMAL128.divide(Decimal(length.nanoseconds), divisor))


def _earlier(operation: Operation) -> Operation:
    return lambda left, right: operation(left, negate(right))


_ORDERED: dict[str, Callable[[int, int], bool]] = {"<": lt, "<=": le, ">": gt, ">=": ge}
_Table = dict[tuple[type, type], Operation]
_ADD: _Table = {
    (Decimal, Decimal): DECIMAL128.add,
    (str, str): _joined,
    (YearsMonths, YearsMonths): lambda a, b: _months(Decimal(a.months + b.months)),
    (DaysTime, DaysTime): lambda a, b: _time(Decimal(a.nanoseconds + b.nanoseconds)),
    (Date, YearsMonths): _plus_months,
    (DateTime, YearsMonths): _plus_months,
    (Date, DaysTime): _plus_time,
    (DateTime, DaysTime): _plus_time,
    (Time, DaysTime): _plus_time,
}
_TO_SHIFT = {pair: operation for pair, operation in _ADD.items() if pair[1] in (YearsMonths, DaysTime)}
_MULTIPLY: _Table = {(YearsMonths, Decimal): _times, (DaysTime, Decimal): _times}
_OPERATIONS: dict[str, _Table] = {
    "+": _ADD | {(b, a): _swapped(operation) for (a, b), operation in _TO_SHIFT.items() if a is not b},
    "-": {(Decimal, Decimal): DECIMAL128.subtract}
    | {pair: _earlier(operation) for pair, operation in _TO_SHIFT.items()}
    | dict.fromkeys([(a, b) for a in (Date, DateTime) for b in (Date, DateTime)] + [(Time, Time)], _between),
    "*": {(Decimal, Decimal): DECIMAL128.multiply}
    | _MULTIPLY
    | {(b, a): _swapped(operation) for (a, b), operation in _MULTIPLY.items()},
    "/": {
        (Decimal, Decimal): DECIMAL128.divide,
        (YearsMonths, Decimal): _over,
        (DaysTime, Decimal): _over,
        (YearsMonths, YearsMonths): lambda a, b: DECIMAL128.divide(Decimal(a.months), Decimal(b.months)),
        (DaysTime, DaysTime): lambda a, b: DECIMAL128.divide(Decimal(a.nanoseconds), Decimal(b.nanoseconds)),
    },
    "**": {(Decimal, Decimal): DECIMAL128.power},
}
