"""Dates, times and durations as FEEL has them: years to 999,999,999 both ways, zones by offset or by id.

Python's own end at the year 9999 and know no time with a zone's name. Lengths are whole numbers of nanoseconds.

Sources: OMG Decision Model and Notation 1.5, chapter 10.3.2.3; days from dates: Howard Hinnant,
"chrono-compatible low-level date algorithms".
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from typing import Self
from zoneinfo import ZoneInfo, available_timezones

from vertigym.core.errors import InputError

Zone = int | str | None  # seconds east of UTC, a zone's id (Europe/Paris), or none: local
MOST_YEARS = 999_999_999
SECOND = 1_000_000_000  # nanoseconds
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
_MONTH_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True, order=True)
class Date:
    """A day of the proleptic Gregorian calendar."""

    year: int
    month: int
    day: int

    def is_valid(self) -> bool:
        """Whether there is such a day."""
        if abs(self.year) > MOST_YEARS or not 1 <= self.month <= 12:
            return False
        return 1 <= self.day <= month_length(self.year, self.month)

    @property
    def ordinal(self) -> int:
        """Days since 1970-01-01."""
        year = self.year - (self.month <= 2)
        era, year_of_era = divmod(year, 400)
        day_of_year = (153 * ((self.month + 9) % 12) + 2) // 5 + self.day - 1
        return era * 146_097 + year_of_era * 365 + year_of_era // 4 - year_of_era // 100 + day_of_year - 719_468

    @classmethod
    def of_ordinal(cls, days: int) -> Self:
        """The day so many days after 1970-01-01; `is_valid` says whether it is in range."""
        era, day_of_era = divmod(days + 719_468, 146_097)
        year = (day_of_era - day_of_era // 1460 + day_of_era // 36_524 - day_of_era // 146_096) // 365
        day_of_year = day_of_era - (365 * year + year // 4 - year // 100)
        month = (5 * day_of_year + 2) // 153
        day = day_of_year - (153 * month + 2) // 5 + 1
        month = month + 3 if month < 10 else month - 9
        return cls(year + era * 400 + (month <= 2), month, day)

    def plus_months(self, months: int) -> Self:
        """The same day so many months on, or that month's last."""
        year, month = divmod(self.year * 12 + self.month - 1 + months, 12)
        return replace(self, year=year, month=month + 1, day=min(self.day, month_length(year, month + 1)))

    @property
    def weekday(self) -> int:
        """1 for Monday to 7 for Sunday."""
        return (self.ordinal + 3) % 7 + 1

    @property
    def day_of_year(self) -> int:
        """1 for 1 January."""
        return self.ordinal - Date(self.year, 1, 1).ordinal + 1

    @property
    def week_of_year(self) -> int:
        """The week of ISO 8601: that of the year which holds its Thursday."""
        thursday = Date.of_ordinal(self.ordinal + 4 - self.weekday)
        return (thursday.day_of_year - 1) // 7 + 1


@dataclass(frozen=True, slots=True)
class Time:
    """A time of day, to the nanosecond."""

    hour: int
    minute: int
    second: int
    nanosecond: int = 0
    zone: Zone = None

    @property
    def nanoseconds(self) -> int:
        """Since midnight, by the clock on the wall."""
        return self.hour * HOUR + self.minute * MINUTE + self.second * SECOND + self.nanosecond

    @classmethod
    def of_nanoseconds(cls, nanoseconds: int, zone: Zone = None) -> Self:
        """The time of day so long after midnight, whole days left out."""
        rest = nanoseconds % DAY
        return cls(rest // HOUR, rest % HOUR // MINUTE, rest % MINUTE // SECOND, rest % SECOND, zone)

    @property
    def instant(self) -> int:
        """Nanoseconds since midnight in UTC; a zone's id counts with its standard time."""
        return self.nanoseconds - (offset(self.zone) or 0) * SECOND


@dataclass(frozen=True, slots=True)
class DateTime:
    """A date and time; the zone is the time's."""

    date: Date
    time: Time

    @property
    def zone(self) -> Zone:
        """The zone of its time."""
        return self.time.zone

    @property
    def local(self) -> int:
        """Nanoseconds since 1970-01-01 by calendar and clock, whatever the zone."""
        return self.date.ordinal * DAY + self.time.nanoseconds

    @property
    def instant(self) -> int:
        """Nanoseconds since 1970-01-01 in UTC, a local time taken as UTC."""
        return self.local - (self.offset or 0) * SECOND

    @property
    def offset(self) -> int | None:
        """Seconds east of UTC, or none for a local time."""
        return offset(self.time.zone, self)

    def plus(self, nanoseconds: int) -> "DateTime":
        """So much later: where the zone has an id, by UTC and back."""
        zone = self.time.zone
        if isinstance(zone, str):
            return self._at(self.instant + nanoseconds, zone)
        later = self.local + nanoseconds
        return DateTime(Date.of_ordinal(later // DAY), Time.of_nanoseconds(later, zone))

    @staticmethod
    def _at(instant: int, zone: str) -> "DateTime":
        """An instant as a clock in a zone shows it."""
        at = _as_python(Date.of_ordinal(instant // DAY), Time.of_nanoseconds(instant))
        difference = at.replace(tzinfo=ZoneInfo("UTC")).astimezone(ZoneInfo(zone)).utcoffset() or timedelta()
        local = instant + int(difference.total_seconds()) * SECOND
        return DateTime(Date.of_ordinal(local // DAY), Time.of_nanoseconds(local, zone))


@dataclass(frozen=True, slots=True, order=True)
class YearsMonths:
    """A years and months duration, in months."""

    months: int


@dataclass(frozen=True, slots=True, order=True)
class DaysTime:
    """A days and time duration, in nanoseconds."""

    nanoseconds: int


def month_length(year: int, month: int) -> int:
    """Days of a month."""
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _MONTH_LENGTHS[month - 1]


def has_zone(zone: str) -> bool:
    """Whether there is a zone of that id."""
    return zone in _zones()


@cache
def _zones() -> frozenset[str]:
    found = frozenset(available_timezones())
    if not found:
        raise InputError("this machine has no database of time zones: pip install tzdata")
    return found


def offset(zone: Zone, at: DateTime | None = None) -> int | None:
    """Seconds east of UTC: at a date and time of that zone, or in standard time."""
    if not isinstance(zone, str):
        return zone
    when = _as_python(at.date, at.time) if at else datetime(2000, 1, 1)
    when = when.replace(tzinfo=ZoneInfo(zone))
    difference = when.utcoffset() or timedelta()
    return int((difference if at else difference - (when.dst() or timedelta())).total_seconds())


def _as_python(date: Date, time: Time) -> datetime:
    """A date and time within the years that Python knows, where rules of zones repeat every 400 years."""
    year = date.year if 1 < date.year < 9999 else date.year % 400 + (9200 if date.year > 1 else 400)
    return datetime(year, date.month, date.day, time.hour, time.minute, time.second)
