"""FEEL, the expression language of DMN 1.5 (chapter 10): read into a syntax tree, and evaluated.

    tree = parse("if Applicant Age >= 18 then fee * 2 else null", names=["Applicant Age", "fee"])
    evaluate(tree, {"Applicant Age": number(20), "fee": number("7.5")})  # Decimal('15.0')

What FEEL cannot compute is null, never an exception; `reasons` collects why. Only a text that is not FEEL,
and an evaluation past its bounds, raise `FeelError`.
"""

from collections.abc import Callable, Collection, Mapping, MutableSequence
from typing import TypeVar

from vertigym.feel import node_rules  # noqa: F401 - importing it registers the rules
from vertigym.feel.conformance import coerced, conforms, fits
from vertigym.feel.cursor import Cursor
from vertigym.feel.evaluation import Clock, Interpreter, Scope
from vertigym.feel.feel_types import FeelType
from vertigym.feel.functions import BUILT_INS
from vertigym.feel.lexer import Names
from vertigym.feel.parser import Parser
from vertigym.feel.properties import NAMES as PROPERTIES
from vertigym.feel.syntax import Expr, UnaryTests
from vertigym.feel.temporal import Date, DateTime, DaysTime, Time, YearsMonths
from vertigym.feel.temporal_text import temporal
from vertigym.feel.texts import check_parts, from_json, text, to_json
from vertigym.feel.values import FeelError, Function, NoValue, Range, Value, number

T = TypeVar("T")
_KNOWN = Names([*BUILT_INS, *PROPERTIES])


def parse(text: str, names: Collection[str] = ()) -> Expr:
    """Reads an expression.

    `names` are names in scope that may hold spaces or operators (`Applicant Age`, `a-b`), also those of the
    fields of contexts in scope; the longest that fits is taken. Built-in functions and names that the text
    declares are known. Words beside each other that are no known name are taken as one.

    Raises:
        FeelError: it is not FEEL, is nested too deeply, or is too long.
    """
    return _bounded(lambda: Parser(text, names, _KNOWN).whole())


def parse_unary_tests(text: str, names: Collection[str] = ()) -> UnaryTests:
    """Reads a decision table's cell or allowed values: `-` or nothing, `not(…)`, or tests with commas between.

    Raises:
        FeelError: as for `parse`.
    """
    return _bounded(lambda: Parser(text, names, _KNOWN).unary_tests())


def parse_type(text: str) -> FeelType:
    """Reads a type: `number`, `list<string>`, `function<number> -> Any`, or a name that the caller defines.

    Raises:
        FeelError: it is not a type.
    """
    return _bounded(lambda: Cursor(text, ()).whole_type())


def evaluate(
    expr: Expr,
    scope: Mapping[str, Value],
    clock: Clock | None = None,
    *,
    reasons: MutableSequence[str] | None = None,
    types: Mapping[str, FeelType] | None = None,
) -> Value:
    """The value of an expression where `scope` holds.

    Args:
        expr: what `parse` gave.
        scope: values by name, the caller's functions among them; they come before built-in functions.
        clock: the time of `now()` and `today()`, which are null without one.
        reasons: gets a line for each null that an operation or function gave, in the order of evaluation.
        types: what the caller's own type names stand for, for `instance of`.

    Raises:
        FeelError: it takes too many steps, too much memory or too deep a recursion.
    """
    value = _bounded(lambda: Interpreter(clock, reasons, types).value(expr, Scope(scope)))
    check_parts(value)
    return value


def satisfies(
    tests: UnaryTests,
    value: Value,
    scope: Mapping[str, Value],
    clock: Clock | None = None,
    *,
    reasons: MutableSequence[str] | None = None,
    types: Mapping[str, FeelType] | None = None,
) -> bool | None:
    """Whether `value` passes `tests`; `None` where FEEL's answer is null.

    Raises:
        FeelError: as for `evaluate`.
    """
    return _bounded(lambda: Interpreter(clock, reasons, types).satisfies(tests, value, Scope(scope)))


def _bounded(work: Callable[[], T]) -> T:
    try:
        return work()
    except RecursionError:
        raise FeelError("FEEL nested or recursing too deeply") from None


__all__ = [
    "Clock",
    "Date",
    "DateTime",
    "DaysTime",
    "Expr",
    "FeelError",
    "FeelType",
    "Function",
    "NoValue",
    "Range",
    "Time",
    "UnaryTests",
    "Value",
    "YearsMonths",
    "coerced",
    "conforms",
    "evaluate",
    "fits",
    "from_json",
    "number",
    "parse",
    "parse_type",
    "parse_unary_tests",
    "satisfies",
    "temporal",
    "text",
    "to_json",
]
