"""Cells that can be seen to be wrong without any case: a literal that is no value, or not of its column's type.

date("2024-02-30")      no such day: the cell never holds
"high"                  in a column of numbers, or not among the column's values
"""

from collections.abc import Iterator

from vertigym.decisions.dmn.decision_tables import Column, DecisionTable, OutputClause, TableRule
from vertigym.decisions.dmn.item_types import ItemType
from vertigym.feel import Expr, UnaryTests, Value, evaluate, satisfies
from vertigym.feel.syntax import Call, CompareNode, Constant, NullNode, RangeNode, Variable

_DATED = {"date", "time", "date and time", "duration", "years and months duration"}


def cell_faults(table: DecisionTable) -> Iterator[tuple[str, str, str]]:
    """The rule's id, the cell and what is wrong with it, for each fault of a table."""
    for rule in table.rules:
        id_ = f"{table.id}:{rule.number}"
        for column, text, tests in zip(table.columns, rule.cells, rule.tests, strict=True):
            for fault in _test_faults(column, tests):
                yield id_, f"{column.text}: {text}", fault
        for output, text, tree in zip(table.outputs, rule.results, rule.trees, strict=True):
            for fault in _result_faults(table, rule, output, tree):
                yield id_, f"{output.name or 'result'}: {text}", fault


def _test_faults(column: Column, tests: UnaryTests) -> Iterator[str]:
    for test in tests.tests:
        yield from map(_no_value, _dead_literals(test))
        for value in _literals(test):
            alone = isinstance(test, Constant) and not tests.negated
            if value is None:
                continue
            if not _is_of(value, column.type):
                yield f"{_shown(value)} is not of the column's type {column.type.name}"
            elif alone and column.limits and satisfies(column.limits, value, {}) is False:
                yield f"{_shown(value)} is not among the column's values {column.limit_text}"


def _result_faults(
    table: DecisionTable, rule: TableRule, output: OutputClause, tree: Expr | None
) -> Iterator[str]:
    if tree is None:
        return
    yield from map(_no_value, _dead_literals(tree))
    if isinstance(tree, Constant) and tree.value is not None:
        if not _is_of(tree.value, output.type):
            yield f"{_shown(tree.value)} is not of the output's type {output.type.name}"
        elif output.order and all(isinstance(o, Constant) for o in output.order) and tree not in output.order:
            yield f"{_shown(tree.value)} is not among the output's values {output.limit_text}"


def _no_value(text: str) -> str:
    return f"{text} is no value"


def _literals(test: Expr) -> Iterator[Value]:
    """The literals that a test compares with."""
    match test:
        case Constant(value=value):
            yield value
        case CompareNode(bound=Constant(value=value)):
            yield value
        case RangeNode(low=low, high=high):
            yield from (part.value for part in (low, high) if isinstance(part, Constant))


def _dead_literals(tree: Expr) -> Iterator[str]:
    """Dates, times and durations written as literals that are none."""
    for part in tree.walk():
        if isinstance(part, NullNode):
            yield part.reason
        elif isinstance(part, Call) and isinstance(part.function, Variable) and part.function.name in _DATED:
            values = [a.value for a in part.arguments if isinstance(a, Constant)]
            if len(values) == len(part.arguments) and None not in values and evaluate(part, {}) is None:
                yield f"{part.function.name}({', '.join(map(_shown, values))})"


def _is_of(value: Value, kind: ItemType) -> bool:
    """Whether a literal may be of a type; one of a list's items, too."""
    return kind.holds(value) or (kind.item is not None and kind.item.holds(value))


def _shown(value: Value) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)
