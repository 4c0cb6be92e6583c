"""FEEL's dates, times and durations: beyond Python's years, with zones by offset and by id."""

import calendar
from datetime import UTC, date, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from vertigym.feel import Date, evaluate, parse, text
from vertigym.feel.temporal import month_length

from .test_feel import worth

LITERALS = [
    ('@"2024-02-29"', "2024-02-29"),
    ('@"2023-02-29"', "null"),
    ('date("-2017-12-31")', "-2017-12-31"),
    ('date("999999999-12-31")', "999999999-12-31"),
    ('date("01211-12-31")', "null"),
    ("date(2024, 2, 30)", "null"),
    ("date(2024, 1.5, 1)", "2024-01-01"),
    ('@"10:20:30.5"', "10:20:30.5"),
    ('@"10:20:30+00:00"', "10:20:30Z"),
    ('@"10:20:30-02:30"', "10:20:30-02:30"),
    ('@"10:20:30+15:00"', "null"),
    ('@"10:20"', "null"),
    ('@"10:20:30@Europe/Paris"', "10:20:30@Europe/Paris"),
    ('@"10:20:30@Nowhere/City"', "null"),
    ('time(11, 59, 45.5, @"PT2H1M1S")', "11:59:45.5+02:01:01"),
    ("time(11, 59, 45, null)", "11:59:45"),
    ("time(24, 0, 0)", "null"),
    ('@"2021-01-01T24:00:00"', "2021-01-02T00:00:00"),
    ('date and time("2024-01-01")', "2024-01-01T00:00:00"),
    ('date and time(@"2024-01-01", @"10:00:00@Europe/Paris")', "2024-01-01T10:00:00@Europe/Paris"),
    ('date(@"2024-01-01T10:00:00Z")', "2024-01-01"),
    ('time(@"2024-01-01")', "00:00:00Z"),  # a date's midnight is in UTC
    ('@"P1Y14M"', "P2Y2M"),
    ('@"P0Y"', "P0M"),
    ('@"PT36H0.5S"', "P1DT12H0.5S"),
    ('@"-PT90M"', "-PT1H30M"),
    ('@"PT0S"', "PT0S"),
    ('@"P1Y1D"', "null"),
    ('@"P"', "null"),
    ('@"P1DT"', "null"),
]
ARITHMETIC = [
    ('@"2024-01-31" + @"P1M"', "2024-02-29"),
    ('@"P1Y" + @"2024-02-29"', "2025-02-28"),
    ('@"2024-01-01" + @"PT36H"', "2024-01-02"),
    ('@"2024-01-01" - @"PT1S"', "2023-12-31"),
    ('@"2024-03-01" - @"2024-02-01"', "P29D"),
    ('@"23:30:00" + @"PT1H"', "00:30:00"),
    ('@"10:00:00Z" - @"10:00:00+01:00"', "PT1H"),
    ('@"10:00:00" - @"10:00:00Z"', "null"),
    ('@"2021-03-28T01:30:00@Europe/Paris" + @"PT1H"', "2021-03-28T03:30:00@Europe/Paris"),
    ('@"2021-01-02T10:10:10@Europe/Paris" - @"2021-01-01T10:10:10@Asia/Dhaka"', "P1DT5H"),
    ('@"2021-01-02" - @"2021-01-01T00:00:00Z"', "P1D"),
    ('@"2021-01-02" - @"2021-01-01T00:00:00"', "null"),
    ('@"-2021-01-01T00:00:00" - @"PT1S"', "-2022-12-31T23:59:59"),
    ('@"999999999-12-31" + @"P1D"', "null"),
    ('@"P1Y11M" * -2.5', "-P4Y9M"),
    ('@"P1D" / 5', "PT4H48M"),
    ('@"P1D" / @"PT6H"', "4"),
    ('@"P1D" + @"P1M"', "null"),
    ('@"P1D" / @"PT0S"', "null"),
    ('-@"P1M"', "-P1M"),
    ('years and months duration(@"2011-12-22", @"2013-08-24")', "P1Y8M"),
    ('years and months duration(@"2013-08-24", @"2011-12-22")', "-P1Y8M"),
    ('years and months duration(@"2015-01-21", @"2016-01-21T00:00:00Z")', "P1Y"),
]
COMPARISONS = [
    ('@"10:00:00Z" = @"11:00:00+01:00"', "true"),
    ('@"10:00:00" = @"10:00:00Z"', "false"),
    ('@"2024-07-01T12:00:00@Europe/Paris" = @"2024-07-01T10:00:00Z"', "true"),
    ('@"2024-01-01T00:00:00" < @"2024-01-01T00:00:00Z"', "null"),
    ('@"2024-01-01" < @"2024-01-01T00:00:01Z"', "true"),
    ('@"2024-01-01" = @"2024-01-01T00:00:00Z"', "null"),
    ('@"P1D" < @"PT25H"', "true"),
    ('@"P1M" < @"P30D"', "null"),
    ('@"2024-01-15" in [@"2024-01-01"..@"2024-02-01")', "true"),
    ('for d in @"2024-02-28"..@"2024-03-01" return d.day', "[28, 29, 1]"),
]
PROPERTIES = [
    ('@"2024-03-01".weekday', "5"),
    ('@"2024-03-01T10:20:30.5+01:00".second', "30.5"),
    ('@"2024-03-01T10:20:30.5+01:00".time offset', "PT1H"),
    ('@"2024-07-01T10:20:30@Europe/Paris".time offset', "PT2H"),
    ('@"2024-07-01T10:20:30@Europe/Paris".timezone', "Europe/Paris"),
    ('@"10:20:30".time offset', "null"),
    ('@"-P1Y3M".months', "-3"),
    ('@"P1DT25H61M1.5S".hours', "2"),
    ('@"P1DT25H61M1.5S".seconds', "1.5"),
    ('@"-P2D".days', "-2"),
    ('@"P1D".years', "null"),
    ('day of year(@"2024-12-31")', "366"),
    ('day of week(@"2019-09-17")', "Tuesday"),
    ('month of year(@"2019-09-17T00:00:00")', "September"),
    ('week of year(@"2005-01-01")', "53"),
    ('week of year(@"2003-12-29")', "1"),
]


@pytest.mark.parametrize(("expression", "expected"), LITERALS + ARITHMETIC + COMPARISONS + PROPERTIES)
def test_worth_of_times(expression: str, expected: str) -> None:
    assert worth(expression) == expected


def test_the_calendar_is_pythons_where_python_has_one() -> None:
    for days in range(0, date.max.toordinal(), 9973):
        there = date.fromordinal(days + 1)
        ours = Date(there.year, there.month, there.day)
        assert ours.ordinal == (there - date(1970, 1, 1)).days
        assert Date.of_ordinal(ours.ordinal) == ours
        assert (ours.weekday, ours.week_of_year) == (there.isoweekday(), there.isocalendar().week)
        month = there.month % 12 + 1
        assert ours.plus_months(1).month == month
        assert month_length(there.year, month) == calendar.monthrange(there.year, month)[1]


def test_the_calendar_repeats_every_400_years() -> None:
    first = Date(2024, 2, 29)
    for year in (-999_997_976, -376, 12_024, 999_998_024):
        assert Date.of_ordinal(first.ordinal + (year - 2024) // 400 * 146_097) == Date(year, 2, 29)


def test_the_clock_is_the_callers() -> None:
    def now(at: datetime) -> str:
        return text(evaluate(parse("[now(), today()]"), {}, lambda: at))

    local = datetime(2024, 1, 2, 3, 4, 5, 678)
    assert now(local) == "[2024-01-02T03:04:05.000678, 2024-01-02]"
    assert now(local.replace(tzinfo=UTC)).startswith("[2024-01-02T03:04:05.000678Z")
    assert now(local.replace(tzinfo=timezone(timedelta(hours=2)))).startswith(
        "[2024-01-02T03:04:05.000678+02:00"
    )
    assert "@Europe/Paris" in now(local.replace(tzinfo=ZoneInfo("Europe/Paris")))
