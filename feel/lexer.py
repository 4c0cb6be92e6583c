"""FEEL's text as lexemes, and the names in scope, which decide where a name ends.

A FEEL name may hold spaces and operators (`Applicant Age`, `a-b`), so no grammar can read it without the names
in scope. A name is therefore a *sequence of lexemes*: the parser asks at each place for the longest known name.
A parser of `lark` (PyPI) would need its lexer replaced by this one, and rules that know whether `[` opens
a filter or closes a range; precedence climbing by hand is shorter. Of the FEEL packages in reach, `bkflow-feel`
1.2 (PyPI) has no `if`, `for`, durations or names with spaces; `@bpmn-io/feelin` 6.1 (npm) needs JavaScript.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.1.2, rules 26 to 31.
"""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from vertigym.feel.values import FeelError

MOST_TEXT = 100_000  # characters of one expression
KEYWORDS = frozenset(
    [
        "and",
        "or",
        "in",
        "between",
        "instance",
        "of",
        "then",
        "else",
        "return",
        "satisfies",
        "external",
        "if",
        "for",
        "some",
        "every",
        "function",
    ]
)
_START = (
    "?A-Z_a-z\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u02ff\u0370-\u037d\u037f-\u167f\u1681-\u180d\u180f-\u1fff\u200c-\u200d"
    "\u2070-\u218f\u2c00-\u2fef\u3001-\ud7ff\uf900-\ufdcf\ufdf0-\ufefe\uff00-\ufffd\U00010000-\U000effff"
)
_LEXEME = re.compile(
    rf"""(?P<space>(?:[\s\u180e\u200b\ufeff]|//[^\n]*|/\*.*?\*/)+)
    |(?P<number>(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][+-]?[0-9]+(?![{_START}0-9]))?)
    |(?P<string>"(?:[^"\\]|\\.)*")
    |(?P<name>[{_START}][{_START}0-9\u00b7\u0300-\u036f\u203f-\u2040]*)
    |(?P<symbol>\*\*|\.\.|<=|>=|!=|->|.)""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{6})|(.))", re.DOTALL)
_PLAIN = {"n": "\n", "r": "\r", "t": "\t", "'": "'", '"': '"', "\\": "\\"}


@dataclass(frozen=True, slots=True)
class Lexeme:
    """A number, string, name (one word) or symbol; `end` closes the text. `gap`: white space lies before it."""

    kind: str
    text: str
    start: int
    gap: bool


def lexemes(text: str) -> list[Lexeme]:
    """The text's lexemes, comments and white space left out.

    Raises:
        FeelError: the text is too long, or a string or comment does not end.
    """
    if len(text) > MOST_TEXT:
        raise FeelError(f"a FEEL text of {len(text)} characters; at most {MOST_TEXT} are read")
    found, gap = [], False
    for match in _LEXEME.finditer(text):
        kind, word = match.lastgroup or "", match.group()
        if kind == "space":
            gap = True
            continue
        if word == '"' or text.startswith("/*", match.start()):
            raise syntax_error(text, match.start(), "a string or comment that does not end")
        found.append(Lexeme(kind, word, match.start(), gap))
        gap = False
    return [*found, Lexeme("end", "", len(text), gap)]


def syntax_error(text: str, position: int, message: str) -> FeelError:
    """What is wrong, where, and the text around it."""
    around = text[max(0, position - 30) : position + 30]
    return FeelError(f"not FEEL: {message} at character {position + 1}, near {around!r}")


def string_value(literal: str) -> str:
    """What a string literal spells. A backslash before another character stays: patterns are full of them."""
    plain = _ESCAPE.sub(_unescaped, literal[1:-1])
    try:  # two escapes may spell one character beyond the first 65,536
        return plain.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        return plain


def _unescaped(match: re.Match[str]) -> str:
    digits = match[1] or match[2]
    if digits:
        return chr(int(digits, 16)) if int(digits, 16) <= 0x10FFFF else match[0]
    return _PLAIN.get(match[3], match[0])


@lru_cache(maxsize=10_000)
def _words(name: str) -> tuple[str, ...]:
    """A name's words; none where it holds quotes or a comment, as only a context's key can."""
    return (
        ()
        if any(mark in name for mark in ('"', "//", "/*"))
        else tuple(lexeme.text for lexeme in lexemes(name)[:-1])
    )


class Names:
    """The names in scope at a place of the text, as sequences of words."""

    def __init__(self, names: Iterable[str], around: "Names | None" = None) -> None:
        outer = around._layers if around else []
        self._layers: list[dict[tuple[str, ...], str]] = [*outer, {}]
        self._longest: int = around._longest if around else 1
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Brings a name into the innermost scope."""
        words = _words(name)
        self._longest = max(self._longest, len(words))
        self._layers[-1][words] = name

    @contextmanager
    def scope(self, names: Iterable[str] = ()) -> Iterator[None]:
        """Names that hold until the block ends, and those that are added in it."""
        self._layers.append({})
        for name in names:
            self.add(name)
        try:
            yield
        finally:
            self._layers.pop()

    def longest(self, found: list[Lexeme], at: int) -> tuple[str, int] | None:
        """The longest name that starts at a place, and how many lexemes it takes."""
        words = tuple(lexeme.text for lexeme in found[at : at + self._longest])
        for length in range(len(words), 0, -1):
            for layer in reversed(self._layers):
                if name := layer.get(words[:length]):
                    return name, length
        return None


def spelled(found: list[Lexeme]) -> str:
    """A name as its lexemes spell it, one space for each gap."""
    return "".join(f"{' ' * (lexeme.gap and index > 0)}{lexeme.text}" for index, lexeme in enumerate(found))
