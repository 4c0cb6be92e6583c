"""A DMN file and the files it imports, as the elements of one decision graph.

An element is known by its key, `namespace#id`. Imported files lie beside the file or in folders below it: a
`locationURI` that leads out of the folder is not followed. One element that cannot be used has a `fault`, which
says why; the others work.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from vertigym.core.errors import DataError
from vertigym.decisions.dmn.boxed import Compiler, FormalParameter
from vertigym.decisions.dmn.decision_tables import DecisionTable
from vertigym.decisions.dmn.dialects import is_feel, is_tool
from vertigym.decisions.dmn.elements import (
    Element,
    body_of,
    child,
    children,
    local,
    name_of,
    read_root,
    version_of,
)
from vertigym.decisions.dmn.item_types import ItemType, TypeTable
from vertigym.decisions.dmn.running import Body
from vertigym.decisions.dmn.table_reader import compiled_table
from vertigym.decisions.model import DecisionError

_MOST_FILES = 50


@dataclass(slots=True)
class DrgElement:
    """Input data, a decision, a business knowledge model or a decision service.

    `needs` are the keys it requires. Of a decision, `table` is its decision table, `tables` are all in it; of
    an invocable, `parameters` are what it takes. A service has `outputs`, `inputs` and `input_decisions`
    (keys). `paths` are names that nothing gives it.
    """

    key: str
    name: str
    kind: str
    file: "DmnFile"
    element: Element
    type: ItemType = field(default_factory=ItemType)
    needs: tuple[str, ...] = ()
    body: Body | None = None
    table: DecisionTable | None = None
    parameters: tuple[FormalParameter, ...] = ()
    outputs: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    input_decisions: tuple[str, ...] = ()
    paths: list[tuple[str, ...]] = field(default_factory=list)
    aliases: dict[str, tuple[str, str]] = field(default_factory=dict)  # a name -> (key, output) of a decision
    texts: list[str] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    said: dict[tuple[str, bool], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    tables: list[DecisionTable] = field(default_factory=list)
    fault: str = ""


@dataclass(slots=True)
class DmnFile:
    """One file: its namespace, its imports by name, its types."""

    root: Element
    source: str
    space: str
    version: str
    types: TypeTable
    imports: dict[str, "DmnFile"] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)  # imports that are not there: namespace -> name

    def key(self, href: str) -> str:
        """The key that a reference stands for."""
        space, mark, id_ = href.strip().rpartition("#")
        if not mark:
            return f"{self.space}#{id_}"
        return f"{space or self.space}#{unquote(id_)}"

    def prefix_of(self, other: "DmnFile") -> str | None:
        """The name under which this file knows another one's elements; None for its own."""
        return next((name for name, file in self.imports.items() if file is other), None)


class DmnReader:
    """Reads a file and what it imports.

    Raises:
        DecisionError: the file cannot be read or has no decision, or an import is missing.
        MissingDependencyError: defusedxml is not installed.
    """

    def __init__(self, path: Path) -> None:
        self._folder = path.resolve().parent
        self._files: dict[Path, DmnFile] = {}
        self.elements: dict[str, DrgElement] = {}
        self._table_ids: Counter[str] = Counter()
        self.main = self._file(path.resolve(), str(path))
        for file in self._files.values():
            for element in file.root:
                self._add(file, element)
        if not any(e.kind == "decision" and e.file is self.main for e in self.elements.values()):
            raise DecisionError(f"{path}: no decision in it")
        self.words = frozenset(name for file in self._files.values() for name in _declared(file))
        self.implied = not any(e.kind == "inputData" for e in self.elements.values())

    # Files.

    def _file(self, path: Path, source: str) -> DmnFile:
        if path in self._files:
            return self._files[path]
        if len(self._files) == _MOST_FILES:
            raise DecisionError(f"{source}: imports more than {_MOST_FILES} files")
        root = read_root(path)
        file = DmnFile(
            root,
            source,
            str(root.get("namespace") or ""),
            version_of(root),
            TypeTable(root, source, converts=is_tool(root)),
        )
        self._files[path] = file
        for element in children(root, "import"):
            if _is_model(element):
                name = " ".join((element.get("name") or "").split())
                if found := self._imported(element, file, path):
                    file.imports[name], file.types.imported[name] = found, found.types
                else:
                    file.missing[element.get("namespace") or ""] = name
        return file

    def _imported(self, element: Element, file: DmnFile, path: Path) -> DmnFile | None:
        """The file that an import names: at its location, or the one beside the file with its namespace. None
        where there is none: what needs it cannot be used, the rest can."""
        space, location = element.get("namespace") or "", unquote(element.get("locationURI") or "")
        for found in self._candidates(location, path) if space or location else ():
            if not found.is_relative_to(self._folder):
                raise DecisionError(f"{file.source}: import {location!r} lies outside the file's folder")
            if found.is_file() and (not space or _space_of(found) == space):
                return self._file(found, str(Path(file.source).parent / found.relative_to(path.parent)))
        return None

    def _candidates(self, location: str, path: Path) -> Iterator[Path]:
        if location and "://" not in location:
            yield (path.parent / location).resolve()
        yield from sorted(
            p.resolve() for p in path.parent.iterdir() if p.suffix in (".dmn", ".xml") and p.is_file()
        )

    def imported_files(self) -> list[Path]:
        """The files that were imported."""
        return [path for path, file in self._files.items() if file is not self.main]

    # Elements.

    def add(self, element: Element) -> DrgElement | None:
        """Add an element to the main file that does not stand in it; None where it was added before."""
        key = self.main.key(f"#{element.get('id')}")
        if key in self.elements:
            return None
        self._add(self.main, element)
        return self.elements[key]

    def _add(self, file: DmnFile, element: Element) -> None:
        kind = local(element)
        if kind not in ("inputData", "decision", "businessKnowledgeModel", "decisionService"):
            return
        made = DrgElement(
            file.key(f"#{element.get('id') or name_of(element)}"), name_of(element), kind, file, element
        )
        if made.key in self.elements and file is self.main:
            raise DecisionError(f"{file.source}: two elements have the id {element.get('id')!r}")
        made.needs = tuple(
            file.key(target.get("href") or "")
            for requirement in children(element, "informationRequirement", "knowledgeRequirement")
            for target in children(requirement, "requiredDecision", "requiredInput", "requiredKnowledge")
        )
        references = ("outputDecision", "inputData", "inputDecision")
        made.outputs, made.inputs, made.input_decisions = (
            tuple(file.key(e.get("href") or "") for e in children(element, tag)) for tag in references
        )
        try:
            made.type = file.types.of(child(element, "variable"))
        except DataError as error:
            made.fault = str(error)
        self.elements[made.key] = made

    # Compiling.

    def compile(self, element: DrgElement) -> None:
        """Compile a decision or a business knowledge model; a fault is noted in it."""
        try:
            if element.fault:
                return
            visible = self._visible(element)
            compiler = self._compiler(element, visible)
            if element.kind == "decision":
                self._decision(element, compiler)
            elif element.kind == "businessKnowledgeModel":
                logic = child(element.element, "encapsulatedLogic")
                if logic is None or body_of(logic) is None:
                    return
                element.parameters, element.body = compiler.inside(element.name).function(logic)
                if not element.parameters:  # what it asks for is what it takes, in that order
                    names = dict.fromkeys(path[0] for path in compiler.free)
                    element.parameters = tuple(FormalParameter(name, ItemType()) for name in names)
                    compiler.free.clear()
            element.paths, element.texts, element.calls = compiler.free, compiler.texts, compiler.calls
            element.said, element.notes, element.tables = compiler.said, compiler.notes, compiler.tables
            for table in element.tables:
                self._table_ids[table.id] += 1
                if self._table_ids[table.id] > 1:
                    table.id += f"~{self._table_ids[table.id]}"
        except DataError as error:
            element.fault = str(error)
        except RecursionError:
            element.fault = f"{element.file.source}: {element.name!r} is nested too deeply"

    def _visible(self, element: DrgElement) -> list[str]:
        """Names that what an element requires has in its expressions.

        Raises:
            DecisionError: something required is not there.
        """
        names = []
        for key in element.needs:
            if (needed := self.elements.get(key)) is None:
                space, _, id_ = key.rpartition("#")
                if space in element.file.missing:
                    raise DecisionError(
                        f"{element.file.source}: {element.name!r} needs the import "
                        f"{element.file.missing[space]!r}: no "
                        f"DMN file beside it has the namespace {space!r}"
                    )
                raise DecisionError(
                    f"{element.file.source}: decision {element.name!r} requires #{id_}, which is not there"
                )
            prefix = element.file.prefix_of(needed.file) if needed.file is not element.file else ""
            names.append(prefix or needed.name)
        return names

    def _compiler(self, element: DrgElement, visible: list[str]) -> Compiler:
        file = element.file
        outer = file.root.get("expressionLanguage") or ""
        return Compiler(
            types=file.types,
            names=self.words | set(visible),
            known=frozenset(visible),
            where=f"{file.source}: {_KINDS[element.kind]} {element.name!r}",
            table=compiled_table,
            place=element.name,
            language="" if is_feel(outer) else outer,
            tool=is_tool(file.root),
            feel_types=file.types.feel_types,
        )

    def _decision(self, element: DrgElement, compiler: Compiler) -> None:
        body = body_of(element.element)
        if body is not None and local(body) == "decisionTable":
            element.table = compiled_table(body, compiler)
            element.body = element.table.body
        elif body is not None:
            element.body = compiler.body(body)


_KINDS = {"decision": "decision", "businessKnowledgeModel": "knowledge model", "decisionService": "service"}


def _is_model(element: Element) -> bool:
    """Whether an import is of DMN (others are of XML types or PMML, which a decision may or may not need)."""
    kind = (element.get("importType") or "").upper()
    return "PMML" not in kind and "XMLSCHEMA" not in kind


def _space_of(path: Path) -> str:
    try:
        return str(read_root(path).get("namespace") or "")
    except DataError:
        return ""


def _declared(file: DmnFile) -> Iterator[str]:
    """Names of a file that may stand in FEEL and are more than one word: those of all its parts."""
    yield from file.imports
    for element in file.root.iter():
        name = " ".join((element.get("name") or "").split()) if local(element) in _NAMED else ""
        if name and not name.isidentifier():
            yield name


_NAMED = {
    "inputData", "decision", "businessKnowledgeModel", "decisionService", "variable", "itemComponent",
    "formalParameter", "output", "column", "parameter",
}  # fmt: skip
