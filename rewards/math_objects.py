r"""What `math-verify` reads, compared: numbers exactly, expressions at points, sets of reals, anything else by
the engine.

Numbers are compared to 40 digits and, where a decimal is among them, to `quantities.TOLERANCE`; the engine
alone rounds to six places, so that 1/2^99 would equal 1/2^98. Expressions in variables are evaluated at fixed
points: different at one they are different; the same at three or more, and different at none, they are the same
(Schwartz 1980, Zippel 1979).
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import sympy
from math_verify import parse, verify
from sympy.core.function import AppliedUndef

from vertigym.rewards.math_text import parts, sentence, split_at
from vertigym.rewards.quantities import TOLERANCE, exact

_FUNCTION = re.compile(r"(?<![A-Za-z\\])(pi|exp|sin|cos|tan|log|ln)(?![A-Za-z])")
_DIGITS = 50
_EXACT = sympy.Float("1e-40", _DIGITS)
_WITH_INDEX = (sympy.Sum, sympy.Product, sympy.Integral, sympy.Limit, sympy.Derivative)
_ENOUGH = 3  # points at which both are defined


class UnreadableError(Exception):
    """The text is no mathematics that the engine can read; says why."""


@lru_cache(maxsize=512)
def read(text: str) -> Any:
    """The sympy object that `text` writes.

    Raises:
        UnreadableError: none.
    """
    number = exact(text)
    if number is not None:
        return sympy.Float(text.strip(), _DIGITS) if _decimal(text) else sympy.Rational(number)
    if not text.strip() or sentence(text):
        raise UnreadableError(f"{text[:60]!r} is no mathematics")
    text = _FUNCTION.sub(r"\\\1", text)
    text = re.sub(r"(?<=\d)\s+(\d+)\s*/\s*(\d+)", r"\\frac{\1}{\2}", text.replace("**", "^"))
    found = parse(f"\\boxed{{{text}}}", parsing_timeout=None)
    if not found or isinstance(found[0], str):
        raise UnreadableError(f"{text[:60]!r} cannot be read as mathematics")
    return found[0]


def _decimal(text: str) -> bool:
    return bool(re.fullmatch(r"[-+]?\d*\.\d+", text.strip()))


def same_object(gold: Any, answer: Any) -> bool:
    """Whether two objects are mathematically the same."""
    if gold == answer:
        return True
    scalar = isinstance(gold, sympy.Expr) and isinstance(answer, sympy.Expr)
    decided = _at_points(*map(_with_plain_symbols, (gold, answer))) if scalar else None
    if decided is not None:
        return decided
    # The reference comes first: the engine's comparison is not symmetric.
    return bool(verify(gold, answer, timeout_seconds=None, raise_on_error=True))


def _with_plain_symbols(value: sympy.Expr) -> sympy.Expr:
    """One symbol a name, whatever the engine assumed of it; `i` is the imaginary unit."""
    real = {symbol: sympy.Symbol(symbol.name, real=True) for symbol in value.free_symbols}
    return value.subs({one: sympy.I if one.name == "i" else same for one, same in real.items()})


def _points(symbols: list[sympy.Symbol]) -> Iterator[dict[sympy.Symbol, sympy.Rational]]:
    """Positive fractions, whole numbers, negative ones: where an expression is defined, it is at some of
    them."""
    for k in range(4):
        yield {s: sympy.Rational(7 * i + 3 * k + 5, 11 + k) for i, s in enumerate(symbols)}
    for k in range(3):
        yield {s: sympy.Integer(2 * i + k + 2) for i, s in enumerate(symbols)}
    for k in range(3):
        yield {s: -sympy.Rational(5 * i + 4 * k + 3, 7 + k) for i, s in enumerate(symbols)}


def _at_points(gold: sympy.Expr, answer: sympy.Expr) -> bool | None:
    symbols = sorted(gold.free_symbols | answer.free_symbols, key=str)
    if any(one.has(AppliedUndef) or (one.free_symbols and one.has(*_WITH_INDEX)) for one in (gold, answer)):
        return None
    alike = 0
    for point in _points(symbols) if symbols else [{}]:
        left, right = (_value(one, point) for one in (gold, answer))
        if left is None or right is None or (bool(sympy.im(left)) != bool(sympy.im(right)) and symbols):
            continue  # outside the domain of one of them
        if not _close(left, right, gold.has(sympy.Float) or answer.has(sympy.Float)):
            return False
        alike += 1
    return True if alike >= (_ENOUGH if symbols else 1) else None


def _value(expression: sympy.Expr, point: dict[sympy.Symbol, sympy.Rational]) -> sympy.Expr | None:
    value = expression.subs(point).doit().evalf(_DIGITS, chop=sympy.Float("1e-45"))
    return (
        value
        if value.is_number and value.is_finite and not value.has(sympy.nan) and value.is_comparable is not None
        else None
    )


def _close(left: sympy.Expr, right: sympy.Expr, decimal: bool) -> bool:
    allowed = sympy.Rational(TOLERANCE) if decimal else _EXACT
    return bool(abs(left - right) <= allowed * max(abs(left), abs(right)))


def proportional(gold: tuple[Any, Any], answer: tuple[Any, Any]) -> bool:
    """Whether two equations (left, right) say the same: their differences are a constant apart."""
    first, second = (one[0] - one[1] for one in (gold, answer))
    if not first.free_symbols or first.free_symbols != second.free_symbols:
        return False
    symbols = sorted(first.free_symbols, key=str)
    ratios = list[sympy.Expr]()
    for point in _points(symbols):
        above, below = _value(first, point), _value(second, point)
        if above is not None and below is not None and above and below:
            ratios.append(above / below)
    return len(ratios) >= _ENOUGH and all(
        _close(ratios[0], one, first.has(sympy.Float) or second.has(sympy.Float)) for one in ratios
    )


_RELATION = re.compile(r"(\\le(?![a-z])|\\ge(?![a-z])|\\ne(?![a-z])|<|>|=)")
_RELATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "<": sympy.Lt, ">": sympy.Gt, "\\le": sympy.Le, "\\ge": sympy.Ge, "\\ne": sympy.Ne, "=": sympy.Eq,
}  # fmt: skip
_NAMED_SETS = {
    "R": sympy.S.Reals,
    "Z": sympy.S.Integers,
    "N": sympy.S.Naturals,
    "Q": sympy.S.Rationals,
    "C": sympy.S.Complexes,
}
_UNION = re.compile(r"\\cup|\\lor|\\vee|\bor\b|\bU\b")
_INTERSECTION = re.compile(r"\\cap|\\land|\\wedge|\band\b|,")
_INTERVAL = re.compile(r"([(\[])(.*),(.*)([)\]])", re.DOTALL)


def is_set(text: str) -> bool:
    """Whether the text can only be a set of reals or an inequality."""
    bracketed = _INTERVAL.fullmatch(text)
    pair = bracketed and not text.startswith("[[") and len(parts(f"({text[1:-1]})").items) == 2
    return bool(
        re.search(r"\\cup|\\cap|\\setminus|\\in(?![a-z])|\\mathbb|\\infty\s*[)\]]|[<>]|\\[lgn]e(?![a-z])", text)
        or (pair and bracketed and bracketed[1] + bracketed[4] != "()")
    )


def real_set(text: str) -> tuple[Any, str]:
    r"""The set of reals that `[0, 1) \cup \{2\}`, `x < 1 or x > 2`, `x \in (0, 1)` or `(0, 1)` is, and the
    variable of its inequalities ("" for none).

    Raises:
        UnreadableError: it is no such set, or one in several variables.
    """
    text = re.sub(r"^\s*[A-Za-z]\w*\s*(?:\\in(?![a-z])|=(?=\s*[(\[\\]))", "", text).strip()
    if "\\setminus" in text:
        whole, removed = (real_set(one)[0] for one in text.split("\\setminus", 1))
        return whole - removed, ""
    for pattern, join in ((_UNION, sympy.Union), (_INTERSECTION, sympy.Intersection)):
        pieces = split_at(pattern, text)
        if len(pieces) > 1:
            found = [real_set(one) for one in pieces]
            names = {name for _, name in found if name}
            if len(names) > 1:
                raise UnreadableError("inequalities in several variables")
            return join(*(one for one, _ in found)), "".join(names)
    return _one_set(text)


def _one_set(text: str) -> tuple[Any, str]:
    if named := re.fullmatch(r"(?:\\mathbb\s*\{?)?\s*([RZNQC])\s*\}?", text):
        return _NAMED_SETS[named[1]], ""
    if text.startswith("\\{"):
        return sympy.FiniteSet(*(read(one) for one in parts(text).items)), ""
    if len(_RELATION.split(text)) > 1:
        return _chain(_RELATION.split(text))
    bracketed = _INTERVAL.fullmatch(text)
    ends = parts(f"({text[1:-1]})").items if bracketed else []
    if bracketed is None or len(ends) != 2:
        raise UnreadableError(f"{text[:60]!r} is no set of reals")
    low, high = (read(end.replace("+\\infty", "\\infty").replace("+ \\infty", "\\infty")) for end in ends)
    return sympy.Interval(_rational(low), _rational(high), bracketed[1] == "(", bracketed[4] == ")"), ""


def _chain(pieces: list[str]) -> tuple[Any, str]:
    """`-1 < x <= 1`: its pieces are sides and relations in turn."""
    sides = [_rational(read(side)) for side in pieces[::2]]
    unknown = {f for side in sides for f in side.atoms(AppliedUndef)} or {
        s for side in sides for s in side.free_symbols
    }
    if len(unknown) != 1:
        raise UnreadableError("an inequality that is not in one variable")
    variable = sympy.Symbol("t", real=True)
    sides = [side.subs(next(iter(unknown)), variable) for side in sides]
    held = [_RELATIONS[op](a, b) for a, op, b in zip(sides, pieces[1::2], sides[1:], strict=False)]
    return sympy.And(*held).as_set(), str(next(iter(unknown)))


def _rational(value: Any) -> Any:
    return sympy.nsimplify(value, rational=True) if value.has(sympy.Float) else value


def same_set(gold: Any, answer: Any) -> bool:
    """Whether two sets of reals have the same elements."""
    if gold == answer:
        return True
    apart = sympy.SymmetricDifference(gold, answer)
    return bool(apart.simplify() == sympy.S.EmptySet)
