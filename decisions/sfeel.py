"""S-FEEL, the simple expression language of DMN decision tables, translated to the rule engine's language.

    unary tests     < 18      [18..65)      "gold", "basic"      not("x")      >= date("2024-01-31")      -
    expressions     Income - Expenses      Rate * 1.5      Age >= 18      "yes"      date("2024-01-31")

Dates are ISO texts in a case, so a condition on one compares `date(x)`, seconds since 1970, on both sides. An
expression over something null is null, as in FEEL (the engine would refuse it), hence the guards.

Source: OMG Decision Model and Notation 1.3, chapter 9. What is FEEL but not S-FEEL is refused by name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vertigym.decisions.expressions import out_of_bounds
from vertigym.decisions.model import DecisionError

DATES = {"date": "date", "dateTime": "date", "time": "time"}  # type -> the engine's function that reads it
TYPES = {"number", "string", "boolean", *DATES}

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<string>@?"(?:[^"\\]|\\.)*")
  | (?P<number>(?:\d+(?:\.\d+)?|\.\d+))
  | (?P<name>(?:date[ ]and[ ]time|[^\W\d]\w*))
  | (?P<op>\*\*|\.\.|<=|>=|!=|[-+*/<>=()\[\],.])
  | (?P<bad>\S))""",
    re.VERBOSE,
)
_SPACE = re.compile(r"\s*")
_FEEL = {
    "if", "then", "else", "for", "return", "some", "every", "satisfies", "in", "between", "and", "or",
    "instance", "function",
}  # fmt: skip
_KINDS = {"date": "date", "time": "time", "date and time": "dateTime"}
_ISO = {
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "time": re.compile(r"\d\d:\d\d:\d\d"),
    "dateTime": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)?"),
}
_ESCAPES = {'\\"': '"', "\\n": "\n", "\\t": "\t"}


@dataclass(frozen=True, slots=True)
class Name:
    """What a FEEL name stands for: a path in the case, and a type ("" where it is not stated)."""

    path: str
    type: str = ""


@dataclass(frozen=True, slots=True)
class Term:
    """A translated expression: the engine's text, its type, the paths it names, and whether it is `simple`, one
    literal or one name (else it computes, and is null where a path is)."""

    text: str
    type: str = ""
    paths: tuple[str, ...] = ()
    simple: bool = False

    @property
    def guarded(self) -> str:
        """The text, giving null where something it names is null."""
        if self.simple or not self.paths:
            return self.text
        return f"({' or '.join(f'{path} == null' for path in self.paths)}) ? null : {self.text}"


def expression(text: str, names: Mapping[str, Name], where: str) -> Term:
    """Translate an expression.

    Raises:
        DecisionError: it is not S-FEEL, or names something unknown (`where` opens the message).
    """
    return _Parser(text, names, where).whole()


def unary_tests(text: str, column: Term, names: Mapping[str, Name], where: str) -> str:
    """Translate a cell of a decision table; empty where it matches anything.

    Raises:
        DecisionError: as above, or a test of another type than its column.
    """
    return "" if text.strip() in ("", "-") else _Parser(text, names, where, column.type).tests()


def compared(term: Term) -> str:
    """The term as it is compared: a date or a time through the function that reads it."""
    reader = DATES.get(term.type)
    return f"{reader}({term.text})" if reader else term.text


def quoted(text: str, where: str) -> str:
    """A text as a literal of the engine.

    Raises:
        DecisionError: it has both kinds of quotes or a backslash: the engine cannot spell it.
    """
    if "\\" in text or ("'" in text and '"' in text):
        raise DecisionError(
            f"{where}: the text {text!r} has a backslash or both kinds of quotes: not supported"
        )
    return f'"{text}"' if "'" in text else f"'{text}'"


@dataclass(frozen=True, slots=True)
class _Test:
    """One test as the engine's cell, as an expression about `$`, and the value where it is an equality."""

    short: str
    long: str
    value: str
    is_literal: bool


class _Parser:
    def __init__(self, text: str, names: Mapping[str, Name], where: str, column: str = "") -> None:
        self.text, self.names, self.where, self.column = text.strip(), names, where, column
        if fault := out_of_bounds(self.text):
            raise DecisionError(f"{where}: {fault}: {self.text[:60]}")
        self.tokens = self._tokens()
        self.at = 0

    # Words.

    def _tokens(self) -> list[tuple[str, str]]:
        known = sorted((n for n in self.names if not re.fullmatch(r"[^\W\d]\w*", n)), key=len, reverse=True)
        found, at = [], 0
        while at < len(self.text):
            start = _SPACE.match(self.text, at).end()  # type: ignore[union-attr]  # it always matches
            long = next((n for n in known if _is_at(self.text, start, n)), None)
            if long:
                found.append(("name", long))
                at = start + len(long)
                continue
            match = _TOKEN.match(self.text, at)
            if match is None:
                break
            kind = match.lastgroup or "bad"
            if kind == "bad":
                raise self._error(f"{match['bad']!r} is not part of S-FEEL")
            found.append((kind, match[kind]))
            at = match.end()
        return found

    def _error(self, what: str) -> DecisionError:
        return DecisionError(f"{self.where}: {self.text!r}: {what}")

    def _peek(self) -> str:
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        return text if kind in ("op", "name") else ""

    def _take(self, *texts: str) -> str:
        if self._peek() in texts:
            self.at += 1
            return self.tokens[self.at - 1][1]
        return ""

    def _need(self, *texts: str) -> str:
        found = self._take(*texts)
        if not found:
            came = self.tokens[self.at][1] if self.at < len(self.tokens) else "the end"
            raise self._error(f"expected {' or '.join(texts)}, got {came}")
        return found

    def _end(self) -> None:
        if self.at < len(self.tokens):
            word = self.tokens[self.at][1]
            what = f"{word!r} is FEEL, not S-FEEL: not supported" if word in _FEEL else f"unexpected {word!r}"
            raise self._error(what)

    # Unary tests.

    def tests(self) -> str:
        """Tests joined by commas, or their negation."""
        negated = self._peek() == "not" and self.tokens[self.at + 1 : self.at + 2] == [("op", "(")]
        if negated:
            self.at += 2
        parts = [self._test()]
        while self._take(","):
            parts.append(self._test())
        if negated:
            self._need(")")
        self._end()
        return _negated(parts) if negated else _joined(parts)

    def _test(self) -> "_Test":
        if operator := self._take("<", "<=", ">", ">="):
            side = self._endpoint()
            return _Test(f"{operator} {compared(side)}", f"$ {operator} {compared(side)}", "", not side.paths)
        if opening := self._take("(", "[", "]"):
            low = self._endpoint()
            self._need("..")
            high = self._endpoint()
            closing = self._need(")", "]", "[")
            left, right = compared(low), compared(high)
            short = f"{'[' if opening == '[' else '('}{left}..{right}{']' if closing == ']' else ')'}"
            return _Test(short, f"$ in {short}", "", not (low.paths or high.paths))
        side = self._endpoint()
        return _Test(compared(side), f"$ == {compared(side)}", compared(side), not side.paths)

    def _endpoint(self) -> Term:
        side = self._signed()
        if self.column and side.type and side.type != self.column and side.text != "null":
            raise self._error(f"the column holds a {self.column}, this is a {side.type}")
        return side

    # Expressions.

    def whole(self) -> Term:
        term = self._comparison()
        self._end()
        return term

    def _comparison(self) -> Term:
        left = self._sum()
        operator = self._take("<", "<=", ">", ">=", "=", "!=")
        if not operator:
            return left
        right = self._sum()
        if left.type and right.type and left.type != right.type and "null" not in (left.text, right.text):
            raise self._error(f"compares a {left.type} with a {right.type}")
        text = f"{compared(left)} {'==' if operator == '=' else operator} {compared(right)}"
        paths = () if "null" in (left.text, right.text) else _paths(left, right)
        return Term(text, "boolean", paths)

    def _sum(self) -> Term:
        left = self._product()
        while operator := self._take("+", "-"):
            left = self._computed(left, operator, self._product())
        return left

    def _product(self) -> Term:
        left = self._power()
        while operator := self._take("*", "/"):
            left = self._computed(left, operator, self._power())
        return left

    def _power(self) -> Term:
        left = self._signed()
        while self._take("**"):
            left = self._computed(left, "^", self._signed())
        return left

    def _computed(self, left: Term, operator: str, right: Term) -> Term:
        kinds = {left.type, right.type} - {""}
        if kinds - {"number"} and not (operator == "+" and kinds == {"string"}):
            raise self._error(f"arithmetic on a {sorted(kinds - {'number'})[0]} is not supported")
        kind = "string" if kinds == {"string"} else "number" if operator != "+" or kinds else ""
        return Term(f"({left.text} {operator} {right.text})", kind, _paths(left, right))

    def _signed(self) -> Term:
        if not self._take("-"):
            return self._value()
        inner = self._signed()
        if inner.simple and not inner.paths and inner.type == "number":
            return Term(f"-{inner.text}", "number", (), True)
        return Term(f"(-{inner.text})", "number", inner.paths)

    def _value(self) -> Term:
        if self._take("("):
            inner = self._comparison()
            self._need(")")
            return Term(f"({inner.text})", inner.type, inner.paths)
        if self.at >= len(self.tokens):
            raise self._error("it ends too early")
        kind, text = self.tokens[self.at]
        self.at += 1
        if kind == "number":
            return Term(f"0{text}" if text.startswith(".") else text, "number", (), True)
        if kind == "string":
            return self._at_literal(text) if text.startswith("@") else self._string(text)
        if kind == "name":
            return self._name(text)
        raise self._error(f"unexpected {text!r}")

    def _string(self, text: str) -> Term:
        plain = re.sub(r"\\.", lambda m: _ESCAPES.get(m.group(), m.group()), text[1:-1])
        return Term(quoted(plain, self.where), "string", (), True)

    def _at_literal(self, text: str) -> Term:
        value = text[2:-1]
        for kind, form in _ISO.items():
            if form.fullmatch(value):
                return _dated(kind, value)
        raise self._error(f"the literal {text} is not supported (dates, times, dates with times are)")

    def _name(self, text: str) -> Term:
        if text in self.names:
            while self._peek() == "." and f"{text}.{self._after_dot()}" in self.names:
                text = f"{text}.{self._after_dot()}"
                self.at += 2
            name = self.names[text]
            return Term(name.path, name.type, (name.path,), True)
        if text in ("true", "false"):
            return Term(text, "boolean", (), True)
        if text == "null":
            return Term("null", "", (), True)
        if text in _FEEL:
            raise self._error(f"{text!r} is FEEL, not S-FEEL: not supported")
        if self._peek() == "(":
            return self._call(text)
        raise self._error(f"unknown name {text!r}; known: {', '.join(sorted(self.names)) or 'none'}")

    def _after_dot(self) -> str:
        return self.tokens[self.at + 1][1] if self.at + 1 < len(self.tokens) else ""

    def _call(self, name: str) -> Term:
        kind = _KINDS.get(name)
        if kind is None:
            raise self._error(f"unknown function {name!r}; S-FEEL has date, time, date and time (of a text)")
        self._need("(")
        found, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        if found != "string" or not _ISO[kind].fullmatch(text.strip('"')):
            raise self._error(f"{name}(…) takes an ISO text, for example {_EXAMPLES[kind]}")
        self.at += 1
        self._need(")")
        return _dated(kind, text.strip('"'))


_EXAMPLES = {
    "date": 'date("2024-01-31")',
    "time": 'time("09:30:00")',
    "dateTime": 'date and time("2024-01-31T09:30:00Z")',
}


def _dated(kind: str, value: str) -> Term:
    """A date as its ISO text; one with a time and no zone is taken as UTC, as the engine needs one."""
    if kind == "dateTime" and not re.search(r"(Z|[+-]\d\d:\d\d)$", value):
        value += "Z"
    return Term(f"'{value}'", kind, (), True)


def _joined(parts: Sequence[_Test]) -> str:
    if all(part.is_literal for part in parts):
        return ", ".join(part.short for part in parts)
    return " or ".join(part.long for part in parts)


def _negated(parts: Sequence[_Test]) -> str:
    values = [part.value for part in parts]
    if all(values):
        return f"!= {values[0]}" if len(values) == 1 else f"not in [{', '.join(values)}]"
    return " and ".join(f"$ != {part.value}" if part.value else f"not ({part.long})" for part in parts)


def _paths(*terms: Term) -> tuple[str, ...]:
    return tuple(dict.fromkeys(path for term in terms for path in term.paths))


def _is_at(text: str, at: int, name: str) -> bool:
    """Whether `name` stands at `at` and ends there as a word."""
    after = text[at + len(name) : at + len(name) + 1]
    return text.startswith(name, at) and not (after.isalnum() or after == "_")
