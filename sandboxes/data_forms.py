"""Data forms beyond JSON's: what a value of the standard library is as tagged JSON, and how it is made again.

Each is a tag, the exact type, and the value as a list of data. Making one builds standard types and the two
classes below, never a class of the program. Sizes are bounded, because comparing and hashing huge fractions or
decimals takes long. Runs inside and outside the sandbox: standard library only.
"""

import re
from collections import deque, namedtuple
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from functools import lru_cache
from typing import Any

_MOST_DIGITS = 4300  # of a decimal; CPython's own limit for integers as text
_MOST_BITS = 1 << 14  # of either side of a fraction
_DECIMAL = re.compile(r"-?(\d+(\.\d*)?(E[+-]?\d{1,4})?|Infinity|NaN)")
_NAME = re.compile(r"[A-Za-z]\w{0,99}", re.ASCII)

Form = tuple[type, Callable[[Any], Any], Callable[[Any], Any]]


class DataRecord:
    """A dataclass instance or an enumeration's member as data: the name of its class and its fields. Equal to a
    record of the same name and fields, and to nothing else."""

    def __init__(self, kind: str, fields: dict[str, Any]) -> None:
        self.kind_of_record, self.fields_of_record = kind, fields

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["fields_of_record"][name]
        except KeyError:
            raise AttributeError(f"{self.__dict__.get('kind_of_record')} has no field {name!r}") from None

    def __eq__(self, other: object) -> bool:
        return type(other) is DataRecord and (self.kind_of_record, self.fields_of_record) == (
            other.kind_of_record,
            other.fields_of_record,
        )

    def __hash__(self) -> int:
        return hash((self.kind_of_record, *self.fields_of_record.values()))


def _decimal(text: str) -> Decimal:
    if len(text) > _MOST_DIGITS or not _DECIMAL.fullmatch(text):
        raise ValueError("a decimal that is none, or too long")
    return Decimal(text)


def _fraction(pair: list[int]) -> Fraction:
    top, bottom = pair
    if type(top) is not int or type(bottom) is not int or bottom < 1:
        raise ValueError("a fraction that is none")
    if max(top.bit_length(), bottom.bit_length()) > _MOST_BITS:
        raise ValueError(f"a fraction of more than {_MOST_BITS} bits")
    return Fraction(top, bottom)


def _record(body: list[Any]) -> DataRecord:
    kind, pairs = body
    fields = {_checked(name): value for name, value in pairs}
    return DataRecord(_checked(kind), fields)


def _named_tuple(body: list[Any]) -> tuple[Any, ...]:
    kind, names, values = body
    made: tuple[Any, ...] = named_tuple_type(_checked(kind), tuple(map(_checked, names)))(*values)
    return made


def _checked(name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError("a name that is none")
    return name


@lru_cache(maxsize=256)
def named_tuple_type(kind: str, names: tuple[str, ...]) -> Any:
    """The one type for named tuples of this name and fields, so that two of them compare by type.

    Raises:
        ValueError: names that a named tuple cannot have.
    """
    if len(names) > 100:
        raise ValueError("a named tuple of more than 100 fields")
    return namedtuple(kind, names)


FORMS: dict[str, Form] = {
    "decimal": (Decimal, str, _decimal),
    "fraction": (Fraction, lambda value: [value.numerator, value.denominator], _fraction),
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
    "time": (time, time.isoformat, time.fromisoformat),
    "timedelta": (
        timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: timedelta(*parts),
    ),
    "deque": (deque, list, deque),
    "namedtuple": (tuple, lambda value: [type(value).__name__, list(value._fields), list(value)], _named_tuple),
    "record": (
        DataRecord,
        lambda value: [value.kind_of_record, [*map(list, value.fields_of_record.items())]],
        _record,
    ),
}
_BY_TYPE = {kind: (tag, encode) for tag, (kind, encode, _) in FORMS.items() if tag != "namedtuple"}


def form_of(value: Any) -> tuple[str, Any] | None:
    """The tag and the data of a value that has a form here, else None."""
    kind = type(value)
    if kind in _BY_TYPE:
        tag, encode = _BY_TYPE[kind]
        return tag, encode(value)
    if isinstance(value, tuple) and isinstance(names := getattr(kind, "_fields", None), tuple):
        if all(isinstance(name, str) and _NAME.fullmatch(name) for name in names) and len(names) == len(value):
            return "namedtuple", [kind.__name__, list(names), list(tuple.__iter__(value))]
        return None
    if isinstance(value, Enum):
        return "record", [kind.__name__, [["name", value.name], ["value", value.value]]]
    if isinstance(fields := getattr(kind, "__dataclass_fields__", None), dict):
        return "record", [kind.__name__, [[name, getattr(value, name)] for name in fields]]
    return None


def made(tag: str, body: Any) -> Any:
    """The value of a form from its decoded data.

    Raises:
        ValueError, TypeError: it is none.
    """
    return FORMS[tag][2](body)
