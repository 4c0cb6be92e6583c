"""Dates, times and durations from ISO 8601 texts and back, as XML Schema writes them, a zone's id after `@`.

Source: OMG Decision Model and Notation 1.5, chapters 10.3.2.3 and 10.3.4.1.
"""

import re

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
    Zone,
    has_zone,
)
from vertigym.feel.values import NoValue

Temporal = Date | Time | DateTime | YearsMonths | DaysTime
_DATE = r"(?P<year>-?(?:[1-9][0-9]{4,8}|[0-9]{4}))-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
_TIME = (
    r"(?P<hour>[0-9]{2}):(?P<minute>[0-9]{2}):(?P<second>[0-9]{2})(?:\.(?P<fraction>[0-9]+))?"
    r"(?P<zone>Z|[+-][0-9]{2}:[0-9]{2}(?::[0-9]{2})?|@[A-Za-z0-9_+/-]+)?"
)
_WHOLE_DATE, _WHOLE_TIME, _BOTH = re.compile(_DATE), re.compile(_TIME), re.compile(f"{_DATE}T{_TIME}")
_YEARS_MONTHS = re.compile(r"(-?)P(?:([0-9]{1,18})Y)?(?:([0-9]{1,18})M)?")
_DAYS_TIME = re.compile(
    r"(-?)P(?:([0-9]{1,18})D)?(?:T(?:([0-9]{1,18})H)?(?:([0-9]{1,18})M)?(?:([0-9]{1,18})(?:\.([0-9]*))?S)?)?"
)
MOST_OFFSET = 14 * 3600  # seconds, by XML Schema


def temporal(text: str) -> Temporal:
    """What a text spells: a date, time, date and time, or duration.

    Raises:
        NoValue: none of them.
    """
    for read in (date_of, time_of, date_time_of, duration_of):
        try:
            return read(text)
        except NoValue:
            continue
    raise NoValue(f"{text!r} is no date, time, date and time, or duration")


def date_of(text: str) -> Date:
    """`2024-02-29`."""
    match = _WHOLE_DATE.fullmatch(text)
    found = _date(match) if match else None
    if not found or not found.is_valid():
        raise NoValue(f"{text!r} is no date (YYYY-MM-DD)")
    return found


def time_of(text: str) -> Time:
    """`13:20:00`, with a fraction, and `Z`, an offset or a zone's id."""
    match = _WHOLE_TIME.fullmatch(text)
    found = _time(match) if match else None
    if not found:
        raise NoValue(f"{text!r} is no time (HH:MM:SS, then Z, +HH:MM, @Zone/Id or nothing)")
    return found if found.hour < 24 else Time(0, 0, 0, 0, found.zone)


def date_time_of(text: str) -> DateTime:
    """`2024-02-29T13:20:00`, or a date alone: its midnight. `24:00:00` is the next day's midnight."""
    if _WHOLE_DATE.fullmatch(text):
        return DateTime(date_of(text), Time(0, 0, 0))
    match = _BOTH.fullmatch(text)
    date, time = (_date(match), _time(match)) if match else (None, None)
    if not date or not date.is_valid() or not time:
        raise NoValue(f"{text!r} is no date and time (YYYY-MM-DDTHH:MM:SS)")
    if time.hour == 24:
        return DateTime(Date.of_ordinal(date.ordinal + 1), Time(0, 0, 0, 0, time.zone))
    return DateTime(date, time)


def duration_of(text: str) -> YearsMonths | DaysTime:
    """`P1Y2M`, or `P1DT2H3M4.5S`."""
    if len(text) > 2 and (match := _YEARS_MONTHS.fullmatch(text)) and text[-1] != "P":
        months = int(match[2] or 0) * 12 + int(match[3] or 0)
        return YearsMonths(-months if match[1] else months)
    match = _DAYS_TIME.fullmatch(text)
    if not match or text[-1] in "PT":
        raise NoValue(f"{text!r} is no duration (P1Y2M, or P1DT2H3M4.5S)")
    days, hours, minutes, seconds = (int(match[group] or 0) for group in (2, 3, 4, 5))
    total = days * DAY + hours * HOUR + minutes * MINUTE + seconds * SECOND + _nanoseconds(match[6])
    return DaysTime(-total if match[1] else total)


def text_of(value: Temporal) -> str:
    """The text that spells a value, as short as can be."""
    match value:
        case Date(year, month, day):
            return f"{'-' * (year < 0)}{abs(year):04}-{month:02}-{day:02}"
        case DateTime(date, time):
            return f"{text_of(date)}T{text_of(time)}"
        case Time(hour, minute, second, nanosecond, zone):
            return f"{hour:02}:{minute:02}:{second:02}{_fraction(nanosecond)}{_zone_text(zone)}"
        case YearsMonths(months):
            years, rest = divmod(abs(months), 12)
            parts = f"{years}Y" * (years > 0) + f"{rest}M" * (rest > 0)
            return f"{'-' * (months < 0)}P{parts or '0M'}"
        case DaysTime(nanoseconds):
            return ("-" if nanoseconds < 0 else "") + _days_time_text(abs(nanoseconds))


def _days_time_text(nanoseconds: int) -> str:
    time = Time.of_nanoseconds(nanoseconds)
    days = f"{nanoseconds // DAY}D" * (nanoseconds >= DAY)
    hours, minutes = f"{time.hour}H" * (time.hour > 0), f"{time.minute}M" * (time.minute > 0)
    seconds = f"{time.second}{_fraction(time.nanosecond)}S" * (time.second + time.nanosecond > 0)
    clock = hours + minutes + seconds
    return f"P{days}{'T' * bool(clock)}{clock}" if days or clock else "PT0S"


def _date(match: re.Match[str]) -> Date:
    return Date(int(match["year"]), int(match["month"]), int(match["day"]))


def _time(match: re.Match[str]) -> Time | None:
    """The time that a match spells, 24:00:00 among them, or none."""
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"])
    nanosecond = _nanoseconds(match["fraction"])
    midnight = hour == 24 and not (minute or second or nanosecond)
    if (hour > 23 and not midnight) or minute > 59 or second > 59:
        return None
    return Time(hour, minute, second, nanosecond, _zone(match["zone"]))


def _nanoseconds(fraction: str | None) -> int:
    return int((fraction or "")[:9].ljust(9, "0"))


def _zone(text: str | None) -> Zone:
    if not text or text == "Z":
        return None if not text else 0
    if text[0] == "@":
        if not has_zone(text[1:]):
            raise NoValue(f"unknown time zone {text[1:]!r}")
        return text[1:]
    hours, minutes, seconds = (int(part) for part in f"{text[1:]}:00".split(":")[:3])
    total = hours * 3600 + minutes * 60 + seconds
    if total > MOST_OFFSET or minutes > 59 or seconds > 59:
        raise NoValue(f"offset {text} is not within 14 hours of UTC")
    return -total if text[0] == "-" else total


def _zone_text(zone: Zone) -> str:
    if zone is None or isinstance(zone, str):
        return f"@{zone}" if zone else ""
    if zone == 0:
        return "Z"
    minutes, seconds = divmod(abs(zone), 60)
    return f"{'-' if zone < 0 else '+'}{minutes // 60:02}:{minutes % 60:02}" + f":{seconds:02}" * (seconds > 0)


def _fraction(nanosecond: int) -> str:
    return f".{nanosecond:09}".rstrip("0") if nanosecond else ""
