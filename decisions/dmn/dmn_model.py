"""A DMN file as a decision model (`protocols.RuleModel`): a case in JSON in, the asked decisions in JSON out.

A case has a field for each input data (or implied input) behind the asked decisions; by default these are the
decisions that no other one requires. A case whose value is not of its declared type or limits, or that a
table's hit policy does not allow, is refused: it has no answer.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from vertigym.core.files import read_text
from vertigym.decisions.dmn.case_schema import example_cases, input_schema
from vertigym.decisions.dmn.cell_faults import cell_faults
from vertigym.decisions.dmn.feel_language import FeelLanguage, FeelScope
from vertigym.decisions.dmn.graph import DecisionGraph
from vertigym.decisions.dmn.implied_types import TEMPORAL, told_types, with_types
from vertigym.decisions.dmn.item_types import ItemType
from vertigym.decisions.dmn.reader import DrgElement
from vertigym.decisions.dmn.rule_nodes import local_aliases, nodes_of
from vertigym.decisions.model import MOST_CHARACTERS, Case, CaseError, DecisionError, Evaluation, Node, Rule
from vertigym.feel import FeelError, NoValue, Value, from_json, to_json

_CASE = "case"
_CLOCK_CALLS = {"now", "today"}


class DmnModel:
    """The decisions of a DMN file. `asked` names those that are answered; `lost` says why others cannot be
    used.

    Raises:
        DecisionError: the file cannot be read, an asked decision is not there or cannot be used.
    """

    def __init__(self, file: Path, asked: Sequence[str] = (), source: str = "", now: str = "") -> None:
        self._file, self.source, self._now = file, source or str(file), now
        self.graph = DecisionGraph(file)
        self.lost = self.graph.lost
        self.asked = [self.graph.find(name) for name in asked] or self._top()
        needed = {e.key: e for each in self.asked for e in self.graph.required(each)}
        self._needed = list(needed.values())
        self.inputs = self._inputs()
        self.graph.implied |= {
            name: self.types[name] for name in self.graph.implied.keys() & self.inputs.keys()
        }
        self.schema: dict[str, Any] = input_schema(
            {name: with_types(kind, (name,), self._told) for name, kind in self.types.items()}
        )
        self.tests: list[tuple[Case, Any]] = [(case, None) for case in example_cases(self.schema)]
        made = [node for e in self._needed for node in nodes_of(e)]
        self.nodes: list[Node] = [Node(_CASE, _CASE, "input"), *made]
        self.rules: dict[str, Rule] = {rule.id: rule for node in self.nodes for rule in node.rules}
        self.edges = tuple(
            (a.id, b.id, "") for a, b in pairwise(self.nodes)
        )  # in the order they are decided in
        self.language = self._language()

    def _top(self) -> list[DrgElement]:
        """The usable decisions that no other one requires."""
        required = {key for e in self.graph.decisions for key in e.needs}
        return [e for e in self.graph.decisions if e.key not in required] or self.graph.decisions

    def alternatives(self) -> list[list[str]]:
        """What can be asked for instead: all decisions together, then each function by itself."""
        every = list(dict.fromkeys(e.name for e in self.graph.decisions))
        more = [every] if len(every) > len(self.asked) else []
        return more + [[name] for name in self.graph.functions()]

    def _inputs(self) -> dict[str, str]:
        """A case's fields and the inputs they are."""
        found: dict[str, str] = {}
        for element in self._needed:
            if element.kind == "inputData" or (element.kind == "decision" and element.body is None):
                if element.name in found:
                    raise DecisionError(f"{self.source}: two inputs are called {element.name!r}")
                found[element.name] = element.key
        used = {path[0] for e in self._needed for path in e.paths if path[0] not in e.aliases}
        return found | {name: name for name in self.graph.implied if name in used}

    @cached_property
    def types(self) -> dict[str, ItemType]:
        """The types of a case's fields. Texts of an input that is compared with moments or durations are read
        as such, whether or not that is declared."""
        only = TEMPORAL | {"list"}
        return {name: with_types(kind, (name,), self._told, only) for name, kind in self._stated.items()}

    @cached_property
    def _told(self) -> dict[tuple[str, ...], str]:
        """The types that the expressions tell of inputs that declare none."""
        texts = [e.said.get((text, False), text) for e in self._needed if not e.table for text in e.texts]
        tables = [table for e in self._needed for table in e.tables]
        implied = self.graph.implied.keys() & self.inputs.keys()
        return told_types(self._stated, implied, tables, texts, self.graph.words | set(self.inputs))

    @cached_property
    def _stated(self) -> dict[str, ItemType]:
        """The types that are declared, the input values of the columns that show an input among its limits."""
        found = {name: self.graph.type_of(key) for name, key in self.inputs.items()}
        for element in self._needed:
            for column in element.table.columns if element.table else ():
                if column.text in found and column.limits:
                    kind = found[column.text]
                    known = column.limit_text in kind.limit_texts
                    found[column.text] = (
                        kind
                        if known
                        else replace(
                            kind,
                            limits=(*kind.limits, column.limits),
                            limit_texts=(*kind.limit_texts, column.limit_text),
                        )
                    )
                if column.text in found and found[column.text].base.name == "Any":
                    found[column.text] = replace(
                        found[column.text], base=column.type.base, whole=column.type.whole
                    )
        return found

    def _language(self) -> FeelLanguage:
        tables = [table for e in self._needed for table in e.tables]
        names = {*self.inputs, *(e.name for e in self._needed if e.kind == "decision")}
        aliases, ambiguous = local_aliases(self._needed, self.graph, self.inputs)
        return FeelLanguage(
            names_known=frozenset(self.graph.words | {e.name for e in self._needed} | set(self.inputs)),
            roots=frozenset(names - ambiguous),
            aliases=aliases,
            columns={
                column.text: self._kind_of(column.text, column.type) for t in tables for column in t.columns
            },
            cells={cell for table in tables for rule in table.rules for cell in rule.cells},
            opaque={text for e in self._needed for text in e.texts if e.table and text in _changed(e)}
            | {e.texts[0] for e in self._needed if e.kind == "decision" and not e.table and _converts(e)},
            said={key: text for e in self._needed for key, text in e.said.items()},
            read=self._scope,
        )

    def _kind_of(self, text: str, stated: ItemType) -> str:
        return stated.base.name if stated.base.name != "Any" else self.types.get(text, stated).base.name

    def _scope(self, case: Mapping[str, Any]) -> FeelScope:
        """A case as a scope; values that cannot be read are null."""
        scope = FeelScope()
        for name, kind in self.types.items():
            try:
                scope[name] = kind.read(from_json(case.get(name)))
            except NoValue:
                scope[name] = None
        return scope

    # A model.

    @property
    def files(self) -> dict[str, str]:
        """The model's files by name, `decision.dmn` first, as an environment's folder keeps them."""
        found = {"decision.dmn": read_text(self._file, MOST_CHARACTERS)}
        for path in self.graph.imported_files():
            found[str(path.relative_to(self._file.resolve().parent))] = read_text(path, MOST_CHARACTERS)
        return found

    def evaluate(self, case: Case) -> Evaluation:
        """The asked decisions and the rules they hit; where nothing applies a decision is null.

        Raises:
            CaseError: the case has no answer.
        """
        try:
            inputs = {key: self._input(name, case.get(name)) for name, key in self.inputs.items()}
            run = self.graph.run(inputs, self._clock)
            decided = {e.name: self.graph.decide(e, run) for e in self.asked}
            found = {name: to_json(value) for name, value in decided.items()}
        except NoValue as error:
            raise CaseError(str(error)) from None
        except (FeelError, RecursionError) as error:
            raise CaseError(f"it cannot be evaluated: {error}") from None
        if run.faults:
            raise CaseError(run.faults[0])
        hit = tuple(dict.fromkeys(rule for rule in run.hits if rule in self.rules))
        return Evaluation(found, hit, {k: FeelScope(v) for k, v in run.seen.items()})

    def _input(self, name: str, value: Any) -> Value:
        """
        Raises:
            NoValue: the value is not of the field's type, or lies outside its limits.
        """
        kind = self.types[name]
        made = kind.read(from_json(value))
        if not kind.holds(made):
            limits = f" ({', '.join(kind.limit_texts)})" if kind.limit_texts else ""
            raise NoValue(f"{name} is {value!r}, which is not {kind.name}{limits}")
        return made

    def _clock(self) -> datetime:
        """
        Raises:
            FeelError: nothing says what time it is.
        """
        if not self._now:
            raise FeelError("it reads the clock")
        return datetime.fromisoformat(self._now)

    def in_order(self) -> list[Node]:
        """The nodes, each after all that lead to it."""
        return list(self.nodes)

    def cell_faults(self) -> list[tuple[str, str, str]]:
        """Rules, cells and what is wrong with them, seen without any case."""
        return [fault for e in self._needed for table in e.tables for fault in cell_faults(table)]

    @property
    def notes(self) -> list[str]:
        """What a reader should know: decisions that are lost, and what was taken for granted."""
        lost = [f"decision {name!r} cannot be used: {why}" for name, why in self.lost.items()]
        implied = [name for name in self.inputs if name in self.graph.implied]
        return [
            *lost,
            *(note for e in self._needed for note in e.notes),
            *([f"no input data declares {', '.join(implied)}: taken from the expressions"] if implied else []),
        ]

    def clock_readers(self) -> list[str]:
        """Names of the decisions that read the clock; none where it is stopped."""
        return [e.name for e in self._needed if _CLOCK_CALLS & set(e.calls) and not self._now]

    def impure(self) -> list[str]:
        """FEEL draws no random numbers."""
        return []

    def at(self, now: str) -> "DmnModel":
        """The same model with its clock stopped at `now` (ISO 8601)."""
        return DmnModel(self._file, [e.name for e in self.asked], self.source, now)


def _changed(element: DrgElement) -> set[str]:
    """A table's results that an output's or the decision's type may change."""
    assert element.table is not None
    typed = any(output.type.base.name != "Any" or output.type.limits for output in element.table.outputs)
    if not typed and not _converts(element):
        return set()
    found = set()
    for rule in element.table.rules:
        values = element.table.constant(rule)
        kinds = [output.type for output in element.table.outputs]
        if (
            values is None
            or not all(kind.holds(value) for kind, value in zip(kinds, values, strict=True))
            or (len(values) == 1 and not element.type.holds(values[0]))
        ):
            found |= set(rule.results)
    return found


def _converts(element: DrgElement) -> bool:
    return element.type.base.name != "Any" or bool(element.type.item)
