"""Dates, moments and times of day as whole places on a line, so that they can be drawn like numbers.

A line has one form, that of most of the values it is made of: `2024-01-31`, `2024-01-31T08:30:00`, `08:30:00`,
the latter two with or without a `Z`. What is written otherwise has no place on it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Self

_FORM = re.compile(r"(\d{4}-\d\d-\d\d)?(?:(?:^|T)(\d\d:\d\d:\d\d)(Z?))?")
_SOME_DAY = "2000-01-01"
_DAY, _MINUTE = 86_400, 60


@dataclass(frozen=True, slots=True)
class MomentLine:
    """`day`, `time` and `zone` are what a value is written with; a place is `step` seconds long."""

    day: bool
    time: bool
    zone: str
    step: int

    @classmethod
    def of(cls, values: Iterable[Any]) -> Self | None:
        """The line of the moments among values, with places of a day, a minute or a second, if any."""
        read = [found for found in map(_read, values) if found]
        if not read:
            return None
        form, _ = Counter(found[:3] for found in read).most_common(1)[0]
        whole = all(found[3] % _MINUTE == 0 for found in read if found[:3] == form)
        return cls(*form, (_MINUTE if whole else 1) if form[1] else _DAY)

    def place(self, value: Any) -> int | None:
        """Where a value lies; None where it is not of the line's form."""
        read = _read(value)
        return read[3] // self.step if read and read[:3] == (self.day, self.time, self.zone) else None

    def value(self, place: int) -> str:
        """What lies at a place."""
        day, time = (datetime.min + timedelta(seconds=place * self.step)).isoformat().split("T")
        return f"{'T'.join([day] * self.day + [time] * self.time)}{self.zone}"


def _read(value: Any) -> tuple[bool, bool, str, int] | None:
    """Whether a text has a day and a time, its zone, and seconds since the year 1; None where it is none."""
    found = _FORM.fullmatch(value) if isinstance(value, str) and value else None
    if not found:
        return None
    day, time, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day or _SOME_DAY}T{time or '00:00:00'}")
    except ValueError:
        return None
    return bool(day), bool(time), zone or "", (moment - datetime.min) // timedelta(seconds=1)
