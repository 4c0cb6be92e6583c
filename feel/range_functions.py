"""Relations between points and ranges. An end that is open to infinity lies beyond every value.

Source: OMG Decision Model and Notation 1.5, table 78.
"""

import re
from dataclasses import dataclass

from vertigym.feel.lexer import string_value
from vertigym.feel.operators import compare, order
from vertigym.feel.signatures import BUILT_INS, builtin
from vertigym.feel.temporal_text import temporal
from vertigym.feel.values import NoValue, Range, Value, number

_LITERAL = re.compile(
    r"\s*(?P<open>[\[(\]])\s*(?P<low>.*?)\s*\.\.\s*(?P<high>.*?)\s*(?P<close>[\])\[])\s*", re.DOTALL
)
_END = re.compile(
    r"""(?P<number>-?(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+))
    |(?:(?P<function>@|(?:date|time|date\ and\ time|duration)\s*\()\s*)?
    (?P<string>"(?:[^"\\]|\\.)*")(?:\s*\))?""",
    re.VERBOSE | re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class End:
    """One end of a range. `beyond`: -1 or 1 where it is open to infinity, on that side."""

    value: Value
    closed: bool
    beyond: int = 0

    def against(self, other: "End") -> int:
        """Below 0, 0 or above 0, as this end's value comes before, with or after the other's."""
        if self.beyond or other.beyond:
            return self.beyond - other.beyond
        return order(self.value, other.value)


def _low(ends: Range) -> End:
    return End(ends.low, ends.low_closed, -1 if ends.low is None else 0)


def _high(ends: Range) -> End:
    return End(ends.high, ends.high_closed, 1 if ends.high is None else 0)


def _range(value: Value) -> Range:
    """A point as the range that holds only it."""
    return value if isinstance(value, Range) else Range(value, value, True, True)


def _touching(left: End, right: End) -> bool:
    return left.closed and right.closed


@builtin("before(range1: range, range2: range)", "before(range: range, point: Any)")
@builtin("before(point: Any, range: range)", "before(point1: Any, point2: Any)")
def _before(first: Value, second: Value) -> bool:
    end, start = _high(_range(first)), _low(_range(second))
    way = end.against(start)
    return way < 0 or (way == 0 and not _touching(end, start))


@builtin("after(range1: range, range2: range)", "after(range: range, point: Any)")
@builtin("after(point: Any, range: range)", "after(point1: Any, point2: Any)")
def _after(first: Value, second: Value) -> bool:
    return _before(second, first)


@builtin("meets(range1: range, range2: range)")
def _meets(first: Range, second: Range) -> bool:
    end, start = _high(first), _low(second)
    return end.against(start) == 0 and _touching(end, start)


@builtin("met by(range1: range, range2: range)")
def _met_by(first: Range, second: Range) -> bool:
    return _meets(second, first)


@builtin("overlaps(range1: range, range2: range)")
def _overlaps(first: Range, second: Range) -> bool:
    return not _before(first, second) and not _before(second, first)


@builtin("overlaps before(range1: range, range2: range)")
def _overlaps_before(first: Range, second: Range) -> bool:
    way = _low(first).against(_low(second))
    starts_before = way < 0 or (way == 0 and first.low_closed and not second.low_closed)
    return starts_before and not _before(first, second) and _ends_within(first, second)


@builtin("overlaps after(range1: range, range2: range)")
def _overlaps_after(first: Range, second: Range) -> bool:
    return _overlaps_before(second, first)


@builtin("includes(range1: range, range2: range)", "includes(range: range, point: Any)")
def _includes(outer: Range, inner: Value) -> bool:
    part = _range(inner)
    return _starts_within(part, outer) and _ends_within(part, outer)


@builtin("during(range1: range, range2: range)", "during(point: Any, range: range)")
def _during(inner: Value, outer: Range) -> bool:
    return _includes(outer, inner)


@builtin("finishes(range1: range, range2: range)", "finishes(point: Any, range: range)")
def _finishes(part: Value, whole: Range) -> bool:
    inner = _range(part)
    same = _high(inner).against(_high(whole)) == 0 and inner.high_closed == whole.high_closed
    return same and (not isinstance(part, Range) or _starts_within(inner, whole))


@builtin("finished by(range1: range, range2: range)", "finished by(range: range, point: Any)")
def _finished_by(whole: Range, part: Value) -> bool:
    return _finishes(part, whole)


@builtin("starts(range1: range, range2: range)", "starts(point: Any, range: range)")
def _starts(part: Value, whole: Range) -> bool:
    inner = _range(part)
    same = _low(inner).against(_low(whole)) == 0 and inner.low_closed == whole.low_closed
    return same and (not isinstance(part, Range) or _ends_within(inner, whole))


@builtin("started by(range1: range, range2: range)", "started by(range: range, point: Any)")
def _started_by(whole: Range, part: Value) -> bool:
    return _starts(part, whole)


@builtin("coincides(range1: range, range2: range)")
def _coincides(first: Range, second: Range) -> bool:
    closed = (first.low_closed, first.high_closed) == (second.low_closed, second.high_closed)
    return closed and _low(first).against(_low(second)) == 0 == _high(first).against(_high(second))


@builtin("coincides(point1: Any, point2: Any)")
def _coincide(first: Value, second: Value) -> Value:
    return compare("=", first, second)


@builtin("range(from: string)")
def _range_from(spelled: str) -> Value:
    """`[18..21)`; an end that is left out, with a bracket that excludes it, is open to infinity."""
    match = _LITERAL.fullmatch(spelled)
    if not match:
        raise NoValue(f"{spelled[:60]!r} is no range ([low..high])")
    low, high = (_end(text) for text in (match["low"], match["high"]))
    low_closed, high_closed = match["open"] == "[", match["close"] == "]"
    if (low is None and (low_closed or high is None)) or (high is None and high_closed):
        raise NoValue(f"{spelled[:60]!r}: an end that is left out is excluded, and the other end is given")
    if low is not None and high is not None and order(low, high) > 0:
        raise NoValue(f"{spelled[:60]!r}: its ends are in the wrong order")
    return Range(low, high, low_closed, high_closed)


def _end(spelled: str) -> Value:
    """A number, string, `@"…"`, or `date("…")` and such."""
    match = _END.fullmatch(spelled)
    if not spelled or spelled == "null":
        return None
    if not match:
        raise NoValue(f"{spelled[:60]!r} is neither a literal nor a date, time or duration")
    if match["number"]:
        return number(match["number"])
    literal = string_value(match["string"])
    function = (match["function"] or "").rstrip("( ")
    if function in ("", "@"):
        return temporal(literal) if function else literal
    run, values = BUILT_INS[function].bind([literal], ())
    return run(*values)


def _starts_within(inner: Range, outer: Range) -> bool:
    way = _low(inner).against(_low(outer))
    return way > 0 or (way == 0 and (outer.low_closed or not inner.low_closed))


def _ends_within(inner: Range, outer: Range) -> bool:
    way = _high(inner).against(_high(outer))
    return way < 0 or (way == 0 and (outer.high_closed or not inner.high_closed))
