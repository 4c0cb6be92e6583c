"""What type an input has that declares none: what it is compared with, counted in or given to says it.

Names that stand on two sides of one comparison have one type; a literal, a name of a declared type or a
parameter of a built-in function gives it. Where two types are given, or none is, the input stays of any type.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from vertigym.decisions.dmn.decision_tables import DecisionTable
from vertigym.decisions.dmn.item_types import ItemType
from vertigym.decisions.dmn.names import dotted
from vertigym.feel import Expr, FeelError, FeelType, UnaryTests, evaluate, parse
from vertigym.feel.functions import BUILT_INS
from vertigym.feel.syntax import (
    Between,
    Binary,
    Call,
    CompareNode,
    Constant,
    Filter,
    For,
    If,
    InTests,
    Negation,
    Quantified,
    RangeNode,
    Variable,
)
from vertigym.feel.values import kind_of

_ARITHMETIC = ("+", "-", "*", "/", "**")
_DATED = {"date", "time", "date and time", "duration"}
TEMPORAL = {"date", "time", "date and time", "days and time duration", "years and months duration"}
_PLAIN = TEMPORAL | {"number", "string", "boolean", "list"}
Name = tuple[str, ...]


@dataclass(slots=True)
class TypeEvidence:
    """What the expressions of a model say of the names in `asked`; `known` are names of a declared type."""

    asked: Collection[Name]
    known: Mapping[Name, str]
    _given: dict[Name, set[str]] = field(default_factory=lambda: defaultdict(set))
    _same: dict[Name, Name] = field(default_factory=dict)

    def types(self) -> dict[Name, str]:
        """The types of the names of which exactly one is told."""
        told: dict[Name, set[str]] = defaultdict(set)
        for name, kinds in self._given.items():
            told[self._first(name)] |= kinds
        found = {name: told[self._first(name)] for name in self.asked}
        return {name: next(iter(kinds)) for name, kinds in found.items() if len(kinds) == 1}

    def table(self, table: DecisionTable) -> None:
        """Learn from a table: its columns, and what its cells compare them with."""
        for place, column in enumerate(table.columns):
            said = self._kind(column.tree)
            self._equal(said, column.type.base.name)
            for rule in table.rules:
                self._tests(said, rule.tests[place])
        for rule in table.rules:
            for tree, output in zip(rule.trees, table.outputs, strict=True):
                if tree is not None:
                    self._equal(self._kind(tree), output.type.base.name)

    def text(self, text: str, names: Collection[str]) -> None:
        """Learn from an expression; from none where it is no FEEL."""
        try:
            self._kind(parse(text, names))
        except FeelError:
            return

    def _tests(self, said: "Name | str", tests: UnaryTests) -> None:
        for test in tests.tests:
            found = self._kind(test, said)
            if Variable("?") not in test.walk():  # else it is the condition itself
                self._equal(said, found)

    def _kind(self, tree: Expr, column: "Name | str" = "") -> "Name | str":
        """The type of an expression, the name whose type it has, or nothing; learns what lies inside it.
        `column` is what `?` has."""
        match tree:
            case Constant(value=value):
                kind = kind_of(value)
                return kind if kind in _PLAIN else ""
            case Variable(name="?"):
                return column
            case Binary(operator="and" | "or"):
                for side in (tree.left, tree.right):
                    self._equal(self._kind(side, column), "boolean")
                return "boolean"
            case Binary(operator=operator):
                left, right = self._kind(tree.left, column), self._kind(tree.right, column)
                if operator not in _ARITHMETIC:
                    self._equal(left, right)
                    return "boolean"
                if operator in ("*", "/", "**") or "number" in (left, right):
                    left, right = self._equal(left, "number"), self._equal(right, "number")
                if operator == "+" and "string" in (left, right):
                    self._equal(left, right)
                    return "string"
                return "number" if left == right == "number" else ""
            case Negation(operand=operand):
                return self._equal(self._kind(operand, column), "number")
            case Between(value=value, low=low, high=high):
                for bound in (low, high):
                    self._equal(self._kind(value, column), self._kind(bound, column))
                return "boolean"
            case InTests(value=value, tests=tests):
                for test in tests:
                    self._equal(self._kind(value, column), self._kind(test, column))
                return "boolean"
            case CompareNode(bound=bound):
                return self._kind(bound, column)
            case RangeNode(low=low, high=high):
                return self._equal(self._kind(low, column), self._kind(high, column))
            case If(condition=condition, then_value=then, else_value=other):
                self._equal(self._kind(condition, column), "boolean")
                return self._equal(self._kind(then, column), self._kind(other, column))
            case Call(function=Variable(name=name), arguments=arguments):
                return self._called(name, arguments, column)
            case Filter(source=source):
                self._equal(self._kind(source, column), "list")
                return ""
            case For(iterations=iterations) | Quantified(iterations=iterations):
                for one in iterations:
                    if one.end is None:
                        self._equal(self._kind(one.domain, column), "list")
                self._kind(tree.body, column)
                return "list" if isinstance(tree, For) else "boolean"
        path, root = dotted(tree)
        if isinstance(root, Variable):
            return self.known.get(path) or (path if path in self.asked else "")
        for part in tree.children():
            self._kind(part, column)
        return ""

    def _called(self, name: str, arguments: Sequence[Expr], column: "Name | str") -> "Name | str":
        """What a built-in function takes, where all its signatures agree, and what it gives."""
        if name in _DATED and all(isinstance(argument, Constant) for argument in arguments):
            kind = kind_of(evaluate(Call(Variable(name), tuple(arguments)), {}))
            return kind if kind in _PLAIN else ""
        signatures = BUILT_INS[name].signatures if name in BUILT_INS else []
        for place, argument in enumerate(arguments):
            taken = {s.parameters[place].type.name for s in signatures if place < len(s.parameters)}
            said = self._kind(argument, column)
            if len(taken) == 1 and not any(s.parameters[-1].rest for s in signatures):
                self._equal(said, next(iter(taken)))
        return _RESULTS.get(name, "")

    def _equal(self, one: "Name | str", other: "Name | str") -> "Name | str":
        """Learn that two have one type; gives the one that says more."""
        for this, that in ((one, other), (other, one)):
            if isinstance(this, tuple) and isinstance(that, str):
                if that in _PLAIN:
                    self._given[this].add(that)
                    return that
                return this
        if isinstance(one, tuple) and isinstance(other, tuple) and self._first(one) != self._first(other):
            self._same[self._first(one)] = self._first(other)
        return one or other

    def _first(self, name: Name) -> Name:
        while name in self._same:
            name = self._same[name]
        return name


_RESULTS = {
    **dict.fromkeys(("upper case", "lower case", "string", "substring", "replace"), "string"),
    **dict.fromkeys(("substring before", "substring after", "string join"), "string"),
    **dict.fromkeys(("number", "count", "sum", "mean", "string length", "abs", "floor", "ceiling"), "number"),
    **dict.fromkeys(("contains", "starts with", "ends with", "matches", "not", "list contains"), "boolean"),
}  # fmt: skip


def untyped(types: Mapping[str, ItemType]) -> dict[Name, str]:
    """The names and paths of a case, with the type that each declares; nothing where it declares none."""
    found: dict[Name, str] = {}

    def visit(path: Name, kind: ItemType) -> None:
        found[path] = "" if kind.base.name == "Any" and not kind.item else kind.base.name
        for name, part in kind.parts.items():
            visit((*path, name), part)

    for name, kind in types.items():
        visit((name,), kind)
    return found


def with_types(
    kind: ItemType, path: Name, told: Mapping[Name, str], only: Collection[str] = _PLAIN
) -> ItemType:
    """A type with those told put in where it states none."""
    if kind.parts and told.get(path) == "list" and not kind.item:
        return ItemType(kind.name, FeelType("list"), item=kind)
    if kind.parts:
        parts = {name: with_types(part, (*path, name), told, only) for name, part in kind.parts.items()}
        return replace(kind, parts=parts)
    if path not in told or told[path] not in only:
        return kind
    return replace(kind, name=told[path], base=FeelType(told[path]))


def told_types(
    types: Mapping[str, ItemType],
    implied: Collection[str],
    tables: Iterable[DecisionTable],
    texts: Iterable[str],
    names: Collection[str],
) -> dict[Name, str]:
    """The types of the inputs that declare none, as far as tables and expressions tell. `implied` are names of
    inputs that nothing declares: a record may be a list of them."""
    stated = untyped(types)
    stated |= {(name,): "" for name in implied if types[name].parts}
    evidence = TypeEvidence({n for n, t in stated.items() if not t}, {n: t for n, t in stated.items() if t})
    if evidence.asked:
        for table in tables:
            evidence.table(table)
        for text in texts:
            evidence.text(text, names)
    return evidence.types()
