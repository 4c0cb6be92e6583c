"""Texts that match a regular expression, by one walk through its syntax tree; each choice has its turn.

What a text must be for look-around or back-references is not known: such a pattern gives what the rest of it
says, and whoever uses the texts tries them.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from itertools import count
from typing import Any

_parser, _constants = import_module("re._parser"), import_module("re._constants")
_TURNS = 12  # texts made of one pattern
_MORE = 2  # times that something is repeated beyond its least number
_CATEGORIES = {
    "CATEGORY_DIGIT": "7305", "CATEGORY_NOT_DIGIT": "kx-", "CATEGORY_SPACE": " ", "CATEGORY_NOT_SPACE": "k7x",
    "CATEGORY_WORD": "kA7_", "CATEGORY_NOT_WORD": "- ",
}  # fmt: skip
_ANY = "kA7-"
_ALL = [chr(code) for code in range(32, 127)]


def examples(pattern: str) -> Iterator[str]:
    """Distinct texts for a pattern; none where Python cannot read it."""
    try:
        tree = _parser.parse(pattern)
    except (_constants.error, RecursionError, OverflowError):
        return
    seen = set[str]()
    for turn in range(_TURNS):
        text = _of(tree, _Turns(count(turn)))
        if text not in seen:
            seen.add(text)
            yield text


@dataclass(frozen=True, slots=True)
class _Turns:
    """Picks each of some options in turn."""

    places: Iterator[int]

    def __call__(self, options: Any) -> Any:
        return options[next(self.places) % len(options)]


def _of(tree: Any, pick: Callable[[Any], Any]) -> str:
    """A text for a sequence of the parser's nodes."""
    return "".join(_node(str(kind), what, pick) for kind, what in tree)


def _node(kind: str, what: Any, pick: Callable[[Any], Any]) -> str:
    match kind:
        case "LITERAL":
            return chr(what)
        case "NOT_LITERAL":
            return str(pick([c for c in _ANY if ord(c) != what]))
        case "ANY":
            return str(pick(_ANY))
        case "IN":
            return str(pick(_members(what) or " "))
        case "BRANCH":
            return _of(pick(what[1]), pick)
        case "SUBPATTERN" | "ATOMIC_GROUP":
            return _of(what[-1] if kind == "SUBPATTERN" else what, pick)
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            least, most, inner = what
            times = pick(range(int(least), min(int(most), int(least) + _MORE) + 1))
            return "".join(_of(inner, pick) for _ in range(min(times, 200)))
    return ""


def _members(parts: Any) -> list[str]:
    """The characters of a class, the ends of a range first."""
    found: list[str] = []
    negated = False
    for kind, what in parts:
        match str(kind):
            case "NEGATE":
                negated = True
            case "LITERAL":
                found.append(chr(what))
            case "RANGE":
                low, high = what
                found += [chr(low), chr(high), chr((low + high) // 2)]
            case "CATEGORY":
                found += _CATEGORIES.get(str(what), "")
    return [c for c in _ALL if c not in found and c.isalnum()] if negated else found
