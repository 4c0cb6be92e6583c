"""Boxed expressions compiled: XML once read becomes a function of a scope.

Each compiled body notes which names it asks its surroundings for (`Compiler.free`), so that a name that nothing
gives is found when the model is read, and a tool that leaves its inputs implied gets them. Source: OMG DMN 1.5,
chapters 7.3 and 10.3.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeVar

from vertigym.core.errors import DataError
from vertigym.decisions.dmn.decision_tables import DecisionTable
from vertigym.decisions.dmn.dialects import CELL_INPUT, feel_text, is_feel
from vertigym.decisions.dmn.elements import (
    EXPRESSIONS,
    Element,
    body_of,
    child,
    children,
    inner_text,
    local,
    name_of,
)
from vertigym.decisions.dmn.item_types import ItemType, TypeTable, located
from vertigym.decisions.dmn.names import called_names, free_names, is_external, language_of
from vertigym.decisions.dmn.running import Body, Evaluator, Scope
from vertigym.decisions.model import DecisionError
from vertigym.feel import (
    Expr,
    FeelType,
    Function,
    NoValue,
    UnaryTests,
    Value,
    parse,
    parse_unary_tests,
)

T = TypeVar("T", Expr, UnaryTests)


@dataclass(frozen=True, slots=True)
class FormalParameter:
    """A formal parameter of something that can be invoked."""

    name: str
    type: ItemType


@dataclass(slots=True)
class Compiler:
    """Compiles the expressions of one element of a model. `names` may stand in its texts, `known` are those
    that have a value there; `free` collects the others, `texts` every FEEL text, `calls` what is invoked,
    `said` what texts of a `tool` are in FEEL; `tables` are its decision tables, named by their `place`."""

    types: TypeTable
    names: frozenset[str]
    known: frozenset[str]
    where: str
    table: Callable[[Element, "Compiler"], DecisionTable]
    place: str = ""
    language: str = ""
    tool: bool = False
    feel_types: Mapping[str, FeelType] = field(default_factory=dict)
    free: list[tuple[str, ...]] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    said: dict[tuple[str, bool], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[DecisionTable] = field(default_factory=list)
    parsed: dict[tuple[str, str, bool], Expr | UnaryTests] = field(default_factory=dict)

    def inside(self, *more: str) -> "Compiler":
        """The compiler of a part where further names have a value; what it notes is noted here too."""
        return replace(self, names=self.names | set(more), known=self.known | set(more), parsed={})

    def at(self, place: str) -> "Compiler":
        """The compiler of a part, with its place in errors."""
        return replace(self, where=f"{self.where}: {place}")

    # FEEL texts.

    def expression(self, text: str, language: str = "") -> Expr:
        """
        Raises:
            DecisionError: not FEEL, or a function in another language.
        """
        key = (text, language, False)
        tree = self.parsed.get(key) or self._read(text, language, parse)
        assert isinstance(tree, Expr)
        self.parsed[key] = tree
        if is_external(tree):
            raise DecisionError(f"{self.where}: a function in Java or PMML is not supported: {text[:60]!r}")
        self._note(tree, text)
        return tree

    def tests(self, text: str, language: str = "") -> UnaryTests:
        """
        Raises:
            DecisionError: not FEEL.
        """
        key = (text, language, True)
        tests = self.parsed.get(key) or self._read(text or "-", language, parse_unary_tests, is_test=True)
        assert isinstance(tests, UnaryTests)
        self.parsed[key] = tests
        self._note(tests, text)
        return tests

    def _read(
        self, text: str, language: str, read: Callable[[str, Collection[str]], T], *, is_test: bool = False
    ) -> T:
        """A text read as FEEL; of a tool's file, where it is none, what it says in FEEL."""
        language = language or self.language
        where = f"{self.where}: {text[:60]!r}"
        key = (text, is_test)
        if not is_feel(language) and text not in ("", "-"):
            said = located(lambda: feel_text(text, language, is_test=is_test), self.where)
            self.said[key] = said
            return located(lambda: read(said, self.names), where)
        if is_test and self.tool and CELL_INPUT.search(text):
            self.said[key] = text = CELL_INPUT.sub("?", text)
        try:
            return read(text, self.names)
        except DataError as error:
            if not self.tool or language:
                raise DecisionError(f"{where}: {error}") from None
            try:
                said = feel_text(text, language, is_test=is_test)
                found = read(said, self.names)
            except DataError:
                raise DecisionError(f"{where}: {error}") from None
            self.said[key] = said
            return found

    def _note(self, tree: Expr | UnaryTests, text: str) -> None:
        self.free += free_names(tree, self.known)
        self.calls += called_names(tree)
        self.texts.append(text)

    # Boxed expressions.

    def body(self, element: Element) -> Body:
        """
        Raises:
            DecisionError: something in it is not FEEL, not known or not supported.
        """
        kind = local(element)
        within = replace(self, language=language_of(element, self.language))
        body: Body = getattr(within, f"_{kind.lower()}")(element)
        if not element.get("typeRef"):
            return body
        stated = self.types.of(element)
        return lambda scope, run: run.coerced(body(scope, run), stated, kind)

    def of(self, element: Element, what: str) -> Body:
        """The expression right inside an element.

        Raises:
            DecisionError: as for `body`, or there is none.
        """
        inner = located(lambda: body_of(element), self.where)
        if inner is None:
            raise DecisionError(f"{self.where}: {what} without an expression")
        return self.body(inner)

    def _literalexpression(self, element: Element) -> Body:
        text = inner_text(element)
        if not text:
            if child(element, "importedValues") is not None:
                raise DecisionError(f"{self.where}: imported values are not supported")
            return lambda scope, run: None
        tree, types = self.expression(text, self.language), self.feel_types
        return lambda scope, run: run.value(tree, scope, types)

    def _decisiontable(self, element: Element) -> Body:
        return self.table(element, self).body

    def _list(self, element: Element) -> Body:
        items = [self.body(e) for e in children(element, *EXPRESSIONS)]
        return lambda scope, run: [item(scope, run) for item in items]

    def _relation(self, element: Element) -> Body:
        columns = [" ".join((e.get("name") or "").split()) for e in children(element, "column")]
        rows = [[self.body(e) for e in children(row, *EXPRESSIONS)] for row in children(element, "row")]
        if any(len(row) != len(columns) for row in rows):
            raise DecisionError(f"{self.where}: a relation's row has another length than its columns")

        def relation(scope: Scope, run: Evaluator) -> Value:
            return [{name: cell(scope, run) for name, cell in zip(columns, row, strict=True)} for row in rows]

        return relation

    def _context(self, element: Element) -> Body:
        entries: list[tuple[str, ItemType, Body]] = []
        inner = self
        for entry in children(element, "contextEntry"):
            variable = child(entry, "variable")
            name = name_of(entry) if variable is not None else ""
            kind = self.types.of(variable)
            # An entry's own name is in scope where it is a function, so that it may call itself.
            inner = inner.inside(*([name] if name else ()))
            part = replace(inner, place=f"{self.place}.{name}" if name else self.place)
            entries.append((name, kind, part.of(entry, "a context entry")))

        def context(scope: Scope, run: Evaluator) -> Value:
            made: dict[str, Value] = {}
            seen = dict(scope)
            for name, kind, body in entries:
                value = body(seen, run)
                if not name:
                    return value
                made[name] = seen[name] = run.coerced(value, kind, name)
            return made

        return context

    def _conditional(self, element: Element) -> Body:
        test, then, other = (self._part(element, tag) for tag in ("if", "then", "else"))

        def chosen(scope: Scope, run: Evaluator) -> Value:
            match test(scope, run):
                case True:
                    return then(scope, run)
                case False | None:
                    return other(scope, run)
            return run.null("the condition of a conditional is not true or false")

        return chosen

    def _filter(self, element: Element) -> Body:
        source = self._part(element, "in")
        match = child(element, "match")
        within = replace(self.inside("item"), free=[])  # its names may be fields of the items
        condition = within.of(match, "a filter's match") if match is not None else self._part(element, "match")

        def kept(scope: Scope, run: Evaluator) -> Value:
            items = source(scope, run)
            if items is None:
                return run.null("a filter of null")
            items = items if isinstance(items, list) else [items]
            fields = (
                (item, {**scope, **(item if isinstance(item, dict) else {}), "item": item}) for item in items
            )
            found = [(item, condition(seen, run)) for item, seen in fields]
            if any(not isinstance(match, bool | None) for _, match in found):
                return run.null("the match of a filter is not true or false")
            return [item for item, match in found if match is True]

        return kept

    def _for(self, element: Element) -> Body:
        items, name = self._items(element)
        body = self.inside(name, "partial")._part(element, "return")

        def loop(scope: Scope, run: Evaluator) -> Value:
            partial: list[Value] = []
            if (over := items(scope, run)) is None:
                return run.null(f"{name} in null")
            for item in over:
                partial.append(body({**scope, name: item, "partial": list(partial)}, run))
            return partial

        return loop

    def _some(self, element: Element) -> Body:
        return self._quantified(element, decided_by=True)

    def _every(self, element: Element) -> Body:
        return self._quantified(element, decided_by=False)

    def _quantified(self, element: Element, *, decided_by: bool) -> Body:
        items, name = self._items(element)
        body = self.inside(name)._part(element, "satisfies")

        def quantified(scope: Scope, run: Evaluator) -> Value:
            if (over := items(scope, run)) is None:
                return run.null(f"{name} in null")
            found = [body({**scope, name: item}, run) for item in over]
            if any(each is decided_by for each in found):
                return decided_by
            return None if any(not isinstance(each, bool) for each in found) else not decided_by

        return quantified

    def _items(self, element: Element) -> tuple["_Items", str]:
        name = " ".join((element.get("iteratorVariable") or "").split())
        if not name:
            raise DecisionError(f"{self.where}: {local(element)} without an iteratorVariable")
        return _Items(self._part(element, "in")), name

    def _part(self, element: Element, tag: str) -> Body:
        part = child(element, tag)
        if part is None:
            raise DecisionError(f"{self.where}: {local(element)} without {tag!r}")
        return self.of(part, tag)

    # Functions.

    def _functiondefinition(self, element: Element) -> Body:
        name, parameters, body = "function", *self.function(element)
        return lambda scope, run: invocable(name, parameters, body, scope, run)

    def function(self, element: Element) -> tuple[tuple[FormalParameter, ...], Body]:
        """A function definition's parameters and body.

        Raises:
            DecisionError: it is not in FEEL.
        """
        if (kind := element.get("kind") or "FEEL") != "FEEL":
            raise DecisionError(f"{self.where}: a {kind} function is not supported")
        parameters = tuple(
            FormalParameter(" ".join((e.get("name") or "").split()), self.types.of(e))
            for e in children(element, "formalParameter")
        )
        return parameters, self.inside(*(p.name for p in parameters)).of(element, "a function")

    def _invocation(self, element: Element) -> Body:
        inner = body_of(element)
        text = inner_text(inner) if inner is not None else ""
        if not text:
            raise DecisionError(f"{self.where}: an invocation without the name of what is invoked")
        callee = self.at("the invoked function").expression(" ".join(text.split()), self.language)
        bound: dict[str, Body] = {}
        for binding in children(element, "binding"):
            parameter = child(binding, "parameter")
            name = " ".join((parameter.get("name") or "").split()) if parameter is not None else ""
            argument = body_of(binding)
            bound[name] = self.at(f"binding {name!r}").body(argument) if argument is not None else _nothing
        types = self.feel_types

        def invoke(scope: Scope, run: Evaluator) -> Value:
            function = run.value(callee, scope, types)
            given = {name: argument(scope, run) for name, argument in bound.items()}
            if not isinstance(function, Function) or {*given} != {*function.parameters}:
                return run.null(f"{text}: not a function of {', '.join(given)}")
            try:
                return function.call(*(given[name] for name in function.parameters))
            except NoValue as error:
                return run.null(f"{text}: {error}")

        return invoke


@dataclass(frozen=True, slots=True)
class _Items:
    """What a loop goes over: a list; a single value as a list of one; null is none."""

    body: Body

    def __call__(self, scope: Scope, run: Evaluator) -> list[Value] | None:
        found = self.body(scope, run)
        return found if found is None or isinstance(found, list) else [found]


def invocable(
    name: str,
    parameters: Collection[FormalParameter],
    body: Body,
    scope: Mapping[str, Value],
    run: Evaluator,
    result: ItemType | None = None,
) -> Function:
    """A body as a function; an argument that does not conform to its parameter's type gives null, and so does a
    result that does not conform to its own."""

    def call(*arguments: Value) -> Value:
        given = {p.name: p.type.coerced(a) for p, a in zip(parameters, arguments, strict=True)}
        value = run.called(body, {**scope, **given})
        return run.coerced(value, result, name) if result else value

    return Function(name, tuple(p.name for p in parameters), call)


def _nothing(scope: Scope, run: Evaluator) -> Value:
    return None
