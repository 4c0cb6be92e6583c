"""A place in the lexemes of a FEEL text: look, accept, expect; and the rules for names and types."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import NoReturn

from vertigym.feel.feel_types import DEFINED, FeelType
from vertigym.feel.lexer import KEYWORDS, Lexeme, Names, lexemes, spelled, syntax_error
from vertigym.feel.values import FeelError

MOST_NESTED = 64  # brackets, lists, functions in each other
_TYPE_NAMES = Names(DEFINED)


class Cursor:
    """The text, how far it has been read, and the names in scope there."""

    def __init__(self, text: str, names: Collection[str], known: Names | None = None) -> None:
        self.text = text
        self.lexemes = lexemes(text)
        self.at = 0
        self.names = Names(names, known)
        self.keys = Names(names, known)  # names of fields that the text gives: what may follow a dot
        self._depth = 0
        self.filters = 0  # inside how many filters, where the fields of contexts are names

    @property
    def next(self) -> Lexeme:
        """The lexeme to be read."""
        return self.lexemes[self.at]

    def after(self, steps: int = 1) -> Lexeme:
        """A lexeme further on."""
        return self.lexemes[min(self.at + steps, len(self.lexemes) - 1)]

    def is_next(self, *words: str) -> bool:
        """Whether the next lexeme is one of these symbols or keywords."""
        return self.next.text in words and self.next.kind in ("symbol", "name")

    def accept(self, *words: str) -> str | None:
        """The next lexeme's text, read, if it is one of these."""
        if not self.is_next(*words):
            return None
        self.at += 1
        return self.lexemes[self.at - 1].text

    def expect(self, *words: str) -> str:
        """As `accept`, and an error otherwise."""
        found = self.accept(*words)
        return found if found else self.fail(f"expected {' or '.join(map(repr, words))}")

    def fail(self, message: str = "") -> NoReturn:
        """Raises FeelError: what was expected, and what came."""
        came = f"unexpected {self.next.text!r}" if self.next.text else "the text ends"
        raise syntax_error(self.text, self.next.start, f"{came}{', ' * bool(message)}{message}")

    @contextmanager
    def nested(self) -> Iterator[None]:
        """One level deeper; too many are refused."""
        self._depth += 1
        if self._depth > MOST_NESTED:
            raise FeelError(f"a FEEL text nested more than {MOST_NESTED} levels deep")
        yield
        self._depth -= 1

    def declared(self, *ends: str) -> str:
        """A name that the text declares: all up to one of `ends`."""
        start = self.at
        while not self.is_next(*ends) and self.next.kind in ("name", "number", "symbol"):
            if self.next.text in '()[]{},:@"<>':
                break
            self.at += 1
        if start == self.at or self.lexemes[start].kind != "name":
            self.fail("a name is expected")
        return spelled(self.lexemes[start : self.at])

    def known_name(self, *, field: bool = False) -> tuple[str, int] | None:
        """The longest known name that comes next and how many lexemes it takes; a `field`'s after a dot."""
        name = None if field else self.names.longest(self.lexemes, self.at)
        key = self.keys.longest(self.lexemes, self.at) if field or self.filters else None
        return key if key and (not name or key[1] > name[1]) else name

    def name(self, *, field: bool = False) -> str:
        """A name that the text uses: the longest known one, or else all words that stand beside each other."""
        start = self.at
        match = self.known_name(field=field)
        if match and match[1] > 1:
            self.at += match[1]
            return match[0]
        if self.next.kind != "name":
            self.fail("a name is expected")
        self.at += 1
        while self.next.kind in ("name", "number") and self.next.gap and self.next.text not in KEYWORDS:
            self.at += 1
        return match[0] if match and self.at == start + 1 else spelled(self.lexemes[start : self.at])

    def whole_type(self) -> FeelType:
        """The text as one type."""
        found = self.type()
        if self.next.kind != "end":
            self.fail()
        return found

    def type(self) -> FeelType:
        """A type's name with its parameters."""
        with self.nested():
            match = _TYPE_NAMES.longest(self.lexemes, self.at)
            if not match:
                return FeelType(self._type_name())
            self.at += match[1]
            name = match[0]
            if name not in ("list", "range", "context", "function") or not self.accept("<"):
                return FeelType(name)
            if name == "context":
                fields = self._separated_fields()
                self.expect(">")
                return FeelType(name, fields=fields)
            inner = [] if self.is_next(">") else [self.type()]
            while name == "function" and self.accept(","):
                inner.append(self.type())
            self.expect(">")
            if name == "function":
                self.expect("->")
                inner.append(self.type())
            elif not inner:
                self.fail("a type is expected")
            return FeelType(name, tuple(inner))

    def _type_name(self) -> str:
        parts = [self.name()]
        while self.accept("."):
            parts.append(self.name())
        return ".".join(parts)

    def _separated_fields(self) -> tuple[tuple[str, FeelType], ...]:
        fields: list[tuple[str, FeelType]] = []
        while not fields or self.accept(","):
            name = self.declared(":")
            self.expect(":")
            fields.append((name, self.type()))
        return tuple(fields)
