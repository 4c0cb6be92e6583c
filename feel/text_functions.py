"""String functions. Positions count characters, not UTF-16 units.

Source: OMG Decision Model and Notation 1.5, table 70.
"""

from decimal import Decimal

import regex

from vertigym.feel.patterns import compiled, search, timed
from vertigym.feel.signatures import builtin
from vertigym.feel.values import MOST_CHARACTERS, FeelError, NoValue, Value

_REPLACEMENT = regex.compile(r"\\([\\$])|\$([0-9]+)|([\\$])")


@builtin("substring(string: string, start position: number, length?: number)")
def _substring(string: str, start: Decimal, length: Decimal | None = None) -> Value:
    if not 1 <= abs(start) < len(string) + 1:
        raise NoValue(f"position {start} in a string of {len(string)} characters")
    if length is not None and length < 1:
        raise NoValue(f"a length of {length}")
    first = int(start) - 1 if start > 0 else len(string) + int(start)
    return string[first:] if length is None else string[first : first + int(length)]


@builtin("string length(string: string)")
def _string_length(string: str) -> Value:
    return Decimal(len(string))


@builtin("upper case(string: string)")
def _upper_case(string: str) -> Value:
    return string.upper()


@builtin("lower case(string: string)")
def _lower_case(string: str) -> Value:
    return string.lower()


@builtin("substring before(string: string, match: string)")
def _substring_before(string: str, match: str) -> Value:
    return string.partition(match)[0] if match and match in string else ""


@builtin("substring after(string: string, match: string)")
def _substring_after(string: str, match: str) -> Value:
    if not match:
        return string
    return string.partition(match)[2]


@builtin("contains(string: string, match: string)")
def _contains(string: str, match: str) -> Value:
    return match in string


@builtin("starts with(string: string, match: string)")
def _starts_with(string: str, match: str) -> Value:
    return string.startswith(match)


@builtin("ends with(string: string, match: string)")
def _ends_with(string: str, match: str) -> Value:
    return string.endswith(match)


@builtin("matches(input: string, pattern: string, flags?: string?)")
def _matches(text: str, pattern: str, flags: str | None = None) -> Value:
    return search(pattern, flags, text)


@builtin("replace(input: string, pattern: string, replacement: string, flags?: string?)")
def _replace(text: str, pattern: str, replacement: str, flags: str | None = None) -> Value:
    found = _not_empty(compiled(pattern, flags or ""), pattern)
    parts = _replacement_parts(replacement, found.groups)
    longest = sum(len(part) if isinstance(part, str) else len(text) for part in parts)
    if longest * (len(text) + 1) > MOST_CHARACTERS:
        matches = len(timed(found.findall, text))
        if longest * matches > MOST_CHARACTERS:
            raise FeelError(f"replace makes a string of more than {MOST_CHARACTERS} characters")

    def filled(match: "regex.Match[str]") -> str:
        return "".join(part if isinstance(part, str) else match[part] or "" for part in parts)

    return timed(found.sub, filled, text)  # type: ignore[no-any-return]


@builtin("split(string: string, delimiter: string)")
def _split(string: str, delimiter: str) -> Value:
    found = _not_empty(compiled(delimiter, ""), delimiter)
    parts, last = [], 0
    for match in timed(found.finditer, string):
        parts.append(string[last : match.start()])
        last = match.end()
    return [*parts, string[last:]]


@builtin("string join(list: list<string>, delimiter?: string?)")
def _string_join(items: list[str | None], delimiter: str | None = None) -> Value:
    texts = [item for item in items if item is not None]
    if sum(map(len, texts)) + len(texts) * len(delimiter or "") > MOST_CHARACTERS:
        raise FeelError(f"string join makes a string of more than {MOST_CHARACTERS} characters")
    return (delimiter or "").join(texts)


def _not_empty(found: "regex.Pattern[str]", pattern: str) -> "regex.Pattern[str]":
    if timed(found.search, "") is not None:
        raise NoValue(f"pattern {pattern[:60]!r} matches an empty string")
    return found


def _replacement_parts(replacement: str, groups: int) -> list[str | int]:
    """A replacement's texts and the numbers of groups between them."""
    parts: list[str | int] = []
    last = 0
    for match in _REPLACEMENT.finditer(replacement):
        parts.append(replacement[last : match.start()])
        last = match.end()
        if match[3]:
            raise NoValue(f"replacement {replacement[:60]!r}: a lone {match[3]}; write \\{match[3]}")
        if match[1]:
            parts.append(match[1])
            continue
        digits = match[2]
        while len(digits) > 1 and int(digits) > groups:
            digits = digits[:-1]
        parts += [int(digits)] if int(digits) <= groups else []
        parts.append(match[2][len(digits) :])
    return [*parts, replacement[last:]]
