"""Dates, times and durations as FEEL has them: years from -999,999,999 to 999,999,999, zones by offset or by id.

Python's own end at the year 9999 and know no time with a zone's name. Instants are whole numbers of nanoseconds.
Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.3, which refers to XML Schema.
"""

from dataclasses import dataclass

Zone = int | str | None  # seconds east of UTC, a zone's id (Europe/Paris), or none: local


@dataclass(frozen=True, slots=True)
class Date:
    """A day of the proleptic Gregorian calendar."""

    year: int
    month: int
    day: int


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day, to the nanosecond."""

    hour: int
    minute: int
    second: int
    nanosecond: int = 0
    zone: Zone = None


@dataclass(frozen=True, slots=True)
class DateTime:
    """A date and time; the zone is the time's."""

    date: Date
    time: Time


@dataclass(frozen=True, slots=True, order=True)
class YearsMonths:
    """A years and months duration, in months."""

    months: int


@dataclass(frozen=True, slots=True, order=True)
class DaysTime:
    """A days and time duration, in nanoseconds."""

    nanoseconds: int
