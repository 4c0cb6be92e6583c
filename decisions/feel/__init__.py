"""FEEL, the expression language of DMN 1.5 (chapter 10): read into a syntax tree, and evaluated.

    tree = parse("if Applicant Age >= 18 then fee * 2 else null", names=["Applicant Age", "fee"])
    evaluate(tree, {"Applicant Age": number(20), "fee": number("7.5")})  # Decimal('15.0')

What FEEL cannot compute is null, never an exception; `reasons` collects why. Only a text that is not FEEL, and an
evaluation past its bounds, raise `FeelError`.
"""

from collections.abc import Callable, Collection, Mapping, MutableSequence
from datetime import datetime

from vertigym.decisions.feel.feel_types import FeelType
from vertigym.decisions.feel.syntax import Expr, UnaryTests
from vertigym.decisions.feel.temporal import Date, DateTime, DaysTime, Time, YearsMonths
from vertigym.decisions.feel.values import Function, NoValue, Range, Value, number
from vertigym.decisions.model import DecisionError

Clock = Callable[[], datetime]  # what `now()` and `today()` read; without one they are null


class FeelError(DecisionError):
    """A text that is not FEEL, or an evaluation past its bounds."""


def parse(text: str, names: Collection[str] = ()) -> Expr:
    """Reads an expression.

    `names` are names in scope that may hold spaces or operators (`Applicant Age`, `a-b`), also those of the fields of
    contexts in scope; the longest that fits is taken. Built-in functions and names that the text declares are known.

    Raises:
        FeelError: it is not FEEL, is nested too deeply, or is too long.
    """
    raise NotImplementedError


def parse_unary_tests(text: str, names: Collection[str] = ()) -> UnaryTests:
    """Reads a decision table's cell or allowed values: `-`, `not(…)`, or tests with commas between.

    Raises:
        FeelError: as for `parse`.
    """
    raise NotImplementedError


def parse_type(text: str) -> FeelType:
    """Reads a type: `number`, `list<string>`, `function<number> -> Any`, or a name that the caller defines.

    Raises:
        FeelError: it is not a type.
    """
    raise NotImplementedError


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
        clock: the time of `now()` and `today()`.
        reasons: gets a line for each null that an operation or function gave, in the order of evaluation.
        types: what the caller's own type names stand for, for `instance of`.

    Raises:
        FeelError: it takes too many steps, too much memory or too deep a recursion.
    """
    raise NotImplementedError


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
    raise NotImplementedError


def conforms(value: Value, kind: FeelType, types: Mapping[str, FeelType] | None = None) -> bool:
    """Whether `value instance of kind`; null is of type Null and Any only."""
    raise NotImplementedError


def from_json(value: object) -> Value:
    """A JSON value as FEEL's: whole and decimal numbers exactly, floats as they are printed; texts stay texts."""
    raise NotImplementedError


def to_json(value: Value) -> object:
    """A FEEL value as JSON: numbers as int, or float, dates and durations as ISO texts, ranges and functions as FEEL.

    A number that a float does not hold exactly is the nearest float.
    """
    raise NotImplementedError


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
    "conforms",
    "evaluate",
    "from_json",
    "number",
    "parse",
    "parse_type",
    "parse_unary_tests",
    "satisfies",
    "to_json",
]
