"""What stands in a model's reply: strict JSON and Markdown fences, each read in time linear in the text.

JSON means JSON: no NaN, no Infinity, no key twice, no number that a float cannot hold or that is absurdly long.
"""

import json
import math
import re
from typing import Any

MAX_CHARS = 100_000
_MAX_DIGITS = 40
_FENCE = "```"
_THOUGHT = "</think>"
_OPENING = re.compile(r"(`{3,}|~{3,})[ \t]*([\w+-]*)")


def strict_json(text: str, limit: int = MAX_CHARS) -> Any:
    """The JSON value that `text` is.

    Raises:
        ValueError: it is none, longer than `limit` characters, or nested too deeply (says which).
    """
    if len(text) > limit:
        raise ValueError(f"longer than {limit:,} characters")
    try:
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def json_in(reply: str) -> Any:
    """The JSON value in a reply: bare, or in a Markdown fence with any text around it (the last fence counts).
    What stands before the first `</think>` is not read.

    Raises:
        ValueError: there is none, or more than `MAX_CHARS` of text (says which).
    """
    if len(reply) > MAX_CHARS:
        raise ValueError(f"longer than {MAX_CHARS:,} characters")
    text = reply.strip()
    if _THOUGHT in text and not _is_json(text):  # the tag may stand in a text of the answer, too
        text = text.partition(_THOUGHT)[2].strip()
    if not text:
        raise ValueError("empty")
    if text[0] not in "{[" and _FENCE in text:
        text = _last_fence(text)
    return strict_json(text)


def _is_json(text: str) -> bool:
    try:
        strict_json(text)
    except ValueError:
        return False
    return True


def fences(text: str) -> list[tuple[str, str]]:
    """(language, body) of every Markdown fence that starts a line; the last may be open."""
    found, lines, at = list[tuple[str, str]](), text.split("\n"), 0
    while at < len(lines) - 1:
        opening = _OPENING.match(lines[at])
        at += 1
        if opening is None:
            continue
        marker, language = opening.groups()
        end = next((i for i in range(at, len(lines)) if lines[i].rstrip(" \t") == marker), len(lines))
        body = "\n".join(lines[at:end])
        found.append((language.lower(), body + "\n" if at < end < len(lines) else body))
        at = end + 1
    return found


def _last_fence(text: str) -> str:
    """What stands in the last complete fence, which need not start a line."""
    end = text.rfind(_FENCE)
    start = text.rfind(_FENCE, 0, end)
    if start < 0:
        raise ValueError("an open fence")
    inner = text[start + len(_FENCE) : end].strip()
    return inner.removeprefix("json").strip()


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"a number of more than {_MAX_DIGITS} digits")
    return int(digits)


def _fraction(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("a number out of range")
    return value


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key twice")
    return table


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_int=_integer, parse_float=_fraction, parse_constant=_constant
)
