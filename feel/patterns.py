"""XPath's regular expressions, translated to those of the package `regex`, which can be stopped after a time.

What XPath does not know (look-around, word boundaries, possessive quantifiers, references to groups that are
not closed) is refused, not read as something else.

Sources: W3C, XQuery 1.0 and XPath 2.0 Functions and Operators, chapter 7.6; XML Schema Part 2, appendix F.
"""

from functools import lru_cache
from typing import Any, NoReturn

import regex

from vertigym.feel.values import FeelError, NoValue

MOST_PATTERN = 5_000  # characters
MOST_ATOMS = 20_000  # characters and classes, each as often as quantities such as {100} repeat it
SECONDS = 2.0  # for one search; then the evaluation ends with an error
_NAME_START = (
    r":A-Z_a-z\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u02FF\u0370-\u037D\u037F-\u1FFF\u200C\u200D\u2070-\u218F"
    + (r"\u2C00-\u2FEF\u3001-\uD7FF\uF900-\uFDCF\uFDF0-\uFFFD")
)
_NAME = _NAME_START + r"\-.0-9\u00B7\u0300-\u036F\u203F\u2040"
_CLASSES = {
    "s": r" \t\n\r",
    "i": _NAME_START,
    "c": _NAME,
    "d": r"\p{Nd}",
}
_PLAIN_ESCAPES = frozenset("nrt\\|.?*+(){}-[]^$")
_PROPERTY = regex.compile(r"\{(Is[A-Za-z0-9-]+|[LMNPZSC][a-z]?)\}")


def search(pattern: str, flags: str | None, text: str) -> bool:
    """Whether the pattern matches anywhere in the text."""
    return timed(compiled(pattern, flags or "").search, text) is not None


def timed(method: Any, *arguments: Any) -> Any:
    """A compiled pattern's method, stopped when it takes too long.

    Raises:
        FeelError: it does.
    """
    try:
        return method(*arguments, timeout=SECONDS)
    except TimeoutError:
        raise FeelError(f"a regular expression takes more than {SECONDS:g} seconds on a text") from None


@lru_cache(maxsize=256)
def compiled(pattern: str, flags: str) -> "regex.Pattern[str]":
    """A pattern with XPath's flags `s m i x`.

    Raises:
        NoValue: the pattern or a flag is none of XPath's.
    """
    if not set(flags) <= set("smix"):
        raise NoValue(f"flags {flags!r}: only s, m, i and x are known")
    if len(pattern) > MOST_PATTERN:
        raise NoValue(f"a pattern of {len(pattern)} characters; at most {MOST_PATTERN} are read")
    text = _Translation(pattern, flags).text()
    try:
        return regex.compile(text, regex.VERSION1 | regex.UNICODE | (regex.IGNORECASE if "i" in flags else 0))
    except (regex.error, RecursionError, OverflowError) as error:
        raise NoValue(f"pattern {pattern[:60]!r}: {error}") from None


class _Translation:
    """One walk through a pattern."""

    def __init__(self, pattern: str, flags: str) -> None:
        self.pattern = _without_spaces(pattern) if "x" in flags else pattern
        self.flags = flags
        self.at = 0
        self.groups: list[int] = []  # open groups; 0 for one that is not counted
        self.opened = 0
        self.closed: set[int] = set()
        self.sizes = [0]  # atoms of each open group, outermost first
        self.last = 0  # atoms of what a quantifier would repeat

    def text(self) -> str:
        """The translated pattern."""
        found = []
        while self.at < len(self.pattern):
            found.append(self._next())
        return "".join(found)

    def _next(self) -> str:
        character = self._take()
        if character not in "()|*+?{":
            self._grow(1)
        match character:
            case "\\":
                return self._escape(in_class=False)
            case "[":
                return self._class()
            case "(":
                return self._open()
            case ")":
                return self._close()
            case "." if "s" in self.flags:
                return r"[\s\S]"
            case ".":
                return r"[^\n\r]"
            case "^":
                return r"(?:\A|(?<=\n)(?!\Z))" if "m" in self.flags else r"\A"
            case "$":
                return r"(?=\n|\Z)" if "m" in self.flags else r"\Z"
            case "]" | "}":
                self._fail(f"{character!r} without its opening bracket")
            case "*" | "+" | "?" | "{":
                return self._quantifier(character)
        return regex.escape(character) if character not in "|" else character

    def _take(self) -> str:
        if self.at >= len(self.pattern):
            self._fail("it ends too early")
        self.at += 1
        return self.pattern[self.at - 1]

    def _fail(self, message: str) -> NoReturn:
        raise NoValue(f"pattern {self.pattern[:60]!r}: {message}")

    def _quantifier(self, character: str) -> str:
        if character == "{":
            match = regex.compile(r"([0-9]{1,4})(,([0-9]{1,4})?)?\}").match(self.pattern, self.at)
            if not match:
                self._fail("a quantity is written {n}, {n,} or {n,m}, with at most four digits")
            self.at = match.end()
            character += match[0]
            most = max(int(match[1]), int(match[3] or 0))
            self.sizes[-1] -= self.last
            self._grow(self.last * max(most, 1))
        if self.pattern.startswith("?", self.at):
            self.at += 1
            character += "?"
        if self.pattern.startswith(("*", "+", "?", "{"), self.at):
            self._fail("one quantifier after another")
        return character

    def _grow(self, atoms: int) -> None:
        self.last = atoms
        self.sizes[-1] += atoms
        if self.sizes[-1] > MOST_ATOMS:
            self._fail(f"with its quantities it is more than {MOST_ATOMS} characters long")

    def _close(self) -> str:
        if not self.groups:
            self._fail("')' without its opening bracket")
        self.closed.add(self.groups.pop())
        inner = self.sizes.pop()
        self._grow(inner)
        return ")"

    def _open(self) -> str:
        self.sizes.append(0)
        if self.pattern.startswith("?", self.at):
            if not self.pattern.startswith("?:", self.at):
                self._fail("of groups with (? only (?: is known")
            self.at += 2
            self.groups.append(0)
            return "(?:"
        self.opened += 1
        self.groups.append(self.opened)
        return "("

    def _escape(self, *, in_class: bool) -> str:
        character = self._take()
        if character in _PLAIN_ESCAPES:
            return "\\" + character
        if character.lower() in _CLASSES:
            inner = _CLASSES[character.lower()]
            if character.islower():
                return inner if in_class else f"[{inner}]"
            return f"[^{inner}]"
        if character in "wW":
            return r"[^\p{P}\p{Z}\p{C}]" if character == "w" else r"[\p{P}\p{Z}\p{C}]"
        if character in "pP":
            return self._property(character)
        if character in "123456789" and not in_class:
            return self._reference(character)
        self._fail(f"\\{character} is not known{' in a class' * in_class}")
        return ""

    def _property(self, letter: str) -> str:
        match = _PROPERTY.match(self.pattern, self.at)
        if not match:
            self._fail(f"a category is written \\{letter}{{Lu}} or \\{letter}{{IsBasicLatin}}")
        self.at = match.end()
        name = match[1]
        return f"\\{letter}{{{'In' + name[2:] if name.startswith('Is') else name}}}"

    def _reference(self, digits: str) -> str:
        """`\\N`: as many digits as make the number of a group that has been opened."""
        while self.at < len(self.pattern) and self.pattern[self.at].isdigit():
            if int(digits + self.pattern[self.at]) > self.opened:
                break
            digits += self._take()
        if int(digits) not in self.closed:
            self._fail(f"\\{digits} refers to no group that is closed before it")
        return f"(?:\\{digits})"

    def _class(self) -> str:
        """`[…]`, `[^…]`, `[…-[…]]`."""
        negated = self.pattern.startswith("^", self.at)
        self.at += negated
        parts: list[str] = []
        minus = ""
        while (character := self._take()) != "]":
            if character == "[":
                self._fail("'[' in a class, where it is written \\[")
            if character == "-" and self.pattern.startswith("[", self.at) and parts:
                self.at += 1
                minus = self._class()
                if self._take() != "]":
                    self._fail("something after a class that is taken away")
                break
            parts.append(self._in_class(character))
        if not parts:
            self._fail("an empty class")
        whole = f"[{'^' * negated}{''.join(parts)}]"
        return f"[{whole}--{minus}]" if minus else whole

    def _in_class(self, character: str) -> str:
        if character == "\\":
            return self._escape(in_class=True)
        if character == "-":
            first = self.pattern[self.at - 2] == "[" or self.pattern[self.at - 2 : self.at - 1] == "^"
            last = self.pattern.startswith(("]", "-["), self.at)
            return "\\-" if first or last else "-"
        return "\\" + character if character in "&~|^[" else character


def _without_spaces(pattern: str) -> str:
    """A pattern without its white space, that in classes kept."""
    found, depth, escaped = [], 0, False
    for character in pattern:
        if escaped and not character.isspace():
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == "[":
            depth += 1
        elif character == "]":
            depth -= 1
        if depth or character not in " \t\n\r":
            found.append(character)
    return "".join(found)
