"""The syntax tree of FEEL: one frozen class a construct.

`CompareNode` and `RangeNode` inside `UnaryTests` are what a decision table's cell usually is; every other
expression of a cell is either compared with the input or, where it speaks of `?`, is the test itself.
Source: OMG Decision Model and Notation 1.5, chapter 10.3.1.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Literal as OneOf

from vertigym.feel.feel_types import FeelType
from vertigym.feel.values import Value

Operator = OneOf["+", "-", "*", "/", "**", "=", "!=", "<", "<=", ">", ">=", "and", "or"]


@dataclass(frozen=True, slots=True)
class Expr:
    """Any expression."""

    def children(self) -> Iterator["Expr"]:
        """The expressions right inside this one, in the order of the text."""
        for each in fields(self):
            yield from _expressions(getattr(self, each.name))

    def walk(self) -> Iterator["Expr"]:
        """This expression and all inside it."""
        left: list[Expr] = [self]
        while left:
            expr = left.pop()
            yield expr
            left += reversed(list(expr.children()))


@dataclass(frozen=True, slots=True)
class Constant(Expr):
    """A number, string, `true`, `false`, `null`, or an `@"…"` literal."""

    value: Value


@dataclass(frozen=True, slots=True)
class NullNode(Expr):
    """An `@"…"` literal that spells nothing: null, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Variable(Expr):
    """A name, inner spaces written as one; `?` is the input of a unary test."""

    name: str


@dataclass(frozen=True, slots=True)
class Path(Expr):
    """`source.name`."""

    source: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Filter(Expr):
    """`source[condition]`, where a number picks one item."""

    source: Expr
    condition: Expr


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """`function(arguments)`; `names` is empty, or names each argument."""

    function: Expr
    arguments: tuple[Expr, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Negation(Expr):
    """`-operand`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Binary(Expr):
    """`left operator right`."""

    operator: Operator
    left: Expr
    right: Expr


@dataclass(frozen=True, slots=True)
class Between(Expr):
    """`value between low and high`, both ends included."""

    value: Expr
    low: Expr
    high: Expr


@dataclass(frozen=True, slots=True)
class InTests(Expr):
    """`value in test` or `value in (test, …)`."""

    value: Expr
    tests: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class If(Expr):
    """`if condition then then_value else else_value`."""

    condition: Expr
    then_value: Expr
    else_value: Expr


@dataclass(frozen=True, slots=True)
class Iteration(Expr):
    """`name in domain`, or with `end`, `name in domain..end`."""

    name: str
    domain: Expr
    end: Expr | None = None


@dataclass(frozen=True, slots=True)
class For(Expr):
    """`for iterations return body`."""

    iterations: tuple[Iteration, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Quantified(Expr):
    """`some iterations satisfies body`, or `every`."""

    quantifier: OneOf["some", "every"]
    iterations: tuple[Iteration, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class InstanceOf(Expr):
    """`value instance of type`."""

    value: Expr
    type: FeelType


@dataclass(frozen=True, slots=True)
class ListNode(Expr):
    """`[items]`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ContextNode(Expr):
    """`{key: expression, …}`; a later entry sees the earlier ones."""

    entries: tuple[tuple[str, Expr], ...]


@dataclass(frozen=True, slots=True)
class RangeNode(Expr):
    """`[low..high]`, with round or outward brackets where an end is excluded."""

    low: Expr
    high: Expr
    low_closed: bool
    high_closed: bool


@dataclass(frozen=True, slots=True)
class CompareNode(Expr):
    """`< 5`, without a left side: a unary test, and as a value of its own a range. `=` and `!=` too."""

    operator: OneOf["=", "!=", "<", "<=", ">", ">="]
    bound: Expr


@dataclass(frozen=True, slots=True)
class FunctionNode(Expr):
    """`function(parameters) body`; an external one is refused when it is called."""

    parameters: tuple[str, ...]
    types: tuple[FeelType, ...]
    body: Expr
    external: bool = False


@dataclass(frozen=True, slots=True)
class UnaryTests:
    """A decision table's cell: `tests`, of which one must hold, or, where `negated`, none.

    No tests at all is `-`: anything passes.
    """

    tests: tuple[Expr, ...]
    negated: bool = False


def _expressions(value: object) -> Iterator[Expr]:
    if isinstance(value, Expr):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from _expressions(item)
