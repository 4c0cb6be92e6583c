"""How each kind of node of the syntax tree is evaluated: one function a kind.

Source: OMG Decision Model and Notation 1.5, chapter 10.3.2.
"""

from decimal import Decimal

from vertigym.feel import functions
from vertigym.feel.conformance import conforms
from vertigym.feel.evaluation import Interpreter, Scope, rule
from vertigym.feel.feel_types import ANY, FeelType
from vertigym.feel.operators import compare, negate, operate, order
from vertigym.feel.properties import property_of
from vertigym.feel.syntax import (
    Between,
    Binary,
    Call,
    CompareNode,
    Constant,
    ContextNode,
    Expr,
    Filter,
    For,
    FunctionNode,
    If,
    InstanceOf,
    InTests,
    ListNode,
    Negation,
    NullNode,
    Path,
    Quantified,
    RangeNode,
    Variable,
)
from vertigym.feel.values import (
    MOST_ITEMS,
    FeelError,
    Function,
    NoValue,
    Range,
    Value,
    kind_of,
    shown,
)


@rule(Constant)
def _constant(_: Interpreter, expr: Constant, __: Scope) -> Value:
    return expr.value


@rule(NullNode)
def _null(_: Interpreter, expr: NullNode, __: Scope) -> Value:
    raise NoValue(expr.reason)


@rule(Variable)
def _variable(run: Interpreter, expr: Variable, scope: Scope) -> Value:
    found = scope.find(expr.name)
    if found is None:
        if expr.name in functions.BUILT_INS:
            return functions.BUILT_INS[expr.name]
        raise NoValue(f"there is no {expr.name!r} here")
    if expr.name == "?":
        run.reads_input = True
    return found.names[expr.name]


@rule(Path)
def _path(run: Interpreter, expr: Path, scope: Scope) -> Value:
    source = run.value(expr.source, scope)
    if not isinstance(source, list):
        return property_of(source, expr.name)
    run.spend(len(source))
    return [run.kept(property_of, item, expr.name) for item in source]


@rule(Filter)
def _filter(run: Interpreter, expr: Filter, scope: Scope) -> Value:
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


def _filtered_by(run: Interpreter, condition: Expr, item: Value, scope: Scope) -> Value:
    if isinstance(condition, CompareNode):  # [> 5]: a test of the item
        return run.any_test((condition,), item, scope)
    return run.value(condition, scope)


def _picked(items: list[Value], place: Decimal) -> Value:
    index = int(place) if place == int(place) else 0
    if not 1 <= abs(index) <= len(items):
        raise NoValue(f"there is no item {place} in a list of {len(items)}")
    return items[index - 1 if index > 0 else index]


@rule(Call)
def _call(run: Interpreter, expr: Call, scope: Scope) -> Value:
    function = run.value(expr.function, scope)
    return run.invoke(function, [run.value(each, scope) for each in expr.arguments], expr.names)


@rule(Negation)
def _negation(run: Interpreter, expr: Negation, scope: Scope) -> Value:
    return negate(run.value(expr.operand, scope))


@rule(Binary)
def _binary(run: Interpreter, expr: Binary, scope: Scope) -> Value:
    """Operators in a row are folded from the left in a loop: a row may be longer than recursion goes."""
    row = [expr]
    while isinstance(row[-1].left, Binary):
        row.append(row[-1].left)
    value = run.value(row[-1].left, scope)
    for each in reversed(row):
        value = run.kept(_operation, run, each, value, scope)
    return value


def _operation(run: Interpreter, expr: Binary, left: Value, scope: Scope) -> Value:
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


@rule(Between)
def _between(run: Interpreter, expr: Between, scope: Scope) -> Value:
    value, low, high = (run.value(each, scope) for each in (expr.value, expr.low, expr.high))
    ends = [(">=", low), ("<=", high)]
    sides = [run.kept(compare, operator, value, end) for operator, end in ends]
    return False if False in sides else None if None in sides else True


@rule(InTests)
def _in(run: Interpreter, expr: InTests, scope: Scope) -> Value:
    return run.any_test(expr.tests, run.value(expr.value, scope), scope)


@rule(If)
def _if(run: Interpreter, expr: Expr, scope: Scope) -> Value:
    while isinstance(expr, If):
        chosen = run.value(expr.condition, scope)
        if not isinstance(chosen, bool | None):
            raise NoValue(f"a condition that is {shown(chosen)}, not boolean")
        expr = expr.then_value if chosen else expr.else_value
    return run.value(expr, scope)


@rule(For)
def _for(run: Interpreter, expr: For, scope: Scope) -> Value:
    results: list[Value] = []
    reads_partial = any(isinstance(each, Variable) and each.name == "partial" for each in expr.body.walk())
    for inner in run.rounds(expr.iterations, scope):
        so_far = {"partial": results[:]} if reads_partial else {}
        run.spend(len(results) if reads_partial else 0)
        results.append(run.value(expr.body, Scope(inner.names, Scope(so_far, inner.outer))))
        if len(results) > MOST_ITEMS:
            raise FeelError(f"a list of more than {MOST_ITEMS} items")
    return results


@rule(Quantified)
def _quantified(run: Interpreter, expr: Quantified, scope: Scope) -> Value:
    decisive = expr.quantifier == "some"
    found: bool | None = not decisive
    for inner in run.rounds(expr.iterations, scope):
        holds = run.value(expr.body, inner)
        if holds is decisive:
            return decisive
        if not isinstance(holds, bool):
            found = None
        if not isinstance(holds, bool | None):
            run.note(NoValue(f"{expr.quantifier} … satisfies {shown(holds)}, not a boolean"))
    return found


@rule(InstanceOf)
def _instance_of(run: Interpreter, expr: InstanceOf, scope: Scope) -> Value:
    value = run.value(expr.value, scope)
    run.walk(value)
    return conforms(value, expr.type, run.types)


@rule(ListNode)
def _list(run: Interpreter, expr: ListNode, scope: Scope) -> Value:
    return [run.value(item, scope) for item in expr.items]


@rule(ContextNode)
def _context(run: Interpreter, expr: ContextNode, scope: Scope) -> Value:
    entries: dict[str, Value] = {}
    inner = Scope(entries, scope)
    for key, each in expr.entries:
        if key in entries:
            raise NoValue(f"a context with two entries {key!r}")
        entries[key] = run.value(each, inner)
    return entries


@rule(RangeNode)
def _range(run: Interpreter, expr: RangeNode, scope: Scope) -> Value:
    low, high = run.value(expr.low, scope), run.value(expr.high, scope)
    if low is None or high is None:
        if low is high or (low is None and expr.low_closed) or (high is None and expr.high_closed):
            raise NoValue("a range with an end that is null, and included")
    else:
        order(low, high)  # of kinds that can be compared
    return Range(low, high, expr.low_closed, expr.high_closed)


@rule(CompareNode)
def _unary_range(run: Interpreter, expr: CompareNode, scope: Scope) -> Value:
    bound = run.value(expr.bound, scope)
    order(bound, bound)
    match expr.operator:
        case "<" | "<=":
            return Range(None, bound, False, expr.operator == "<=")
        case ">" | ">=":
            return Range(bound, None, expr.operator == ">=", False)
        case "=":
            return Range(bound, bound, True, True)
    raise NoValue("`!=` without a left side is a test, not a value")


@rule(FunctionNode)
def _function(run: Interpreter, expr: FunctionNode, scope: Scope) -> Value:
    def call(*arguments: Value) -> Value:
        if expr.external:
            raise NoValue("an external function is never called")
        return run.value(expr.body, Scope(dict(zip(expr.parameters, arguments, strict=True)), scope))

    types: tuple[FeelType, ...] = expr.types if any(kind != ANY for kind in expr.types) else ()
    return Function("function", expr.parameters, call, types)
