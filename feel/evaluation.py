"""Evaluation of the syntax tree: one function a kind of node, in a table.

Whatever has no value raises `NoValue` inside; the node that is evaluated becomes null there, and the reason is
kept. Work is counted, so that no text can run for ever or fill the memory: a step for each node evaluated, and
one for each eight values that an operation walks through.
Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.
"""

from collections.abc import Callable, Iterator, Mapping, MutableSequence
from datetime import datetime
from decimal import Decimal, DecimalException
from typing import Any, ParamSpec, TypeVar

from vertigym.feel.conformance import Types, coerced
from vertigym.feel.operators import compare, equal, in_range
from vertigym.feel.signatures import BuiltIn
from vertigym.feel.syntax import (
    CompareNode,
    Constant,
    Expr,
    Iteration,
    RangeNode,
    UnaryTests,
)
from vertigym.feel.temporal import Date
from vertigym.feel.values import (
    MOST_ITEMS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    measure,
    number,
    shown,
)

MOST_STEPS = 1_000_000
MOST_REASONS = 100
MOST_CALLS = 50  # of functions in each other, far below where Python's own recursion ends
Clock = Callable[[], datetime]
P = ParamSpec("P")
V = TypeVar("V")
Rule = Callable[["Interpreter", Any, "Scope"], Value]
RULES: dict[type[Expr], Rule] = {}


def rule(kind: type[Expr]) -> Callable[[Rule], Rule]:
    """Declares how nodes of a kind are evaluated."""

    def declare(evaluate: Rule) -> Rule:
        RULES[kind] = evaluate
        return evaluate

    return declare


class Scope:
    """Names and their values, and what lies around."""

    __slots__ = ("names", "outer")

    def __init__(self, names: Mapping[str, Value], outer: "Scope | None" = None) -> None:
        self.names = names
        self.outer = outer

    def find(self, name: str) -> "Scope | None":
        """The innermost scope that has the name."""
        scope: Scope | None = self
        while scope is not None and name not in scope.names:
            scope = scope.outer
        return scope


class Interpreter:
    """One evaluation: what it may use, what it has spent, and why its nulls are null."""

    def __init__(self, clock: Clock | None, reasons: MutableSequence[str] | None, types: Types | None) -> None:
        self.clock = clock
        self.types = types
        self.reasons = [] if reasons is None else reasons
        self.steps = MOST_STEPS
        self.calls = 0  # inside how many
        self.reads_input = False  # whether `?` has been read since this was last set

    def value(self, expr: Expr, scope: Scope) -> Value:
        """What an expression is worth; null, with the reason kept, where it has no value."""
        self.spend(1)
        try:  # as in `kept`, without its frame: recursion goes deeper
            return RULES[type(expr)](self, expr, scope)
        except NoValue as error:
            self.note(error)
            return None

    def note(self, reason: NoValue) -> None:
        """Keeps why something is null."""
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append(str(reason))

    def kept(self, work: Callable[P, V], *arguments: P.args, **named: P.kwargs) -> V | None:
        """What `work` gives; null, with the reason kept, where it has no value."""
        try:
            return work(*arguments, **named)
        except NoValue as error:
            self.note(error)
            return None

    def spend(self, steps: int) -> None:
        """Counts work.

        Raises:
            FeelError: there has been too much of it.
        """
        self.steps -= steps
        if self.steps < 0:
            raise FeelError(f"the expression takes more than {MOST_STEPS} steps to evaluate")

    def walk(self, *values: Value) -> None:
        """Counts the walk through lists and contexts, and the length of texts."""
        for value in values:
            if isinstance(value, list | dict):
                self.spend(measure(value, 8 * self.steps + 8) // 8)
            elif isinstance(value, str):
                self.spend(len(value) // 16)

    def satisfies(self, tests: UnaryTests, value: Value, scope: Scope) -> bool | None:
        """Whether a value passes unary tests."""
        if not tests.tests:
            return True
        found = self.any_test(tests.tests, value, scope)
        return found if not tests.negated or found is None else not found

    def any_test(self, tests: tuple[Expr, ...], value: Value, scope: Scope) -> bool | None:
        """Whether a value passes one of the tests: three-valued `or`."""
        inner = Scope({"?": value}, scope)
        found: bool | None = False
        for test in tests:
            passed = self.kept(self._passes, test, value, inner)
            if passed:
                return True
            found = None if passed is None else found
        return found

    def _passes(self, test: Expr, value: Value, scope: Scope) -> bool | None:
        if isinstance(test, CompareNode):
            bound = self.value(test.bound, scope)
            self.walk(value, bound)
            return compare(test.operator, value, bound)
        outer, self.reads_input = self.reads_input, False
        result = self.value(test, scope)
        asked, self.reads_input = self.reads_input, outer
        if (
            isinstance(result, bool)
            and not isinstance(test, Constant)
            and (asked or not isinstance(value, bool))
        ):
            return result
        if result is None and asked:
            return None
        if isinstance(test, RangeNode) and (not isinstance(result, Range) or None in (result.low, result.high)):
            return None
        self.walk(value, result)
        return _matches(value, result)

    def invoke(self, function: Value, arguments: list[Value], names: tuple[str, ...] = ()) -> Value:
        """The result of a function.

        Raises:
            NoValue: it is none, the arguments do not fit, or it has no value for them.
        """
        self.walk(*arguments)
        if isinstance(function, BuiltIn):
            run, values = function.bind(arguments, names)
            now = [self.clock() if self.clock else None] if function.clocked else []
            try:
                result = run(*now, *values)
            except DecimalException:
                raise NoValue(f"{function.name}({', '.join(map(shown, values))}): no such number") from None
            self.walk(result)
            return result
        if not isinstance(function, Function):
            raise NoValue(f"{shown(function)} is no function")
        values = self._bound(function, arguments, names)
        self.calls += 1
        try:
            if self.calls > MOST_CALLS:
                raise FeelError(f"functions call each other more than {MOST_CALLS} levels deep")
            return coerced(function.call(*values), function.result, self.types)
        finally:
            self.calls -= 1

    def _bound(self, function: Function, arguments: list[Value], names: tuple[str, ...]) -> list[Value]:
        if names:
            given = dict(zip(names, arguments, strict=True))
            if set(given) != set(function.parameters) or len(given) != len(arguments):
                raise NoValue(f"{function.name} takes {', '.join(function.parameters)}; got {', '.join(names)}")
            arguments = [given[name] for name in function.parameters]
        if len(arguments) != len(function.parameters):
            raise NoValue(f"{function.name} takes {len(function.parameters)} arguments; got {len(arguments)}")
        if not function.types:
            return arguments
        return [coerced(value, kind, self.types) for value, kind in zip(arguments, function.types, strict=True)]

    def domain(self, iteration: Iteration, scope: Scope) -> list[Value]:
        """What an iterator goes through."""
        start = self.value(iteration.domain, scope)
        if iteration.end is not None:
            return _steps(start, self.value(iteration.end, scope))
        match start:
            case list():
                return start
            case Range(low, high, low_closed, high_closed):
                found = _steps(low, high)
                return found[not low_closed : len(found) - (not high_closed)]
            case None:
                raise NoValue(f"{iteration.name} in null")
        return [start]

    def rounds(self, iterations: tuple[Iteration, ...], scope: Scope) -> Iterator[Scope]:
        """One scope for each combination of the iterators' values; a later one may depend on the earlier."""
        if not iterations:
            yield scope
            return
        domain = self.domain(iterations[0], scope)
        self.spend(len(domain))
        for value in domain:
            yield from self.rounds(iterations[1:], Scope({iterations[0].name: value}, scope))


def _matches(value: Value, result: Value) -> bool | None:
    """Whether a value is what a test evaluates to, or lies in it."""
    if isinstance(result, Range) and not isinstance(value, Range):
        return None if value is None else in_range(value, result)
    if isinstance(result, list):
        return equal(value, result) is True or any(_is_match(value, item) for item in result)
    return equal(value, result) is True


def _is_match(value: Value, item: Value) -> bool:
    try:
        return bool(_matches(value, item)) if isinstance(item, Range) else equal(value, item) is True
    except NoValue:
        return False


def _steps(low: Value, high: Value) -> list[Value]:
    """Whole numbers or dates from one to the other, upwards or downwards."""
    match low, high:
        case Decimal(), Decimal() if low == int(low) and high == int(high):
            first, last = int(low), int(high)
        case Date(), Date():
            first, last = low.ordinal, high.ordinal
        case _:
            raise NoValue(f"{shown(low)}..{shown(high)}: neither whole numbers nor dates")
    if abs(last - first) >= MOST_ITEMS:
        raise FeelError(f"the range {shown(low)}..{shown(high)}: at most {MOST_ITEMS} steps are taken")
    way = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return [Date.of_ordinal(i) if isinstance(low, Date) else number(i) for i in way]
