"""Decision tables: which rules match a scope, and what their hit policy makes of them.

A cell that asks for nothing but its column's value is tested once for each value: the rules that pass are kept
as a bit mask, so a table of a thousand rules costs one look-up a column. Source: OMG DMN 1.5, chapter 8.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from vertigym.decisions.dmn.item_types import ItemType
from vertigym.decisions.dmn.running import Evaluator, Scope
from vertigym.feel import Expr, FeelType, UnaryTests, Value, evaluate, parse, satisfies
from vertigym.feel.syntax import CompareNode, Constant, RangeNode, Variable

LISTS = ("RULE ORDER", "OUTPUT ORDER", "COLLECT")
POLICIES = ("UNIQUE", "ANY", "PRIORITY", "FIRST", *LISTS)
AGGREGATES = {"SUM": "sum", "MIN": "min", "MAX": "max", "COUNT": "count"}
_MOST_CACHED = 20_000  # values of one column


@dataclass(slots=True)
class Column:
    """An input clause. `limits` are its input values; `simple` is the name or path it is, where it is nothing
    more."""

    text: str
    tree: Expr
    type: ItemType
    limits: UnaryTests | None
    limit_text: str = ""
    masks: dict[tuple[Any, Value], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class OutputClause:
    """An output clause; `order` are its output values in order of priority, `default` stands where no rule
    matches."""

    name: str
    type: ItemType
    order: tuple[Expr, ...]
    default: Expr | None
    limit_text: str = ""
    default_text: str = ""


@dataclass(frozen=True, slots=True)
class TableRule:
    """A rule: texts as written, and what they compile to."""

    number: int
    cells: tuple[str, ...]
    tests: tuple[UnaryTests, ...]
    results: tuple[str, ...]
    trees: tuple[Expr | None, ...]


Span = tuple[Decimal | None, bool, Decimal | None, bool]  # low, whether it belongs to it, high, likewise


@dataclass(slots=True)
class ClosedCell:
    """A cell that asks for nothing but its column's value, with a bit for each rule that has it. `spans` is
    what it says of numbers, where it is made of numbers only."""

    tests: UnaryTests
    spans: tuple[Span, ...] | None
    rules: int = 0

    def passes(self, value: Value, types: Mapping[str, FeelType]) -> bool:
        """Whether a value passes."""
        if not self.tests.tests:
            return True
        if self.spans is None or not isinstance(value, Decimal):
            return satisfies(self.tests, value, {}, types=types) is True
        held = any(
            (low is None or low < value or (at_low and low == value))
            and (high is None or value < high or (at_high and high == value))
            for low, at_low, high, at_high in self.spans
        )
        return held is not self.tests.negated


@dataclass(slots=True)
class DecisionTable:
    """A compiled table; `id` begins the ids of its rules (`id:3` is the third)."""

    id: str
    policy: str
    aggregate: str
    columns: list[Column]
    outputs: list[OutputClause]
    rules: list[TableRule]
    types: dict[str, FeelType]
    closed: list[int] = field(default_factory=list)  # by column: the rules whose cell asks for no other name
    closed_cells: list[list["ClosedCell"]] = field(default_factory=list)

    def body(self, scope: Scope, run: Evaluator) -> Value:
        """The table's result in a scope."""
        matched = self.matches(scope, run)
        kept = self._kept(matched, scope, run)
        run.hits += [f"{self.id}:{rule.number}" for rule, _ in kept]
        run.seen[self.id] = scope
        if not kept:
            return self._default(scope, run)
        if self.policy not in LISTS:
            return self._result(kept[0][1])
        found = [self._result(values) for _, values in kept]
        return self._aggregated(found, run) if self.aggregate else found

    def matches(self, scope: Scope, run: Evaluator) -> list[TableRule]:
        """The rules that match."""
        left = (1 << len(self.rules)) - 1
        for place, column in enumerate(self.columns):
            tree = column.tree
            if isinstance(tree, Variable) and tree.name in scope:
                value = scope[tree.name]
            else:
                value = run.value(tree, scope, self.types)
            value = run.coerced(value, column.type, column.text)
            if column.limits and value is not None and not _within(column.limits, column.type, value, scope):
                run.reasons.append(f"{self.id}: {column.text} lies outside its input values")
                return []
            mask = self._closed_matches(place, column, value) | ~self.closed[place]
            left &= mask
            for index in _bits(left & ~self.closed[place]):
                tests = self.rules[index].tests[place]
                if satisfies(tests, value, scope, run.clock, reasons=run.reasons, types=self.types) is not True:
                    left &= ~(1 << index)
            if not left:
                break
        return [self.rules[index] for index in _bits(left)]

    def _closed_matches(self, place: int, column: Column, value: Value) -> int:
        """The rules whose cell asks for nothing but the column's value, and passes it."""
        hashable = not isinstance(value, list | dict)
        key = (value.__class__, value if hashable else None)
        if hashable and (known := column.masks.get(key)) is not None:
            return known
        mask = 0
        for cell in self.closed_cells[place]:
            if cell.passes(value, self.types):
                mask |= cell.rules
        if hashable and len(column.masks) < _MOST_CACHED:
            column.masks[key] = mask
        return mask

    # Hit policies.

    def _kept(
        self, matched: Sequence[TableRule], scope: Scope, run: Evaluator
    ) -> list[tuple[TableRule, list[Value]]]:
        """The rules that count, in the order of the result, with their outputs."""
        if self.policy == "UNIQUE" and len(matched) > 1:
            self._violated(matched, run)
            return []
        if self.policy == "FIRST":
            matched = matched[:1]
        kept = [(rule, self._outputs(rule, scope, run)) for rule in matched]
        if self.policy == "ANY" and kept:
            if any(values != kept[0][1] for _, values in kept):
                self._violated(matched, run)
                return []
            return kept[:1]
        if self.policy in ("PRIORITY", "OUTPUT ORDER"):
            kept.sort(key=lambda pair: self._rank(pair[1], scope, run))
        return kept[:1] if self.policy == "PRIORITY" else kept

    def _violated(self, matched: Sequence[TableRule], run: Evaluator) -> None:
        numbers = ", ".join(str(rule.number) for rule in matched)
        run.faults.append(f"{self.id}: rules {numbers} match together, against hit policy {self.policy}")

    def _outputs(self, rule: TableRule, scope: Scope, run: Evaluator) -> list[Value]:
        found = []
        for tree, output in zip(rule.trees, self.outputs, strict=True):
            value = None if tree is None else run.value(tree, scope, self.types)
            found.append(run.coerced(value, output.type, f"{self.id}:{rule.number}"))
        return found

    def _rank(self, values: Sequence[Value], scope: Scope, run: Evaluator) -> list[int]:
        """A rule's place by its outputs' priority; a value that is not listed comes last."""
        places = []
        for value, output in zip(values, self.outputs, strict=True):
            order = [run.value(tree, scope, self.types) for tree in output.order]
            places.append(next((i for i, other in enumerate(order) if other == value), len(order)))
        return places

    def _result(self, values: Sequence[Value]) -> Value:
        if len(self.outputs) == 1:
            return values[0]
        return {output.name: value for output, value in zip(self.outputs, values, strict=True)}

    def _default(self, scope: Scope, run: Evaluator) -> Value:
        if any(output.default for output in self.outputs):
            made = self._result(
                [
                    run.value(output.default, scope, self.types) if output.default else None
                    for output in self.outputs
                ]
            )
            return (
                [made] if self.policy in LISTS and not self.aggregate and not isinstance(made, list) else made
            )
        if self.policy in LISTS and not self.aggregate:
            return []
        return self._aggregated([], run) if self.aggregate == "COUNT" else None

    def _aggregated(self, found: list[Value], run: Evaluator) -> Value:
        tree = parse(f"{AGGREGATES[self.aggregate]}(results)", ["results"])
        return evaluate(tree, {"results": found}, reasons=run.reasons)

    @property
    def defaults(self) -> str:
        """The default outputs as text, empty where there are none."""
        return ", ".join(output.default_text for output in self.outputs if output.default_text)

    def by_priority(self) -> list[TableRule]:
        """The rules in the order of their literal outputs' priority."""
        orders = [[getattr(tree, "value", None) for tree in output.order] for output in self.outputs]

        def rank(rule: TableRule) -> list[int]:
            pairs = zip(self.constant(rule) or (), orders, strict=True)
            return [order.index(value) if value in order else len(order) for value, order in pairs]

        return sorted(self.rules, key=rank)

    def constant(self, rule: TableRule) -> list[Value] | None:
        """A rule's outputs where all are literals."""
        if all(tree is None or isinstance(tree, Constant) for tree in rule.trees):
            return [tree.value if isinstance(tree, Constant) else None for tree in rule.trees]
        return None


def _within(limits: UnaryTests, kind: ItemType, value: Value, scope: Scope) -> bool:
    """Whether a value, or each item of a list, is among a column's input values."""
    items = value if isinstance(value, list) and (kind.item or kind.base.name == "list") else [value]
    return all(satisfies(limits, item, scope) is True for item in items)


def _bits(mask: int) -> Iterator[int]:
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def spans_of(tests: UnaryTests) -> tuple[Span, ...] | None:
    """The spans of numbers that pass a test; None where it is made of anything else."""
    found: list[Span] = []
    for test in tests.tests:
        match test:
            case Constant(value=Decimal() as value):
                found.append((value, True, value, True))
            case CompareNode(operator="=", bound=Constant(value=Decimal() as value)):
                found.append((value, True, value, True))
            case CompareNode(operator="<" | "<=" as operator, bound=Constant(value=Decimal() as high)):
                found.append((None, False, high, operator == "<="))
            case CompareNode(operator=">" | ">=" as operator, bound=Constant(value=Decimal() as low)):
                found.append((low, operator == ">=", None, False))
            case RangeNode(
                Constant(value=Decimal() as low), Constant(value=Decimal() as high), at_low, at_high
            ):
                found.append((low, at_low, high, at_high))
            case _:
                return None
    return tuple(found)
