"""The rule engine's expression language, as far as sampling needs it: names, literals, and the clock.

Nothing is evaluated here (the engine does that). An expression is cut into *atoms*, the parts between `and`,
`or`, `?`, `:` and `,`; inside one atom, every literal is a value worth trying for every name:

    customer.age >= 65 and plan in ['gold', 'basic']
    └── names customer.age, numbers 65     └── names plan, strings gold, basic
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from vertigym.core.bounds import MOST_DIGITS, MOST_LEVELS

Wrapper = Literal["", "case", "len", "count", "date", "text", "pattern", "split", "member"]

_TOKEN = re.compile(
    r"""
    (?P<string>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`)
  | (?P<number>\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)
  | (?P<name>[$#A-Za-z_][\w$]*(?:\??\.[A-Za-z_$][\w$]*)*)
  | (?P<op>\?\?|\.\.|&&|\|\||[<>=!]=|\S)
    """,
    re.VERBOSE,
)
_MOST = 2.0**63  # a larger number is no value that a field could have
_TEMPLATE = re.compile(r"\$\{([^}]*)\}")
_BREAKS = {"and", "or", "&&", "||", "?", ":", ",", ";"}
_WORDS = {"and", "or", "not", "in", "true", "false", "null"}
_COMPARISONS = {"<", ">", "<=", ">=", "==", "!=", "in", "and", "or", "?"}
_DATE_CALLS = {
    "d", "date", "dateString", "time", "year", "month", "monthOfYear", "weekOfYear", "dayOfYear", "dayOfMonth",
    "dayOfWeek", "day", "startOf", "endOf", "dayString", "weekdayString", "monthString",
}  # fmt: skip
_WRAPPERS: dict[str, Wrapper] = {
    **dict.fromkeys(("lower", "upper", "trim"), "case"),
    "len": "len",
    **dict.fromkeys(_DATE_CALLS, "date"),
    **dict.fromkeys(("contains", "startsWith", "endsWith", "fuzzyMatch"), "text"),
    "matches": "pattern",
    "extract": "pattern",
    "split": "split",
    **dict.fromkeys(("some", "all", "none", "one", "filter", "map", "count", "flatMap", "sum"), "member"),
}

_MOST_CHARACTERS = 100_000
_BRACKETS = re.compile(r"[\[\](){}]")
_LONG_NUMBER = re.compile(rf"[\d_]{{{MOST_DIGITS + 1}}}")
_LONG_NAME = re.compile(rf"(?<![\w$])(?:[\w$]++\??\.){{{MOST_LEVELS}}}")
_CLOCK = re.compile(rf"\b(?:{'|'.join(sorted(_DATE_CALLS))})\s*\(\s*(['\"`])now\1")
_CLOCK_BARE = re.compile(r"(?<![\w$.])d\(\s*\)")
_CHANCE = re.compile(r"(?<![\w$.])rand\s*\(")
_SCRIPT_CLOCK = re.compile(
    r"Date\.now\b|new\s+Date\s*\(\s*\)|\b(?:dayjs|moment)\s*\(\s*\)|\bMath\.random\b|\bperformance\.now\b"
)


@dataclass(frozen=True, slots=True)
class Token:
    """`kind` is string, number, name or op, in atoms also list, a name after `in`; a string's `text` has lost
    its quotes."""

    kind: str
    text: str


@dataclass(slots=True)
class Atom:
    """Names (with the call around each: `len(x)` -> `len`) and the literals found beside them.

    `compares`: a comparison stands in it; `open`: it begins with one (`> 3`), so its left side is elsewhere;
    `scales`: it multiplies or divides, so its literals are not of the size of what it names; `joins`: it adds,
    texts perhaps; `offsets` are seconds of the durations in it.
    """

    names: list[tuple[str, Wrapper]] = field(default_factory=list)
    numbers: list[float] = field(default_factory=list)
    strings: list[str] = field(default_factory=list)
    dates: list[str] = field(default_factory=list)
    booleans: bool = False
    null: bool = False
    compares: bool = False
    open: bool = False
    scales: bool = False
    joins: bool = False
    offsets: list[float] = field(default_factory=list)


@lru_cache(maxsize=4096)
def tokens(expression: str) -> tuple[Token, ...]:
    """The expression's tokens, with signs and products of numbers folded into one number (`60 * 60`); a
    character that fits nowhere becomes an `op`."""
    found: list[Token] = []
    for match in _TOKEN.finditer(expression):
        kind = match.lastgroup or "op"
        text = match.group()
        if kind == "string":
            found.append(Token(kind, text[1:-1]))
        elif kind == "number":
            value = float(text.replace("_", ""))
            _fold(found, value) if value < _MOST else found.append(Token("op", text))
        else:
            found.append(Token(kind, text.replace("?.", ".") if kind == "name" else text))
    return tuple(found)


def _fold(found: list[Token], value: float) -> None:
    """Append a number to `found`, or merge it with a sign or a factor that stands before it."""
    before = found[-2].kind if len(found) > 1 else "op"
    last = found[-1].text if found and found[-1].kind == "op" else ""
    if last == "-" and before == "op" and (len(found) < 2 or found[-2].text not in ")]"):
        found.pop()
        value = -value
    elif last == "*" and before == "number":
        found.pop()
        value *= float(found.pop().text)
    found.append(Token("number", repr(value)))


def atoms(expression: str) -> list[Atom]:
    """The expression's atoms; what a back-quoted template names comes as further atoms."""
    found = list(_atoms(_lists_marked(tokens(expression))))
    for inner in _TEMPLATE.findall(expression):
        found += _atoms(_lists_marked(tokens(inner)))
    return [a for a in found if a.names or a.numbers or a.strings or a.dates or a.booleans or a.null]


def _lists_marked(stream: Sequence[Token]) -> Sequence[Token]:
    """The tokens, where a field that something is looked for in is a list."""
    last = Token("op", "")
    return [
        Token("list", token.text)
        if before.text == "in" and token.kind == "name" and token.text[0] not in "#$" and after.text != "("
        else token
        for before, token, after in zip((last, *stream), stream, (*stream[1:], last), strict=False)
    ]


def _atoms(stream: Sequence[Token]) -> Iterator[Atom]:
    """Cut `stream` at its breaks; conditions inside brackets and calls are atoms of their own."""
    atom, nested = Atom(), list[Sequence[Token]]()
    for token, group in _groups(stream):
        if group is None and token.text in _BREAKS and token.kind in ("op", "name"):
            yield atom
            atom = Atom()
        else:
            nested += _read(token, group, "", atom)
    yield atom
    for inner in nested:
        yield from _atoms(inner)


def _groups(stream: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token] | None]]:
    """Each token with None, or an opening bracket (for a call: its name) with the tokens it encloses."""
    at = 0
    while at < len(stream):
        token = stream[at]
        is_call = token.kind == "name" and token.text not in _WORDS
        opening = at + 1 if is_call and at + 1 < len(stream) and stream[at + 1].text == "(" else at
        if stream[opening].kind == "op" and stream[opening].text in "([{":
            end = _closing(stream, opening)
            yield token, stream[opening + 1 : end]
            at = end + 1
        else:
            yield token, None
            at += 1


def _read(token: Token, group: Sequence[Token] | None, wrapper: Wrapper, atom: Atom) -> list[Sequence[Token]]:
    """Put a token, or a bracket with all it encloses, into `atom`; give back the conditions found inside."""
    if group is None:
        _note(token, wrapper, atom)
        return []
    if token.kind == "op" and (token.text == "{" or any(t.text in _COMPARISONS for t in group)):
        return [group]
    if token.text in _DATE_CALLS and group and group[0].kind == "string":
        atom.dates.append(group[0].text)
        return []
    inside = within(wrapper, _WRAPPERS.get(token.text, "")) if token.kind == "name" else wrapper
    if inside == "member" and token.kind == "name":
        group = _with_members_named(group)
    conditions = [group] if any(t.text in _COMPARISONS for t in group) else []
    for inner, deeper in _groups(group):
        conditions += _read(inner, deeper, inside, atom)
    return conditions


def within(outer: Wrapper, inner: Wrapper) -> Wrapper:
    """What a call inside another says of its argument: a change of case, less than any other."""
    return outer if inner in ("", "case") and outer else inner


def _with_members_named(group: Sequence[Token]) -> Sequence[Token]:
    """What is called on a list by name: `#` and `#.x` in it are its members, `list[]` and `list[].x`."""
    if len(group) < 2 or group[0].kind != "name" or group[0].text[0] in "#$" or group[1].text != ",":
        return group
    named = (
        Token("name", f"{group[0].text}[]{t.text[1:]}") if t.kind == "name" and t.text[0] == "#" else t
        for t in group
    )
    return tuple(named)


def _note(token: Token, wrapper: Wrapper, atom: Atom) -> None:
    match token.kind:
        case "number":
            atom.numbers.append(float(token.text))
        case "string":
            atom.strings.append(token.text)
        case "name" if token.text in ("true", "false"):
            atom.booleans = True
        case "name" if token.text == "null":
            atom.null = True
        case "list":
            atom.names.append((token.text, "member"))
        case "name" if token.text not in _WORDS:
            atom.names.append((token.text, "" if wrapper == "member" and "[]" in token.text else wrapper))
        case "op" if token.text in _COMPARISONS:
            atom.open |= not atom.names and not atom.compares
            atom.compares = True
        case "op" if token.text in "*/%^":
            atom.scales = True
        case "op" if token.text == "+":
            atom.joins = True


def _closing(stream: Sequence[Token], start: int) -> int:
    depth = 0
    for index in range(start, len(stream)):
        if stream[index].kind == "op":
            depth += (stream[index].text in "([{") - (stream[index].text in ")]}")
            if not depth:
                return index
    return len(stream)


def out_of_bounds(expression: str) -> str:
    """Why an expression is not read, whoever's it is; empty where it is."""
    if len(expression) > _MOST_CHARACTERS:
        return f"{len(expression):,} characters, at most {_MOST_CHARACTERS:,} are read"
    depth = 0
    for match in _BRACKETS.finditer(expression):
        depth += 1 if match.group() in "([{" else -1
        if depth > MOST_LEVELS:
            return f"brackets lie in each other more than {MOST_LEVELS} deep"
    if _LONG_NAME.search(expression):
        return f"a name has more than {MOST_LEVELS} parts"
    return f"a number has more than {MOST_DIGITS} digits" if _LONG_NUMBER.search(expression) else ""


def reads_clock(expression: str) -> bool:
    """Whether the expression asks what time it is."""
    return bool(_CLOCK.search(expression) or _CLOCK_BARE.search(expression))


def is_random(expression: str) -> bool:
    """Whether the expression draws a random number."""
    return bool(_CHANCE.search(expression))


def script_is_impure(source: str) -> bool:
    """Whether a function node's JavaScript reads the clock or draws random numbers."""
    return bool(_SCRIPT_CLOCK.search(source))


def stop_clock(expression: str, now: str) -> str:
    """The expression with every reading of the clock replaced by the instant `now` (ISO 8601)."""
    stopped = _CLOCK.sub(lambda m: m.group().replace("now", now), expression)
    return _CLOCK_BARE.sub(f"d('{now}')", stopped)
