"""Evaluation of the syntax tree: one function a kind of node, in a table.

Whatever has no value raises `NoValue` inside; the node that is evaluated becomes null there, and the reason is
kept. Work is counted, so that no text can run for ever or fill the memory: a step for each node evaluated, and
one for each eight values that an operation walks through.
Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.
"""

from collections.abc import Callable, Iterator, Mapping, MutableSequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from vertigym.decisions.feel import functions
from vertigym.decisions.feel.conformance import Types, coerced, conforms
from vertigym.decisions.feel.feel_types import ANY, FeelType
from vertigym.decisions.feel.operators import compare, equal, in_range, negate, operate
from vertigym.decisions.feel.properties import property_of
from vertigym.decisions.feel.signatures import BuiltIn
from vertigym.decisions.feel.syntax import (
    Between,
    Binary,
    Call,
    Comparison,
    Constant,
    ContextNode,
    Expr,
    Filter,
    For,
    FunctionNode,
    If,
    InstanceOf,
    InTests,
    Iteration,
    ListNode,
    Negation,
    NullNode,
    Path,
    Quantified,
    RangeNode,
    UnaryTests,
    Variable,
)
from vertigym.decisions.feel.temporal import Date
from vertigym.decisions.feel.values import (
    MOST_ITEMS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    kind_of,
    measure,
    shown,
)

MOST_STEPS = 3_000_000
MOST_REASONS = 100
Clock = Callable[[], datetime]


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


class Evaluation:
    """One evaluation: what it may use, what it has spent, and why its nulls are null."""

    def __init__(self, clock: Clock | None, reasons: MutableSequence[str] | None, types: Types | None) -> None:
        self.clock = clock
        self.types = types
        self.reasons = [] if reasons is None else reasons
        self.steps = MOST_STEPS
        self.reads_input = False  # whether `?` has been read since this was last set

    def value(self, expr: Expr, scope: Scope) -> Value:
        """What an expression is worth; null, with the reason kept, where it has no value."""
        self.spend(1)
        try:
            return _RULES[type(expr)](self, expr, scope)
        except NoValue as error:
            self.note(error)
            return None

    def note(self, reason: NoValue) -> None:
        """Keeps why something is null."""
        if len(self.reasons) < MOST_REASONS:
            self.reasons.append(str(reason))

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
            try:
                passed = self._passes(test, value, inner)
            except NoValue as error:
                self.note(error)
                passed = None
            if passed:
                return True
            found = None if passed is None else found
        return found

    def _passes(self, test: Expr, value: Value, scope: Scope) -> bool | None:
        if isinstance(test, Comparison):
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
        if result is None and (asked or isinstance(test, RangeNode)):
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
            result = run(*now, *values)
            self.walk(result)
            return result
        if not isinstance(function, Function):
            raise NoValue(f"{shown(function)} is no function")
        return coerced(function.call(*self._bound(function, arguments, names)), function.result, self.types)

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
        raise FeelError(f"a range of {abs(last - first) + 1} steps; at most {MOST_ITEMS} are taken")
    way = range(first, last + 1) if first <= last else range(first, last - 1, -1)
    return [Date.of_ordinal(i) if isinstance(low, Date) else Decimal(i) for i in way]


def _constant(_: Evaluation, expr: Constant, __: Scope) -> Value:
    return expr.value


def _null(_: Evaluation, expr: NullNode, __: Scope) -> Value:
    raise NoValue(expr.reason)


def _variable(run: Evaluation, expr: Variable, scope: Scope) -> Value:
    found = scope.find(expr.name)
    if found is None:
        if expr.name in functions.BUILT_INS:
            return functions.BUILT_INS[expr.name]
        raise NoValue(f"there is no {expr.name!r} here")
    if expr.name == "?":
        run.reads_input = True
    return found.names[expr.name]


def _path(run: Evaluation, expr: Path, scope: Scope) -> Value:
    source = run.value(expr.source, scope)
    if not isinstance(source, list):
        return property_of(source, expr.name)
    run.spend(len(source))
    return [_member(run, item, expr.name) for item in source]


def _member(run: Evaluation, item: Value, name: str) -> Value:
    try:
        return property_of(item, name)
    except NoValue as error:
        run.note(error)
        return None


def _filter(run: Evaluation, expr: Filter, scope: Scope) -> Value:
    source = run.value(expr.source, scope)
    if source is None:
        raise NoValue("a filter of null")
    items = source if isinstance(source, list) else [source]
    kept = []
    for item in items:
        fields = item if isinstance(item, dict) else {}
        condition = _filtered_by(run, expr.condition, item, Scope(fields, Scope({"item": item}, scope)))
        if isinstance(condition, Decimal):
            return _picked(items, condition)
        if not isinstance(condition, bool | None):
            raise NoValue(f"a filter's condition is {shown(condition)}, neither boolean nor number")
        if condition:
            kept.append(item)
    if not items and isinstance(expr.condition, Constant | Negation):
        raise NoValue("there is no item in an empty list")
    return kept


def _filtered_by(run: Evaluation, condition: Expr, item: Value, scope: Scope) -> Value:
    if isinstance(condition, Comparison):  # [> 5]: a test of the item
        return run.any_test((condition,), item, scope)
    return run.value(condition, scope)


def _picked(items: list[Value], place: Decimal) -> Value:
    index = int(place) if place == int(place) else 0
    if not 1 <= abs(index) <= len(items):
        raise NoValue(f"there is no item {place} in a list of {len(items)}")
    return items[index - 1 if index > 0 else index]


def _call(run: Evaluation, expr: Call, scope: Scope) -> Value:
    function = run.value(expr.function, scope)
    return run.invoke(function, [run.value(each, scope) for each in expr.arguments], expr.names)


def _negation(run: Evaluation, expr: Negation, scope: Scope) -> Value:
    return negate(run.value(expr.operand, scope))


def _binary(run: Evaluation, expr: Binary, scope: Scope) -> Value:
    """Operators in a row are folded from the left in a loop: a row may be longer than recursion goes."""
    row = [expr]
    while isinstance(row[-1].left, Binary):
        row.append(row[-1].left)
    value = run.value(row[-1].left, scope)
    for each in reversed(row):
        try:
            value = _operation(run, each, value, scope)
        except NoValue as error:
            if each is expr:
                raise
            run.note(error)
            value = None
    return value


def _operation(run: Evaluation, expr: Binary, left: Value, scope: Scope) -> Value:
    if expr.operator in ("and", "or"):
        decisive = expr.operator == "or"
        if left is decisive:
            return decisive
        right = run.value(expr.right, scope)
        if right is decisive:
            return decisive
        for side in (left, right):
            if not isinstance(side, bool | None):
                raise NoValue(f"{shown(side)} {expr.operator} …: {kind_of(side)} is not boolean")
        return None if left is None or right is None else not decisive
    right = run.value(expr.right, scope)
    run.walk(left, right)
    if expr.operator in ("=", "!=", "<", "<=", ">", ">="):
        return compare(expr.operator, left, right)
    return operate(expr.operator, left, right)


def _between(run: Evaluation, expr: Between, scope: Scope) -> Value:
    value, low, high = (run.value(each, scope) for each in (expr.value, expr.low, expr.high))
    return compare(">=", value, low) and compare("<=", value, high)


def _in(run: Evaluation, expr: InTests, scope: Scope) -> Value:
    return run.any_test(expr.tests, run.value(expr.value, scope), scope)


def _if(run: Evaluation, expr: Expr, scope: Scope) -> Value:
    while isinstance(expr, If):
        chosen = run.value(expr.condition, scope) is True
        expr = expr.then_value if chosen else expr.else_value
    return run.value(expr, scope)


def _for(run: Evaluation, expr: For, scope: Scope) -> Value:
    results: list[Value] = []
    reads_partial = any(isinstance(each, Variable) and each.name == "partial" for each in expr.body.walk())
    for inner in run.rounds(expr.iterations, scope):
        so_far = {"partial": results[:]} if reads_partial else {}
        run.spend(len(results) if reads_partial else 0)
        results.append(run.value(expr.body, Scope(inner.names, Scope(so_far, inner.outer))))
        if len(results) > MOST_ITEMS:
            raise FeelError(f"a list of more than {MOST_ITEMS} items")
    return results


def _quantified(run: Evaluation, expr: Quantified, scope: Scope) -> Value:
    decisive = expr.quantifier == "some"
    found: bool | None = not decisive
    for inner in run.rounds(expr.iterations, scope):
        holds = run.value(expr.body, inner)
        if holds is decisive:
            return decisive
        if not isinstance(holds, bool):
            found = None
    return found


def _instance_of(run: Evaluation, expr: InstanceOf, scope: Scope) -> Value:
    value = run.value(expr.value, scope)
    run.walk(value)
    return conforms(value, expr.type, run.types)


def _list(run: Evaluation, expr: ListNode, scope: Scope) -> Value:
    return [run.value(item, scope) for item in expr.items]


def _context(run: Evaluation, expr: ContextNode, scope: Scope) -> Value:
    entries: dict[str, Value] = {}
    inner = Scope(entries, scope)
    for key, each in expr.entries:
        if key in entries:
            raise NoValue(f"a context with two entries {key!r}")
        entries[key] = run.value(each, inner)
    return entries


def _range(run: Evaluation, expr: RangeNode, scope: Scope) -> Value:
    low, high = run.value(expr.low, scope), run.value(expr.high, scope)
    if low is None or high is None:
        raise NoValue("a range with an end that is null")
    compare("<=", low, high)
    return Range(low, high, expr.low_closed, expr.high_closed)


def _unary_range(run: Evaluation, expr: Comparison, scope: Scope) -> Value:
    bound = run.value(expr.bound, scope)
    compare("<=", bound, bound)
    match expr.operator:
        case "<" | "<=":
            return Range(None, bound, False, expr.operator == "<=")
        case ">" | ">=":
            return Range(bound, None, expr.operator == ">=", False)
        case "=":
            return Range(bound, bound, True, True)
    raise NoValue("`!=` without a left side is a test, not a value")


def _function(run: Evaluation, expr: FunctionNode, scope: Scope) -> Value:
    def call(*arguments: Value) -> Value:
        if expr.external:
            raise NoValue("an external function is never called")
        return run.value(expr.body, Scope(dict(zip(expr.parameters, arguments, strict=True)), scope))

    types: tuple[FeelType, ...] = expr.types if any(kind != ANY for kind in expr.types) else ()
    return Function("function", expr.parameters, call, types)


_RULES: dict[type[Expr], Callable[[Evaluation, Any, Scope], Value]] = {
    Constant: _constant,
    NullNode: _null,
    Variable: _variable,
    Path: _path,
    Filter: _filter,
    Call: _call,
    Negation: _negation,
    Binary: _binary,
    Between: _between,
    InTests: _in,
    If: _if,
    For: _for,
    Quantified: _quantified,
    InstanceOf: _instance_of,
    ListNode: _list,
    ContextNode: _context,
    RangeNode: _range,
    Comparison: _unary_range,
    FunctionNode: _function,
}
