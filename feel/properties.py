"""What may follow a dot: a context's entries, and the properties of dates, times, durations and ranges.

Source: OMG Decision Model and Notation 1.5, table 65.
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

from vertigym.feel.temporal import (
    DAY,
    HOUR,
    MINUTE,
    SECOND,
    Date,
    DateTime,
    DaysTime,
    Time,
    YearsMonths,
    offset,
)
from vertigym.feel.values import DECIMAL128, NoValue, Range, Value, kind_of, shown


def property_of(value: Value, name: str) -> Value:
    """`value.name`.

    Raises:
        NoValue: there is no such entry or property.
    """
    if isinstance(value, dict):
        if name in value:
            return value[name]  # type: ignore[no-any-return]
        raise NoValue(f"the context has no entry {name!r}")
    read = _PROPERTIES.get(type(value), {}).get(name)
    if not read:
        raise NoValue(f"{shown(value)} has no {name!r}: it is of type {kind_of(value)}")
    return read(value)


def _seconds(whole: int, nanoseconds: int) -> Decimal:
    return DECIMAL128.add(Decimal(whole), DECIMAL128.scaleb(Decimal(nanoseconds), -9))


def _offset(zone_offset: int | None) -> Value:
    if zone_offset is None:
        raise NoValue("a local time has no offset")
    return DaysTime(zone_offset * SECOND)


def _timezone(time: Time) -> Value:
    if not isinstance(time.zone, str):
        raise NoValue("the time has no zone with an id")
    return time.zone


def _signed(amount: int, unit: int, modulus: int) -> Decimal:
    """A duration's whole units, with its sign, left over from the next larger one."""
    part = abs(amount) // unit % modulus
    return Decimal(-part if amount < 0 else part)


_Reads = dict[str, Callable[[Any], Value]]
_DATE: _Reads = {
    "year": lambda d: Decimal(d.year),
    "month": lambda d: Decimal(d.month),
    "day": lambda d: Decimal(d.day),
    "weekday": lambda d: Decimal(d.weekday),
}
_TIME: _Reads = {
    "hour": lambda t: Decimal(t.hour),
    "minute": lambda t: Decimal(t.minute),
    "second": lambda t: _seconds(t.second, t.nanosecond),
    "time offset": lambda t: _offset(offset(t.zone)),
    "timezone": _timezone,
}


def _of_date(read: Callable[[Any], Value]) -> Callable[[Any], Value]:
    return lambda both: read(both.date)


def _of_time(read: Callable[[Any], Value]) -> Callable[[Any], Value]:
    return lambda both: read(both.time)


_PROPERTIES: dict[type, _Reads] = {
    Date: _DATE,
    Time: _TIME,
    DateTime: {name: _of_date(read) for name, read in _DATE.items()}
    | {name: _of_time(read) for name, read in _TIME.items()}
    | {"time offset": lambda both: _offset(both.offset)},
    YearsMonths: {
        "years": lambda d: _signed(d.months, 12, 10**12),
        "months": lambda d: _signed(d.months, 1, 12),
    },
    DaysTime: {
        "days": lambda d: _signed(d.nanoseconds, DAY, 10**30),
        "hours": lambda d: _signed(d.nanoseconds, HOUR, 24),
        "minutes": lambda d: _signed(d.nanoseconds, MINUTE, 60),
        "seconds": lambda d: DECIMAL128.scaleb(_signed(d.nanoseconds, 1, MINUTE), -9).normalize(),
    },
    Range: {
        "start": lambda r: r.low,
        "end": lambda r: r.high,
        "start included": lambda r: r.low_closed,
        "end included": lambda r: r.high_closed,
    },
}
NAMES = sorted({name for reads in _PROPERTIES.values() for name in reads})
