"""Conversions between types, and functions of dates and times.

Sources: OMG Decision Model and Notation 1.5, tables 66, 76 and 80.
"""

import re
from datetime import datetime
from decimal import Decimal

from vertigym.feel.signatures import builtin
from vertigym.feel.temporal import SECOND, Date, DateTime, DaysTime, Time, YearsMonths
from vertigym.feel.temporal_text import MOST_OFFSET, date_of, date_time_of, duration_of, time_of
from vertigym.feel.texts import text
from vertigym.feel.values import DECIMAL128, NoValue, Value, number

_NUMBER = re.compile(r"-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]


@builtin("date(from: string)")
def _date_from(spelled: str) -> Value:
    return date_of(spelled)


@builtin("date(from: date)", "date(from: date and time)")
def _date_in(value: Date | DateTime) -> Value:
    return _day(value)


@builtin("date(year: number, month: number, day: number)")
def _date(year: Decimal, month: Decimal, day: Decimal) -> Value:
    if any(abs(part) > 10**9 for part in (year, month, day)):
        raise NoValue(f"date({year}, {month}, {day}): there is no such day")
    found = Date(int(year), int(month), int(day))
    if not found.is_valid():
        raise NoValue(f"date({year}, {month}, {day}): there is no such day")
    return found


@builtin("time(from: string)")
def _time_from(spelled: str) -> Value:
    return time_of(spelled)


@builtin("time(from: time)", "time(from: date and time)")
def _time_in(value: Time | DateTime) -> Value:
    return value.time if isinstance(value, DateTime) else value


@builtin("time(hour: number, minute: number, second: number, offset?: days and time duration?)")
def _time(hour: Decimal, minute: Decimal, second: Decimal, offset: DaysTime | None = None) -> Value:
    if not (0 <= hour < 24 and 0 <= minute < 60 and 0 <= second < 60):
        raise NoValue(f"time({hour}, {minute}, {second}): there is no such time")
    zone = None if offset is None else _whole_offset(offset)
    nanosecond = int(DECIMAL128.scaleb(second % 1, 9))
    return Time(int(hour), int(minute), int(second), nanosecond, zone)


@builtin("date and time(from: string)")
def _date_and_time_from(spelled: str) -> Value:
    return date_time_of(spelled)


@builtin("date and time(from: date and time)")
def _date_and_time_in(value: DateTime) -> Value:
    return value


@builtin("date and time(date: date, time: time)", "date and time(date: date and time, time: time)")
def _date_and_time(date: Date | DateTime, time: Time) -> Value:
    return DateTime(_day(date), time)


@builtin("duration(from: string)")
def _duration(spelled: str) -> Value:
    return duration_of(spelled)


@builtin(
    "years and months duration(from: date, to: date)",
    "years and months duration(from: date, to: date and time)",
)
@builtin("years and months duration(from: date and time, to: date)")
@builtin("years and months duration(from: date and time, to: date and time)")
def _years_and_months(start: Date | DateTime, end: Date | DateTime) -> Value:
    """Whole months between two days."""
    first, last = _day(start), _day(end)
    months = (last.year - first.year) * 12 + last.month - first.month
    if months > 0 and last.day < first.day:
        months -= 1
    elif months < 0 and last.day > first.day:
        months += 1
    return YearsMonths(months)


@builtin("number(from: string, grouping separator?: string?, decimal separator?: string?)")
def _number(spelled: str, grouping: str | None = None, point: str | None = None) -> Value:
    if grouping not in (None, " ", ",", ".") or point not in (None, ",", "."):
        raise NoValue(
            f"separators {grouping!r} and {point!r}: groups by space, comma or point, then comma or point"
        )
    if grouping and grouping == point:
        raise NoValue(f"{grouping!r} for both separators")
    whole, mark, fraction = spelled.partition(point or ("." if grouping != "." else "\0"))
    plain = whole.replace(grouping, "") if grouping else whole
    plain += f".{fraction}" * bool(mark)
    if not _NUMBER.fullmatch(plain):
        raise NoValue(f"{spelled[:60]!r} is no number")
    try:
        return number(plain)
    except ArithmeticError:
        raise NoValue(f"{spelled[:60]!r} is beyond what a number holds") from None


@builtin("string(from: Any)")
def _string(value: Value) -> Value:
    return None if value is None else text(value)


@builtin("day of year(date: date)", "day of year(date: date and time)")
def _day_of_year(date: Date | DateTime) -> Value:
    return Decimal(_day(date).day_of_year)


@builtin("day of week(date: date)", "day of week(date: date and time)")
def _day_of_week(date: Date | DateTime) -> Value:
    return _DAYS[_day(date).weekday - 1]


@builtin("month of year(date: date)", "month of year(date: date and time)")
def _month_of_year(date: Date | DateTime) -> Value:
    return _MONTHS[_day(date).month - 1]


@builtin("week of year(date: date)", "week of year(date: date and time)")
def _week_of_year(date: Date | DateTime) -> Value:
    return Decimal(_day(date).week_of_year)


@builtin("now()", clocked=True)
def _now(at: datetime | None) -> Value:
    return of_python(_clock(at))


@builtin("today()", clocked=True)
def _today(at: datetime | None) -> Value:
    return of_python(_clock(at)).date


def of_python(at: datetime) -> DateTime:
    """Python's date and time as FEEL's; a zone with an id (`zoneinfo`) keeps it."""
    difference = at.utcoffset()
    seconds = None if difference is None else int(difference.total_seconds())
    zone = getattr(at.tzinfo, "key", None) or seconds
    time = Time(at.hour, at.minute, at.second, at.microsecond * 1000, zone)
    return DateTime(Date(at.year, at.month, at.day), time)


def _clock(at: datetime | None) -> datetime:
    if at is None:
        raise NoValue("no clock was given")
    return at


def _day(value: Date | DateTime) -> Date:
    return value.date if isinstance(value, DateTime) else value


def _whole_offset(offset: DaysTime) -> int:
    seconds, rest = divmod(offset.nanoseconds, SECOND)
    if rest or abs(seconds) > MOST_OFFSET:
        raise NoValue("an offset that is not in whole seconds or not within 14 hours of UTC")
    return seconds
