"""The decision graph: which elements can be used, what each sees, and what it decides.

Every decision is evaluated by itself, from what it requires. Source: OMG DMN 1.5, chapters 6.2 and 10.4.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from vertigym.decisions.dmn.boxed import FormalParameter, invocable
from vertigym.decisions.dmn.item_types import ItemType
from vertigym.decisions.dmn.practice import inner_functions, invoking
from vertigym.decisions.dmn.reader import DmnReader, DrgElement
from vertigym.decisions.dmn.running import Evaluator, Scope
from vertigym.decisions.model import DecisionError
from vertigym.feel import Clock, FeelType, Function, NoValue, Value
from vertigym.feel.feel_types import ANY
from vertigym.feel.functions import BUILT_INS
from vertigym.feel.syntax import Variable

_INVOCABLE = ("businessKnowledgeModel", "decisionService")


class DecisionGraph:
    """All elements of a DMN file and its imports, compiled.

    Raises:
        DecisionError: the file cannot be read, or none of its decisions can be used.
    """

    def __init__(self, path: Path) -> None:
        self._reader = DmnReader(path)
        self.source, self.main = str(path), self._reader.main
        self.elements = self._reader.elements
        self.implied: dict[str, ItemType] = {}  # inputs that no element declares
        for element in self.elements.values():
            if element.kind in ("decision", "businessKnowledgeModel"):
                self._reader.compile(element)
        for element in self.elements.values():
            self._resolve(element)
        self._spread_faults()
        own = [e for e in self.elements.values() if e.kind == "decision" and e.file is self.main]
        self.decisions = [e for e in own if not e.fault and e.body]
        self.lost = {e.name: e.fault for e in own if e.fault}
        if not self.decisions:
            fault = next(iter(self.lost.values()), f"{path}: no decision has any logic")
            raise DecisionError(fault)

    # What can be used.

    def _resolve(self, element: DrgElement) -> None:
        """Find what gives each free name of an element; a name that nothing gives is a fault."""
        if element.fault or not element.body:
            return
        aliases = self._aliases(element)
        functions = {*self._visible(element), *element.aliases, element.name}
        for key in element.needs:
            if (other := self.elements[key]).name == element.name and other.kind == "inputData":
                element.fault = f"{self._where(element)}: two things are called {element.name!r}"
                return
        implies = element.kind == "decision" and (self._reader.implied or not self._uses_inputs(element))
        for path in element.paths:
            if path[0] in aliases:
                element.aliases[path[0]] = aliases[path[0]]
            elif implies:
                self._imply(path, element)
            else:
                known = ", ".join(sorted(functions - {element.name})) or "none"
                element.fault = f"{self._where(element)}: unknown name {path[0]!r}; known: {known}"
                return
        declared = {name for name in self._reader.words if " " in name}
        for name in element.calls:
            if name not in BUILT_INS and name not in functions | declared and not self._is_local(element, name):
                element.fault = f"{self._where(element)}: unknown function {name!r}"
                return

    def _uses_inputs(self, element: DrgElement) -> bool:
        """Whether a decision names any input that it requires. Where it names none, its inputs are only drawn,
        and
        its expressions speak of others, as Camunda's do."""
        names = {e.name for key in element.needs if (e := self.elements[key]).kind == "inputData"}
        return not names or any(name in text for name in names for text in element.texts)

    def _where(self, element: DrgElement) -> str:
        return f"{element.file.source}: {element.kind} {element.name!r}"

    def _is_local(self, element: DrgElement, name: str) -> bool:
        """Whether an element names a part of its own like this: a context's entry, a parameter, a loop's
        variable."""
        named = (e.get("name") or e.get("iteratorVariable") for e in element.element.iter())
        return name in named or any(name in text.replace(f"{name}(", "") for text in element.texts)

    def _visible(self, element: DrgElement) -> Iterator[str]:
        for key in element.needs:
            if (needed := self.elements.get(key)) and not _is_empty(needed):
                yield element.file.prefix_of(needed.file) or needed.name

    def _aliases(self, element: DrgElement) -> dict[str, tuple[str, str]]:
        """Other names that tools give to a required decision: its id, and the names of its outputs."""
        found: dict[str, tuple[str, str]] = {}
        for key in element.needs:
            needed = self.elements[key]
            if needed.kind not in ("decision", "inputData"):
                continue
            found.setdefault(key.rpartition("#")[2], (key, ""))
            found.setdefault(needed.element.get("name") or "", (key, ""))
            for output in needed.table.outputs if needed.table else ():
                single = needed.table is not None and len(needed.table.outputs) == 1
                found.setdefault(output.name, (key, "" if single else output.name))
        return found

    def _imply(self, path: tuple[str, ...], element: DrgElement) -> None:
        """Note an input that only expressions tell of, with the type and limits of the column that asks for
        it."""
        kind = self.implied.setdefault(path[0], ItemType(path[0]))
        for part in path[1:]:
            if kind.base is not ANY and kind.base.name != "context":
                return  # a property of a date or a duration
            kind.base = FeelType("context")
            kind = kind.parts.setdefault(part, ItemType(part))
        for column in element.table.columns if element.table else ():
            if _is_path(column.tree, path) and not kind.parts and kind.base is ANY:
                kind.base, kind.whole, kind.item = column.type.base, column.type.whole, column.type.item
                kind.parts = dict(column.type.parts)
                kind.limits, kind.limit_texts = column.type.limits, column.type.limit_texts

    def _spread_faults(self) -> None:
        """What requires something that cannot be used cannot be used either; so for circles."""
        for element in self.elements.values():
            if not element.fault and element.kind == "decision" and (circle := self._circle(element)):
                element.fault = (
                    f"{element.file.source}: decisions require each other in a circle: {' -> '.join(circle)}"
                )
        changed = True
        while changed:
            changed = False
            for element in self.elements.values():
                if not element.fault and (fault := self._inherited(element)):
                    element.fault, changed = fault, True

    def _inherited(self, element: DrgElement) -> str:
        """The fault of something that an element requires."""
        for key in (*element.needs, *element.outputs, *element.inputs, *element.input_decisions):
            needed = self.elements.get(key)
            if needed is None:
                return f"{self._where(element)} refers to {key.rpartition('#')[2]!r}, which is not there"
            if needed.fault and key not in element.input_decisions:
                why = needed.fault.removeprefix(f"{needed.file.source}: ")
                return f"{self._where(element)} needs {needed.name!r}, which cannot be used: {why}"
        return ""

    def _circle(self, element: DrgElement) -> list[str]:
        """Names along a circle through a decision, empty where there is none."""
        stack = [(element.key, [element.name])]
        seen: set[str] = set()
        while stack:
            key, way = stack.pop()
            for need in self.elements[key].needs:
                needed = self.elements.get(need)
                if needed is None or needed.kind != "decision":
                    continue
                if need == element.key:
                    return [*way, element.name]
                if need not in seen:
                    seen.add(need)
                    stack.append((need, [*way, needed.name]))
        return []

    @property
    def words(self) -> frozenset[str]:
        """Names of more than one word that may stand in its texts."""
        return self._reader.words

    def imported_files(self) -> list[Path]:
        """The files beside the main one."""
        return self._reader.imported_files()

    # Deciding.

    def find(self, name: str, kind: str = "decision") -> DrgElement:
        """The main file's element of a name or an id; for a decision also one that invokes the function of that
        name.

        Raises:
            DecisionError: there is none, or it cannot be used.
        """
        own = [e for e in self.elements.values() if e.kind == kind and e.file is self.main]
        for element in own:
            if name in (element.name, element.element.get("name"), element.element.get("id")):
                if element.fault:
                    raise DecisionError(element.fault)
                return element
        if name in (functions := self.functions() if kind == "decision" else {}):
            return self._invoking(functions[name])
        known = ", ".join([*(e.name for e in own if not e.fault), *functions])
        raise DecisionError(f"{self.source}: no {kind} {name!r}; there are: {known}")

    # Functions as decisions.

    def functions(self) -> dict[str, DrgElement]:
        """What can be invoked by itself, by a name (an id where a decision is called so): services, knowledge
        models, and functions inside decisions."""
        for decision in self.decisions:
            for element in inner_functions(decision):
                if (made := self._reader.add(element)) is not None:
                    self._prepare(made)
        own = [e for e in self.elements.values() if e.kind in _INVOCABLE and e.file is self.main]
        taken = {e.name for e in self.elements.values() if e.kind == "decision"}
        usable = [e for e in own if not e.fault and self._parameters(e) and not _is_empty(e)]
        return {e.key.rpartition("#")[2] if e.name in taken else e.name: e for e in usable}

    def _invoking(self, function: DrgElement) -> DrgElement:
        """A decision that invokes a function."""
        parameters = self._parameters(function)
        element, inputs = invoking(function, parameters)
        for data, parameter in zip(inputs, parameters, strict=True):
            if (made := self._reader.add(data)) is not None:
                made.type = parameter.type
        if (decision := self._reader.add(element)) is not None:
            self._prepare(decision)
        found = self.elements[function.file.key(f"#{element.get('id')}")]
        if found.fault:
            raise DecisionError(found.fault)
        return found

    def _prepare(self, element: DrgElement) -> None:
        self._reader.compile(element)
        self._resolve(element)
        element.fault = element.fault or self._inherited(element)

    def _parameters(self, function: DrgElement) -> list[FormalParameter]:
        keys = (*function.inputs, *function.input_decisions)
        return list(function.parameters) or [
            FormalParameter(self.elements[key].name, self.elements[key].type) for key in keys
        ]

    def required(self, element: DrgElement) -> list[DrgElement]:
        """The element and all it requires, each after what it requires."""
        order: dict[str, DrgElement] = {}
        seen: set[str] = set()

        def visit(each: DrgElement) -> None:
            if each.key not in seen:
                seen.add(each.key)
                for key in each.needs:
                    visit(self.elements[key])
                order[each.key] = each

        visit(element)
        return list(order.values())

    def run(self, inputs: Mapping[str, Value], clock: Clock | None = None) -> Evaluator:
        """An evaluation of a case; `inputs` are by key, or by name for implied ones. Values that are not of
        their type are null, with a reason."""
        run = Evaluator({}, clock)
        run.inputs = {key: run.coerced(value, self.type_of(key), key) for key, value in inputs.items()}
        return run

    def type_of(self, key: str) -> ItemType:
        """The type of an input."""
        return self.elements[key].type if key in self.elements else self.implied.get(key, ItemType())

    def decide(self, element: DrgElement, run: Evaluator) -> Value:
        """What a decision (or an input) is worth in an evaluation."""
        if element.kind == "inputData" or element.body is None:
            return run.values.get(element.key, run.inputs.get(element.key))
        if element.key not in run.values:
            scope = self._scope(element, run)
            run.values[element.key] = run.coerced(element.body(scope, run), element.type, element.name)
        return run.values[element.key]

    def _scope(self, element: DrgElement, run: Evaluator) -> Scope:
        scope: Scope = (
            {name: run.inputs.get(name) for name in self.implied} if element.kind == "decision" else {}
        )
        for key in element.needs:
            if _is_empty(needed := self.elements[key]):
                continue
            value = self.function(needed, run) if needed.kind in _INVOCABLE else self.decide(needed, run)
            if prefix := element.file.prefix_of(needed.file):
                held = scope.setdefault(prefix, {})
                assert isinstance(held, dict)
                held[needed.name] = value
            else:
                scope[needed.name] = value
        for name, (key, output) in element.aliases.items():
            value = self.decide(self.elements[key], run)
            scope[name] = _output(value, output) if output else value
        return scope

    def function(self, element: DrgElement, run: Evaluator) -> Function:
        """A business knowledge model or a decision service as something that can be invoked."""
        if element.kind == "decisionService":
            return self._service(element, run)
        if element.key not in run.functions:
            assert element.body is not None
            scope: Scope = {}
            function = invocable(element.name, element.parameters, element.body, scope, run, element.type)
            run.functions[element.key] = function  # known before its scope is made: it may invoke itself
            scope |= {element.name: function, **self._scope(element, run)}
        return run.functions[element.key]

    def _service(self, element: DrgElement, run: Evaluator) -> Function:
        keys = (*element.inputs, *element.input_decisions)
        parameters = self._parameters(element)

        def body(scope: Scope, run: Evaluator) -> Value:
            given = {key: scope[self.elements[key].name] for key in keys}
            inner = run.inside(
                {k: given[k] for k in element.inputs}, {k: given[k] for k in element.input_decisions}
            )
            made = {self.elements[k].name: self.decide(self.elements[k], inner) for k in element.outputs}
            run.steps = inner.steps
            return next(iter(made.values())) if len(made) == 1 else made

        return invocable(element.name, parameters, body, {}, run, element.type)

    def invoke(self, element: DrgElement, arguments: Mapping[str, Value], clock: Clock | None = None) -> Value:
        """What something that can be invoked gives; a missing argument is null."""
        run = Evaluator({}, clock)
        function = self.function(element, run)
        try:
            return function.call(*(arguments.get(name) for name in function.parameters))
        except NoValue:
            return None


def _is_empty(element: DrgElement) -> bool:
    """Whether it is a knowledge model that is only drawn: nothing can invoke it."""
    return element.kind == "businessKnowledgeModel" and element.body is None and not element.fault


def _is_path(tree: object, path: tuple[str, ...]) -> bool:
    from vertigym.decisions.dmn.names import dotted

    parts, root = dotted(tree)  # type: ignore[arg-type]
    return isinstance(root, Variable) and parts == path


def _output(value: Value, name: str) -> Value:
    """One output of a table with several: a list of them where it gives a list."""
    if isinstance(value, list):
        return [item.get(name) if isinstance(item, dict) else None for item in value]
    return value.get(name) if isinstance(value, dict) else None
