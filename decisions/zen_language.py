"""The expression language of zen-engine as the analysis of rules asks about it (`protocols.Language`).

The engine itself evaluates; here is only what it does not tell: which names a text holds, whether a condition
compares one value with literals and does nothing else.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from vertigym.decisions.cases import whole_numbers
from vertigym.decisions.expressions import Atom, Token, atoms, is_random, reads_clock, tokens

NAME = re.compile(r"[A-Za-z_$][\w$]*(?:\??\.[A-Za-z_$][\w$]*)*")
_DATE = re.compile(r"\b(?:date|time)\(\s*('[^']*'|\"[^\"]*\")\s*\)")
_OPS = {"<", ">", "<=", ">=", "==", "!=", "..", "[", "]", "(", ")", ",", "!", "&&", "||"}
_WORDS = {"and", "or", "not", "in", "true", "false", "null"}


class ZenLanguage:
    """The language of one model; it has no state."""

    skips_failing_rules = True

    def atoms(self, text: str) -> Sequence[Atom]:
        """Names and the literals beside them."""
        return atoms(text)

    def names(self, text: str) -> list[str]:
        """Names that are fields."""
        return names_in(text)

    def is_name(self, text: str) -> bool:
        """Whether a text is one name and nothing else."""
        return bool(NAME.fullmatch(text.strip()))

    def parts(self, text: str) -> list[str]:
        """Conditions that must all hold."""
        return conjuncts(text)

    def is_simple(self, cell: str, column: str = "") -> bool:
        """Whether a cell compares its column with literals and does nothing else."""
        return is_simple(cell)

    def simple_name(self, text: str) -> str:
        """The one name that a text compares with literals."""
        return simple_name(text)

    def axis(self, cell: str) -> str:
        """The engine counts moments as numbers, beside all others."""
        return ""

    def literals(self, condition: str) -> tuple[set[float], set[str]]:
        """Numbers and texts of a condition."""
        return literals(condition)

    def condition(self, condition: str, name: str) -> Callable[[Any], bool]:
        """A condition compiled."""
        return compiled_condition(condition, name)

    def example(self, value: Any, axis: str) -> Any:
        """The value as it is."""
        return whole_numbers(value)

    def depends_on_more(self, text: str, names: Sequence[str]) -> bool:
        """Whether a text reads the clock, chance, or what only the engine knows."""
        return any(name[0] == "$" for name in names) or reads_clock(text) or is_random(text)

    def computed(self, text: str, values: Mapping[str, Any]) -> tuple[Any] | None:
        """The engine's value."""
        import zen

        if self.depends_on_more(text, list(values)):
            return None
        try:
            return (whole_numbers(zen.evaluate_expression(text, nested(values))),)
        except Exception:  # the engine's refusal
            return None

    def matches(self, cell: str, value: Any, values: Mapping[str, Any]) -> bool:
        """Whether the engine says that a cell matches a known value."""
        import zen

        try:
            return bool(zen.evaluate_unary_expression(cell, {**nested(values), "$": value}))
        except Exception:  # as above: a cell that cannot be evaluated does not match
            return False

    def holds(self, column: str, cell: str, context: Any) -> bool:
        """Whether a cell's condition holds in a context, by the engine's own evaluation."""
        import zen

        if not isinstance(context, dict):
            return False
        try:
            if not column:
                return zen.evaluate_expression(cell, context) is True
            value = zen.evaluate_expression(column, context)
            return bool(zen.evaluate_unary_expression(cell, {**context, "$": value}))
        except Exception:  # the engine's refusal of one probe: the condition does not hold there
            return False

    def number(self, column: str, context: Any) -> float | None:
        """A column's value where it is a number."""
        import zen

        try:
            value = zen.evaluate_expression(column, context)
        except Exception:  # as above
            return None
        return None if isinstance(value, bool) or not isinstance(value, int | float) else value


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by dotted name as one record (a whole last: it holds its parts)."""
    context: dict[str, Any] = {}
    for name, value in sorted(values.items(), key=lambda item: -item[0].count(".")):
        at = context
        *parents, last = name.removeprefix("$root.").removeprefix("$.").split(".")
        for key in parents:
            inner = at.setdefault(key, {})
            at[key] = at = inner if isinstance(inner, dict) else {}
        at[last] = value
    return context


def conjuncts(expression: str) -> list[str]:
    """An expression's parts between top-level `and`s; the whole where an `or` or a `?` stands at the top."""
    parts, depth, start, quote = list[str](), 0, 0, ""
    for match in re.finditer(r"['\"`]|[\[({]|[\])}]|\band\b|&&|\bor\b|\|\||\?(?![.?])", expression):
        text = match.group()
        if text in "'\"`":
            quote = "" if quote == text else quote or text
        elif quote:
            continue
        elif text in "[({":
            depth += 1
        elif text in "])}":
            depth -= 1
        elif not depth and text in ("or", "||", "?"):
            return [expression.strip()]
        elif not depth:
            parts.append(expression[start : match.start()].strip())
            start = match.end()
    return [*parts, expression[start:].strip()]


def names_in(expression: str) -> list[str]:
    """The names in an expression that are fields: no calls, no words, no members of closures. In the order
    they come, each once."""
    stream = tokens(expression)
    found = []
    for index, token in enumerate(stream):
        call = index + 1 < len(stream) and stream[index + 1].text == "("
        if token.kind == "name" and token.text not in _WORDS and token.text != "$" and not call:
            found.append(token.text)
    if "`" in expression:
        found.append("$template")
    return list(dict.fromkeys(found))


def is_simple(condition: str) -> bool:
    """Whether a cell compares `$` with literals and does nothing else."""
    stream = tokens(_undated(condition))
    return _readable(condition) and all(map(_plain, stream)) and not _asks_inside(stream)


def simple_name(expression: str) -> str:
    """The one name that an expression compares with literals; empty where it does anything else."""
    stream = tokens(_undated(expression))
    names = {t.text for t in stream if t.kind == "name" and not _plain(t)}
    calls = any(a.text in names and b.text == "(" for a, b in pairwise(stream))
    fits = len(names) == 1 and not calls and all(_plain(t) or t.kind == "name" for t in stream)
    fits = fits and _readable(expression) and not _asks_inside(stream)
    name = next(iter(names)) if fits else ""
    return "" if name[:1] in ("$", "#") else name


def compiled_condition(condition: str, name: str) -> Callable[[Any], bool]:
    """Whether the engine says that a condition holds for a value: a cell's, about `$`; or, given a `name`, an
    expression's about that name. One that it cannot read or evaluate does not."""
    import zen

    try:
        compiled = (zen.compile_expression if name else zen.compile_unary_expression)(condition)
    except Exception:  # the engine's refusal of the text
        return lambda value: False

    def holds(value: Any) -> bool:
        context: Any = value
        for part in reversed(name.split(".") if name else "$"):
            context = {part: context}
        try:
            return compiled.evaluate(context) is True
        except Exception:  # its refusal of a value: in a table or switch that means "does not match"
            return False

    return holds


def literals(condition: str) -> tuple[set[float], set[str]]:
    """The numbers and the texts of a condition."""
    stream = tokens(_undated(condition))
    return {float(t.text) for t in stream if t.kind == "number"}, {t.text for t in stream if t.kind == "string"}


def _undated(condition: str) -> str:
    """The condition with each `date('…')` as the number that the engine makes of it."""
    import zen

    def number(match: re.Match[str]) -> str:
        try:
            return repr(float(zen.evaluate_expression(match.group(), {})))
        except Exception:  # not a date: left as it is, so the condition is not simple
            return match.group()

    return _DATE.sub(number, condition)


def _readable(condition: str) -> bool:
    """Whether its texts are what they look like: no escapes, no templates."""
    return "\\" not in condition and "`" not in condition


def _asks_inside(stream: Sequence[Token]) -> bool:
    """Whether it asks if a literal is in something (`'x' in tags`): lists are one class, so that is not
    simple."""
    return any(
        b.text == "in" and (a.kind in ("number", "string") or a.text in ("]", ")")) for a, b in pairwise(stream)
    )


def _plain(token: Token) -> bool:
    if token.kind == "name":
        return token.text in _WORDS or token.text == "$"
    return token.kind != "op" or token.text in _OPS
