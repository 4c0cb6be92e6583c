"""What a case is, apart from how it is written down.

Two cases are one where only the order of their fields differs, where 1 stands for 1.0, or where a field is null
in one and missing in the other. A rule engine tells none of these apart, so a task about each would be one task
twice.
"""

import json
from typing import Any

_encode = json.JSONEncoder(sort_keys=True).encode


def case_key(case: Any) -> str:
    """The same text for every way to write one case."""
    return _encode(_canonical(case, drop_nulls=True))


def value_key(value: Any) -> str:
    """The same text for every way to write one JSON value; a null field is not a missing one."""
    return _encode(_canonical(value, drop_nulls=False))


def _canonical(value: Any, *, drop_nulls: bool) -> Any:
    if isinstance(value, dict):
        return {
            key: _canonical(item, drop_nulls=drop_nulls)
            for key, item in value.items()
            if not (drop_nulls and item is None)
        }
    if isinstance(value, list | tuple):
        return [_canonical(item, drop_nulls=drop_nulls) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def whole_numbers(value: Any) -> Any:
    """Engine numbers as people write them: whole floats become integers, all the way down."""
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    if isinstance(value, dict):
        return {key: whole_numbers(item) for key, item in value.items()}
    return [whole_numbers(item) for item in value] if isinstance(value, list) else value
