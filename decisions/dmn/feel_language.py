"""FEEL as the analysis of rules asks about it (`protocols.Language`): read from the syntax tree, decided by
FEEL itself.

A cell that compares its column with literals is *simple*. Dates, times and durations lie on an axis of their
own, on which they are numbers (days, seconds, months); everything else that is not understood is opaque, never
wrong.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import lru_cache
from typing import Any

from vertigym.decisions.dmn.atoms import AtomReader
from vertigym.decisions.dmn.decision_tables import ClosedCell, spans_of
from vertigym.decisions.dmn.names import called_names, dotted, free_names
from vertigym.decisions.expressions import Atom
from vertigym.decisions.zen_language import nested
from vertigym.feel import (
    Date,
    DateTime,
    DaysTime,
    Expr,
    FeelError,
    Time,
    UnaryTests,
    Value,
    YearsMonths,
    evaluate,
    from_json,
    parse,
    parse_unary_tests,
    satisfies,
    to_json,
)
from vertigym.feel.functions import BUILT_INS
from vertigym.feel.syntax import Call, CompareNode, Constant, RangeNode, Variable

_SECOND = 1_000_000_000
_CLOCK = {"now", "today"}
_DATED = {"date", "time", "date and time", "duration"}
_BOUND = 1e15  # a number beyond is not exact as a float


class FeelScope(dict[str, Any]):
    """A scope of FEEL values, unlike a case, whose values are JSON."""


@dataclass(slots=True)
class FeelLanguage:
    """The language of one model. `names` may stand in its texts; `roots` are the names of inputs and decisions,
    `aliases` what local names stand for; `columns` gives the base type of a column's text; `opaque` are texts
    whose value is changed by a type; `said` is what a tool's text is in FEEL, for an expression or a cell;
    `read` makes a scope of a case."""

    names_known: Collection[str]
    roots: frozenset[str]
    aliases: Mapping[str, Sequence[str]]
    columns: Mapping[str, str]
    cells: Collection[str]
    opaque: Collection[str]
    said: Mapping[tuple[str, bool], str]
    read: Callable[[Mapping[str, Any]], FeelScope]
    skips_failing_rules: bool = False
    _trees: dict[str, Expr | None] = field(default_factory=dict)
    _tests: dict[str, UnaryTests | None] = field(default_factory=dict)
    _atoms: dict[str, Sequence[Atom]] = field(default_factory=dict)
    _simple: dict[str, str | None] = field(default_factory=dict)
    _closed: dict[str, ClosedCell] = field(default_factory=dict)
    _held: dict[tuple[str, type, Value], bool] = field(default_factory=dict)
    _values: dict[tuple[str, type, Any], Value] = field(default_factory=dict)

    # Reading.

    def tree(self, text: str) -> Expr | None:
        """The syntax tree of an expression, None where it is none."""
        if text not in self._trees:
            try:
                self._trees[text] = parse(self.said.get((text, False), text), self.names_known)
            except FeelError:
                self._trees[text] = None
        return self._trees[text]

    def tests(self, text: str) -> UnaryTests | None:
        """The tests of a cell, None where it is no cell."""
        if text not in self._tests:
            try:
                self._tests[text] = parse_unary_tests(self.said.get((text, True), text), self.names_known)
            except FeelError:
                self._tests[text] = None
        return self._tests[text]

    def _read(self, text: str) -> Expr | UnaryTests | None:
        return self.tests(text) if text in self.cells else self.tree(text)

    def atoms(self, text: str) -> Sequence[Atom]:
        """The names in a text and the literals beside them."""
        if text not in self._atoms:
            tree = self._read(text)
            reader = AtomReader(self.roots, self.aliases)
            self._atoms[text] = reader.read(tree) if tree is not None else ()
        return self._atoms[text]

    def names(self, text: str) -> list[str]:
        """The inputs and decisions that a text names."""
        tree = self._read(text)
        paths = free_names(tree) if tree is not None else ()
        return list(dict.fromkeys(".".join(path) for path in paths if path[0] in self.roots))

    def is_name(self, text: str) -> bool:
        """Whether a text is one name, whose value no type changes."""
        tree = self.tree(text)
        return tree is not None and text not in self.opaque and isinstance(dotted(tree)[1], Variable)

    def parts(self, text: str) -> list[str]:
        """A cell is one part."""
        return [text]

    def simple_name(self, text: str) -> str:
        """Conditions of DMN stand in columns."""
        return ""

    # Simple cells.

    def is_simple(self, cell: str, column: str = "") -> bool:
        """Whether a cell compares its column's value with literals of its type and does nothing else."""
        if cell not in self._simple:
            tests = self.tests(cell)
            self._simple[cell] = _axis(tests) if tests is not None else None
        axis, kind = self._simple[cell], self.columns.get(column, "Any")
        if axis is not None and not column:
            return True
        if axis is None or kind in ("list", "context", "function"):
            return False
        return kind in (axis, "Any") if axis else kind not in _AXES

    def axis(self, cell: str) -> str:
        """The type of moment or duration that a simple cell compares; empty for plain values."""
        return self._simple.get(cell) or ""

    def literals(self, condition: str) -> tuple[set[float], set[str]]:
        """The numbers (on an axis: of its unit) and the texts in a simple condition."""
        values = [v for test in getattr(self.tests(condition), "tests", ()) for v in _constants(test)]
        numbers = {_number(v) for v in values}
        return {n for n in numbers if n is not None}, {v for v in values if isinstance(v, str)}

    def condition(self, condition: str, name: str) -> Callable[[Any], bool]:
        """Whether a simple condition holds for a value of `boxes.Classes`."""
        tests = self.tests(condition)
        axis = self.axis(condition)

        def holds(value: Any) -> bool:
            if tests is None:
                return False
            if axis and isinstance(value, float):
                return any(_inside(test, value) for test in tests.tests) is not tests.negated
            return satisfies(tests, from_json(value), {}) is True

        return holds

    def example(self, value: Any, axis: str) -> Any:
        """A value of `boxes.Classes` as people write it."""
        if axis and isinstance(value, float):
            return to_json(_moment(axis, value))
        return to_json(from_json(value))

    # Evaluating.

    def depends_on_more(self, text: str, names: Sequence[str]) -> bool:
        """Whether a text reads the clock, or invokes what is not FEEL's own."""
        tree = self._read(text)
        if tree is None or text in self.opaque:
            return True
        paths = {path[0] for path in free_names(tree)}
        return bool({*called_names(tree)} - (BUILT_INS.keys() - _CLOCK)) or not paths <= self.roots

    def computed(self, text: str, values: Mapping[str, Any]) -> tuple[Any] | None:
        """The value of an expression over known names."""
        tree = self.tree(text)
        if tree is None or self.depends_on_more(text, list(values)):
            return None
        return (evaluate(tree, nested(values)),)

    def matches(self, cell: str, value: Any, values: Mapping[str, Any]) -> bool | None:
        """Whether a cell matches a known value, None where that depends on more."""
        tests = self.tests(cell)
        if tests is None or self.depends_on_more(cell, list(values)):
            return None
        return satisfies(tests, value, nested(values)) is True

    def holds(self, column: str, cell: str, context: Any) -> bool:
        """Whether a cell's condition holds in a scope that its decision saw, or in a case."""
        tests = self.tests(cell)
        if tests is None or not isinstance(context, dict):
            return False
        try:
            value = self._value(column, context)
            if not self.is_simple(cell) or isinstance(value, list | dict):
                return satisfies(tests, value, self._scope(context)) is True
            return self._passes(cell, tests, value)
        except FeelError:
            return False

    def _passes(self, cell: str, tests: UnaryTests, value: Value) -> bool:
        """Whether a value passes a simple cell."""
        closed = self._closed.get(cell)
        if closed is None:
            closed = self._closed[cell] = ClosedCell(tests, spans_of(tests))
        if closed.spans is not None and isinstance(value, Decimal):
            return closed.passes(value, {})
        key = (cell, value.__class__, value)
        if key not in self._held:
            self._held[key] = closed.passes(value, {})
        return self._held[key]

    def number(self, column: str, context: Any) -> float | None:
        """A column's value where it is a number, or lies on an axis."""
        try:
            return _number(self._value(column, context)) if isinstance(context, dict) else None
        except FeelError:
            return None

    def _value(self, column: str, context: Mapping[str, Any]) -> Value:
        """A column's value; of one that is a field of a case, without reading the others."""
        tree = self.tree(column)
        if isinstance(tree, Variable) and tree.name in context:
            value = context[tree.name]
            return value if isinstance(context, FeelScope) else self._read_value(tree.name, value)
        return None if tree is None else evaluate(tree, self._scope(context))

    def _read_value(self, name: str, value: Any) -> Value:
        if isinstance(value, list | dict):
            return self.read({name: value}).get(name)
        key = (name, value.__class__, value)
        if key not in self._values:
            self._values[key] = self.read({name: value}).get(name)
        return self._values[key]

    def _scope(self, context: Mapping[str, Any]) -> FeelScope:
        return context if isinstance(context, FeelScope) else self.read(context)


_AXES = {
    "date": Date, "time": Time, "date and time": DateTime,
    "days and time duration": DaysTime, "years and months duration": YearsMonths,
}  # fmt: skip


def _axis(tests: UnaryTests) -> str | None:
    """The axis of a cell's literals, "" for plain ones; None for a cell that does more than compare with
    literals."""
    axes = set()
    for test in tests.tests:
        values = _constants(test)
        ordered = not isinstance(test, Constant) and getattr(test, "operator", "<") not in ("=", "!=")
        if not values or (ordered and any(isinstance(v, str | bool) or v is None for v in values)):
            return None
        numbers = [n for n in map(_number, values) if n is not None]
        if any(abs(n) > _BOUND for n in numbers):
            return None
        axes |= {next((name for name, kind in _AXES.items() if isinstance(v, kind)), "") for v in values}
        if any(isinstance(v, Time | DateTime) and _zone(v) is not None for v in values):
            return None  # moments with a zone and without are not compared
    return axes.pop() if len(axes) == 1 else "" if not axes else None


def _zone(value: Time | DateTime) -> Any:
    return value.time.zone if isinstance(value, DateTime) else value.zone


def _constants(test: Expr) -> list[Value]:
    """The literals that a test compares with; none where it does anything else."""
    match test:
        case RangeNode(low=low, high=high):
            found = [_constant(low), _constant(high)]
        case CompareNode(bound=bound):
            found = [_constant(bound)]
        case _:
            found = [_constant(test)]
    return [] if any(each is None for each in found) else [each[0] for each in found if each]


@lru_cache(maxsize=10_000)
def _constant(tree: Expr) -> tuple[Value] | None:
    """A literal's value, dates and durations that are written as calls among them."""
    if isinstance(tree, Constant):
        return (tree.value,)
    dated = isinstance(tree, Call) and isinstance(tree.function, Variable) and tree.function.name in _DATED
    if dated and all(isinstance(argument, Constant) for argument in tree.arguments):  # type: ignore[attr-defined]
        value = evaluate(tree, {})
        return None if value is None else (value,)
    return None


def _number(value: Value) -> float | None:
    """A number, or where a moment or duration lies on its axis."""
    match value:
        case None | bool() | str() | list() | dict():
            return None
        case Date():
            return float(value.ordinal)
        case DateTime():
            return value.instant / _SECOND
        case Time():
            return value.instant / _SECOND
        case DaysTime():
            return value.nanoseconds / _SECOND
        case YearsMonths():
            return float(value.months)
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(axis: str, number: float) -> Value:
    """The moment or duration at a place of an axis."""
    whole = int(number // 1)
    match axis:
        case "date":
            return Date.of_ordinal(whole)
        case "time":
            return Time.of_nanoseconds(whole * _SECOND)
        case "date and time":
            return DateTime(Date.of_ordinal(whole // 86_400), Time.of_nanoseconds(whole * _SECOND))
        case "days and time duration":
            return DaysTime(whole * _SECOND)
    return YearsMonths(whole)


def _inside(test: Expr, place: float) -> bool:
    """Whether a test on an axis holds at a place."""
    values = [_number(value) for value in _constants(test)]
    low = values[0] if values[0] is not None else 0.0
    match test:
        case RangeNode(low_closed=low_closed, high_closed=high_closed):
            high = values[1] if values[1] is not None else 0.0
            return (low <= place if low_closed else low < place) and (
                place <= high if high_closed else place < high
            )
        case CompareNode(operator=operator):
            return {
                "<": place < low, "<=": place <= low, ">": place > low, ">=": place >= low,
                "=": place == low, "!=": place != low,
            }[operator]  # fmt: skip
    return place == low
