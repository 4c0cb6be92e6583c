"""DMN decision models (OMG, versions 1.3 to 1.5) read and translated to the engine's format.

Decision tables with S-FEEL, literal expressions, and decisions that require each other. What each hit
policy becomes: `policies.py`.

A FEEL name with spaces becomes a field with underscores. What is not supported is refused by name.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vertigym.core.errors import MissingDependencyError
from vertigym.decisions.hit_policies import PolicyTable
from vertigym.decisions.jdm import (
    ExpressionSpec,
    ModelSpec,
    TableRow,
    TableSpec,
    example_of,
    field_schema,
    identifier,
    put_path,
    schema_of,
)
from vertigym.decisions.model import DecisionError
from vertigym.decisions.sfeel import TYPES, Name, Term, expression, unary_tests

NAMESPACES = {
    "https://www.omg.org/spec/DMN/20191111/MODEL/": "1.3",
    "https://www.omg.org/spec/DMN/20211108/MODEL/": "1.4",
    "https://www.omg.org/spec/DMN/20230324/MODEL/": "1.5",
}
_MOST_BYTES = 10_000_000
_EXPRESSIONS = {
    "decisionTable", "literalExpression", "context", "relation", "list", "invocation", "functionDefinition",
    "conditional", "filter", "for", "every", "some",
}  # fmt: skip
_TYPE_NAMES = {"dateandtime": "dateTime", "datetime": "dateTime", "any": "", "": ""}


@dataclass(slots=True)
class _Type:
    """An item definition resolved: a base type, allowed texts, or components."""

    base: str = ""
    allowed: tuple[str, ...] = ()
    parts: dict[str, "_Type"] = field(default_factory=dict)


@dataclass(slots=True)
class _Decision:
    """A decision: its XML, and what it requires (by id)."""

    id: str
    name: str
    element: Any
    type: _Type
    needs: tuple[str, ...]


def read_dmn(file: Path) -> str:
    """The DMN file as JDM text.

    Raises:
        DecisionError: not DMN, malformed, an entity bomb, a cycle of decisions, or something not supported.
        MissingDependencyError: defusedxml is not installed.
    """
    return _Reader(_root(file), str(file)).model()


class _Reader:
    def __init__(self, root: Any, source: str) -> None:
        self.root, self.source = root, source
        self.items = {e.get("name"): e for e in _children(root, "itemDefinition")}
        self.inputs = {
            e.get("id"): (_name_of(e), self.type_of(_child(e, "variable")))
            for e in _children(root, "inputData")
        }
        if _children(root, "import"):
            raise self._error("imports of other models are not supported; put them into one file")
        self.decisions = {e.get("id"): self._decision(e) for e in _children(root, "decision")}
        if not self.decisions:
            raise self._error("no decision in it")
        self.fields: dict[str, Any] = {}  # dotted path of an input -> its JSON schema
        self.spec = ModelSpec()

    def _error(self, what: str) -> DecisionError:
        return DecisionError(f"{self.source}: {what}")

    def model(self) -> str:
        """Translate all decisions."""
        names: dict[str, Name] = {}
        for name, kind in self.inputs.values():
            self._add(names, name, identifier(name), kind, is_input=True)
        for decision in self._in_order():
            own = identifier(decision.name)
            if own in {name.path for name in names.values()}:
                raise self._error(f"two things are called {decision.name!r} (a field name must be unique)")
            made, parts = self._translate(decision, names, own)
            self.spec.nodes += made
            names |= parts
        self.spec.schema = schema_of(self.fields)
        for path, part in self.fields.items():
            put_path(self.spec.example, path, example_of(part))
        return self.spec.text()

    # Names and types.

    def _decision(self, element: Any) -> _Decision:
        needs = []
        for requirement in _children(element, "informationRequirement"):
            for kind in ("requiredDecision", "requiredInput"):
                for target in _children(requirement, kind):
                    needs.append(str(target.get("href", "")).partition("#")[2])
        if _children(element, "knowledgeRequirement"):
            raise self._error(
                f"decision {element.get('name')!r} needs a business knowledge model: not supported"
            )
        stated = self.type_of(_child(element, "variable"))
        return _Decision(element.get("id"), _name_of(element), element, stated, tuple(needs))

    def type_of(self, element: Any, attribute: str = "typeRef") -> _Type:
        """The type that an element states."""
        text = (element.get(attribute) or "") if element is not None else ""
        return self._resolved(text, ())

    def _resolved(self, text: str, seen: tuple[str, ...]) -> _Type:
        name = text.rpartition(":")[2].strip()
        if name in seen:
            raise self._error(f"type {name!r} is defined by itself")
        if name in self.items:
            return self._item(self.items[name], (*seen, name))
        base = _TYPE_NAMES.get(name.lower().replace(" ", ""), name)
        if base and base not in TYPES:
            raise self._error(
                f"type {name!r} is not supported (number, string, boolean, date, time, dateTime are)"
            )
        return _Type(base)

    def _item(self, element: Any, seen: tuple[str, ...]) -> _Type:
        if element.get("isCollection") == "true":
            raise self._error(f"type {element.get('name')!r} is a list: not supported")
        parts = {e.get("name"): self._item(e, seen) for e in _children(element, "itemComponent")}
        if parts:
            return _Type(parts=parts)
        found = self._resolved(_text(_child(element, "typeRef")), seen)
        allowed = self.allowed(_child(element, "allowedValues"))
        return replace(found, allowed=allowed) if allowed else found

    def allowed(self, element: Any) -> tuple[str, ...]:
        """Texts that are allowed, in order; other kinds of limits do not restrict."""
        text = _text(_child(element, "text")) if element is not None else ""
        found = re.findall(r'"([^"\\]*)"', text)
        return tuple(found) if re.fullmatch(r'\s*"[^"\\]*"(\s*,\s*"[^"\\]*")*\s*', text) else ()

    def _add(self, names: dict[str, Name], name: str, path: str, kind: _Type, *, is_input: bool) -> None:
        if any(known.path == path for known in names.values()):
            raise self._error(f"two things are called {name!r} (a field name must be unique)")
        names[name] = Name(path, kind.base)
        for part, inner in kind.parts.items():
            self._add(names, f"{name}.{part}", f"{path}.{identifier(part)}", inner, is_input=is_input)
        if is_input and not kind.parts:
            self.fields[path] = field_schema(kind.base, kind.allowed)

    def _in_order(self) -> list[_Decision]:
        """The decisions, each after those it requires."""
        order: list[_Decision] = []
        open_: list[str] = []

        def visit(id_: str) -> None:
            if id_ in self.inputs or any(d.id == id_ for d in order):
                return
            if id_ not in self.decisions:
                raise self._error(
                    f"decision {self.decisions[open_[-1]].name!r} requires #{id_}, which is not there"
                )
            if id_ in open_:
                names = [self.decisions[i].name for i in open_[open_.index(id_) :]]
                raise self._error(
                    f"decisions require each other in a circle: {' -> '.join([*names, names[0]])}"
                )
            open_.append(id_)
            for need in self.decisions[id_].needs:
                visit(need)
            order.append(self.decisions[open_.pop()])

        for id_ in self.decisions:
            visit(id_)
        return order

    # One decision.

    def _translate(
        self, decision: _Decision, names: Mapping[str, Name], own: str
    ) -> tuple[list[TableSpec | ExpressionSpec], dict[str, Name]]:
        bodies = [e for e in decision.element if _local(e) in _EXPRESSIONS]
        if len(bodies) != 1:
            raise self._error(f"decision {decision.name!r} has {len(bodies)} expressions instead of one")
        body = bodies[0]
        visible = self._visible(decision, names)
        where = f"{self.source}: decision {decision.name!r}"
        if _local(body) == "literalExpression":
            self._check_language(body, where)
            term = expression(_text(_child(body, "text")), visible, where)
            return [ExpressionSpec(decision.name, ((own, term.guarded),))], {
                decision.name: Name(own, term.type or decision.type.base)
            }
        if _local(body) != "decisionTable":
            raise DecisionError(
                f"{where}: {_local(body)} is not supported (tables and literal expressions are)"
            )
        self._check_language(body, where)
        return _Table(body, decision, own, visible, where, self).nodes()

    def _visible(self, decision: _Decision, names: Mapping[str, Name]) -> dict[str, Name]:
        """What a decision may name: what it requires."""
        required = {self.inputs[n][0] if n in self.inputs else self.decisions[n].name for n in decision.needs}
        return {name: known for name, known in names.items() if name in required or _under(name, required)}

    def _check_language(self, element: Any, where: str) -> None:
        for part in element.iter():
            language = part.get("expressionLanguage") or ""
            if language and not language.lower().rstrip("/").endswith("feel"):
                if "/FEEL" in language.upper():
                    continue
                raise DecisionError(f"{where}: expression language {language!r} is not supported, only FEEL")


class _Table:
    """A decision table on its way to nodes."""

    def __init__(
        self, body: Any, decision: _Decision, own: str, names: Mapping[str, Name], where: str, reader: _Reader
    ) -> None:
        self.decision, self.own, self.where, self.reader = decision, own, where, reader
        self.policy = str(body.get("hitPolicy") or "UNIQUE")
        self.aggregate = str(body.get("aggregation") or "")
        self.columns = [self._column(e, names) for e in _children(body, "input")]
        clauses = _children(body, "output")
        if not clauses:
            raise DecisionError(f"{where}: a decision table without an output")
        self.outputs = [self._output(e, len(clauses), place) for place, e in enumerate(clauses)]
        self.kinds = [self._kind(e, len(clauses)) for e in clauses]
        self.priorities = [
            reader.allowed(_child(e, "outputValues")) or kind.allowed
            for e, kind in zip(clauses, self.kinds, strict=True)
        ]
        self.defaults = [self._default(e, names) for e in clauses]
        self.rows = [self._row(e, number, names) for number, e in enumerate(_children(body, "rule"), 1)]
        if not self.rows:
            raise DecisionError(f"{where}: a decision table without a rule")

    def nodes(self) -> tuple[list[TableSpec | ExpressionSpec], dict[str, Name]]:
        """The nodes it becomes, and the names its results have."""
        name, single = self.decision.name, len(self.outputs) == 1
        table = PolicyTable(
            name=name,
            target=self.own,
            columns=self.columns,
            outputs=tuple(self.outputs),
            fields=(self.own,) if single else tuple(f"{self.own}.{output}" for output in self.outputs),
            rows=self.rows,
            policy=self.policy,
            aggregate=self.aggregate,
            priorities=self.priorities,
            defaults=tuple(self.defaults),
            schema=schema_of(self.reader.fields),
            where=self.where,
        )
        if table.gives_list:
            return table.nodes(), {name: Name(self.own, "" if not self.aggregate else "number")}
        names = {name: Name(self.own, self.kinds[0].base if single else "")}
        if not single:
            pairs = zip(table.fields, self.outputs, self.kinds, strict=True)
            names |= {f"{name}.{output}": Name(field, kind.base) for field, output, kind in pairs}
        return table.nodes(), names

    # Reading.

    def _column(self, element: Any, names: Mapping[str, Name]) -> Term:
        inner = _child(element, "inputExpression")
        text = _text(_child(inner, "text")) if inner is not None else ""
        if not text:
            raise DecisionError(f"{self.where}: an input column without an expression")
        term = expression(text, names, self.where)
        stated = self.reader.type_of(inner)
        kind = stated.base or term.type
        if stated.base and term.type and stated.base != term.type:
            raise DecisionError(
                f"{self.where}: column {text!r} is stated as {stated.base}, but is a {term.type}"
            )
        allowed = self.reader.allowed(_child(element, "inputValues")) or stated.allowed
        for path in term.paths if term.simple else ():
            if path in self.reader.fields:
                self.reader.fields[path] = field_schema(kind, allowed) | self.reader.fields[path]
        return replace(term, type=kind)

    def _output(self, element: Any, count: int, place: int) -> str:
        name = element.get("name") or ""
        if count > 1 and not name:
            raise DecisionError(f"{self.where}: output {place + 1} has no name")
        return identifier(name) if count > 1 else self.own

    def _kind(self, element: Any, count: int) -> _Type:
        stated = self.reader.type_of(element)
        return stated if stated.base or count > 1 else self.decision.type

    def _default(self, element: Any, names: Mapping[str, Name]) -> str:
        entry = _child(element, "defaultOutputEntry")
        text = _text(_child(entry, "text")) if entry is not None else ""
        return expression(text, names, self.where).guarded if text else ""

    def _row(self, element: Any, number: int, names: Mapping[str, Name]) -> TableRow:
        where = f"{self.where}: rule {number}"
        tests = [_text(_child(e, "text")) for e in _children(element, "inputEntry")]
        results = [_text(_child(e, "text")) for e in _children(element, "outputEntry")]
        if len(tests) != len(self.columns) or len(results) != len(self.outputs):
            raise DecisionError(
                f"{where}: {len(tests)} input and {len(results)} output entries for {len(self.columns)} and "
                f"{len(self.outputs)} columns"
            )
        conditions = tuple(unary_tests(t, c, names, where) for t, c in zip(tests, self.columns, strict=True))
        return TableRow(conditions, tuple(self._result(r, names, where) for r in results), number)

    def _result(self, text: str, names: Mapping[str, Name], where: str) -> str:
        return expression(text, names, where).guarded if text not in ("", "-") else "null"


def _root(file: Path) -> Any:
    """The file's root element, read without entities, document types or anything from outside."""
    try:
        from defusedxml import DefusedXmlException
        from defusedxml.ElementTree import fromstring
    except ImportError:
        raise MissingDependencyError("defusedxml", "formats", "reading DMN") from None
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DecisionError(f"{file}: cannot be read ({error.strerror})") from None
    if len(data) > _MOST_BYTES:
        raise DecisionError(f"{file}: {len(data)} bytes; a DMN file of more than {_MOST_BYTES} is not read")
    try:
        root = fromstring(data, forbid_dtd=True)
    except DefusedXmlException as error:
        raise DecisionError(f"{file}: not read: it declares a document type or entities ({error!r})") from None
    except Exception as error:  # the parser's several errors: malformed, wrong encoding, nested too deeply
        raise DecisionError(f"{file}: not XML ({' '.join(str(error).split())})") from None
    space = root.tag.partition("}")[0].lstrip("{")
    if _local(root) != "definitions" or space not in NAMESPACES:
        known = ", ".join(NAMESPACES.values())
        raise DecisionError(f"{file}: not DMN {known}: the root is {root.tag!r}")
    return root


def _local(element: Any) -> str:
    return str(element.tag).rpartition("}")[2]


def _children(element: Any, name: str) -> list[Any]:
    return [child for child in element if _local(child) == name] if element is not None else []


def _child(element: Any, name: str) -> Any:
    return next(iter(_children(element, name)), None)


def _text(element: Any) -> str:
    return (element.text or "").strip() if element is not None else ""


def _name_of(element: Any) -> str:
    """A thing's name: that of its variable, as expressions use it."""
    variable = _child(element, "variable")
    return " ".join(
        str((variable.get("name") if variable is not None else None) or element.get("name") or "").split()
    )


def _under(name: str, required: set[str]) -> bool:
    return any(name.startswith(f"{parent}.") for parent in required)
