"""What is read is bounded before anything recurses over it or computes with it.

Python's own parsers stop at their own limits, each with an error of its own kind, or not at all: a whole number
of 5,000 digits, lists in a thousand lists, a file that never ends.
"""

import json
import re
from typing import Any

import regex

from vertigym.core.errors import InputError

MOST_LEVELS = 100  # of lists and records in each other
SEARCH_S = 1.0  # for one search of a regular expression
MOST_DIGITS = 300  # of a number; more than that no float holds

_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*(?:"|\Z)|[\[{]|[\]}]', re.DOTALL)


def json_value(text: str) -> Any:
    """A JSON text's value.

    Raises:
        ValueError: not JSON (a JSONDecodeError), nested too deeply, or a number is too long.
    """
    if text.count("[") + text.count("{") > MOST_LEVELS and _levels(text) > MOST_LEVELS:
        raise ValueError(f"nested more than {MOST_LEVELS} levels deep")
    return json.loads(text, parse_int=whole_number)


def whole_number(text: str) -> int:
    """The number that `text`, an optional sign and digits, spells.

    Raises:
        ValueError: it has more digits than are read.
    """
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits; at most {MOST_DIGITS} are read")
    return int(text)


def is_too_deep(value: Any, levels: int = MOST_LEVELS) -> bool:
    """Whether lists and records lie in each other more than `levels` deep."""
    layer = [value]
    for _ in range(levels + 1):
        inner: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                inner += item.values()
            elif isinstance(item, list | tuple):
                inner += item
        if not inner:
            return False
        layer = inner
    return True


def _levels(text: str) -> int:
    """How deep brackets lie in each other, those in strings left out; counted no further than needed."""
    depth = most = 0
    for match in _BRACKETS.finditer(text):
        mark = match.group()
        if mark in "[{":
            depth += 1
            most = max(most, depth)
            if most > MOST_LEVELS:
                break
        elif mark in "]}":
            depth -= 1
    return most


def matches_somewhere(pattern: str, text: str) -> bool:
    """Whether a regular expression that came with somebody's data matches anywhere in a text.

    Raises:
        InputError: it takes too long, as (a+)+ may.
    """
    try:
        return regex.search(pattern, text, timeout=SEARCH_S) is not None
    except TimeoutError:
        raise InputError(
            f"the pattern {pattern[:80]!r} takes more than {SEARCH_S:g} s on a text of {len(text):,} "
            "characters: write it without repetitions in repetitions"
        ) from None
