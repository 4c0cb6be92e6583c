"""A decision model (JDM JSON): its tables and switches as typed data, and the engine's answer for a case.

The rule engine is `zen-engine`. What it answers is the truth; this module adds only names: every rule of a
table and every branch of a switch has a readable id, `table:3` for the third rule, and an evaluation says
which ids it hit.

The engine runs in this process. A model with JavaScript in it is somebody's program, which may reach the
network or never end: it is run by the `scripts` engine that the caller gives, or not at all.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from vertigym.core.bounds import MOST_LEVELS, is_too_deep, json_value
from vertigym.core.errors import DataError
from vertigym.core.files import read_text
from vertigym.decisions.cases import whole_numbers
from vertigym.decisions.expressions import (
    is_random,
    out_of_bounds,
    reads_clock,
    script_is_impure,
    stop_clock,
)
from vertigym.decisions.input_schema import schema_fault
from vertigym.decisions.zen_language import ZenLanguage

Case = dict[str, Any]
Decide = Callable[[Case], Any]  # the engine's answer for a case, {"result": …, "trace": …}; raises CaseError
Engine = Callable[[str], Decide]  # opens the text of a model
TABLES = ("table", "inner table")  # kinds of nodes that are tables; an inner one is part of another node
_KEY = "decision"
MOST_CHARACTERS = 10_000_000  # of a file of rules
_UNSUPPORTED = {
    "decisionNode": "it refers to another decision file; inline that model first",
    "customNode": "its meaning is known only to the program that defines it",
}


class DecisionError(DataError):
    """A decision model that cannot be used: broken, unsupported, or not a function of its input."""


class CaseError(Exception):
    """The engine refused one case (a type error in an expression, a cycle, a panic)."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A table's row or a switch's branch. `cells` pairs a column's field ("" for a free condition) with the
    row's condition; `outcome` pairs output fields with expressions (empty for a branch)."""

    id: str
    node: str
    index: int
    cells: tuple[tuple[str, str], ...]
    outcome: tuple[tuple[str, str], ...] = ()

    @property
    def text(self) -> str:
        """`age > 65, plan 'gold' -> premium 12`: the rule in one line."""
        conditions = ", ".join(f"{f} {c}".strip() for f, c in self.cells if c.strip()) or "otherwise"
        outcome = ", ".join(f"{f} {v}".strip() for f, v in self.outcome if v.strip())
        return f"{conditions} -> {outcome}" if outcome else conditions


@dataclass(frozen=True, slots=True)
class Node:
    """One node: a `table` (an `inner table` is shown as part of another node), `switch`, `expression`,
    `function`, a `boxed` expression of DMN, or another kind that holds no rules.

    `expressions` are (key, expression) pairs. `scope` is the field the node works inside (with `[]` when it
    loops over a list), `target` where its outputs go; `pass_through` says whether it hands on what it got. In a
    `unique` table no two rules may match one case.
    """

    id: str
    name: str
    kind: str
    rules: tuple[Rule, ...] = ()
    expressions: tuple[tuple[str, str], ...] = ()
    columns: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    hit_policy: str = "first"
    scope: str = ""
    target: str = ""
    source: str = ""
    pass_through: bool = True
    unique: bool = False

    def texts(self) -> Iterator[str]:
        """Every expression it holds."""
        yield from self.columns
        yield from (text for _, text in self.expressions)
        for rule in self.rules:
            yield from (text for _, text in (*rule.cells, *rule.outcome))

    def paths(self) -> Iterator[str]:
        """Every dotted path that it writes to or works in."""
        yield from (self.scope, self.target, *self.outputs, *(key for key, _ in self.expressions))


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What the engine made of a case: its output, the ids of the rules hit in order, and, per table or
    switch node that ran, the context it saw."""

    output: Any
    rules: tuple[str, ...]
    contexts: Mapping[str, Any]


class DecisionModel:
    """A loaded model. `text` is the file; `tests` are its own (input, output) pairs; `schema` is the JSON
    schema of its input, empty where it states none. `scripts` runs it where it has JavaScript.

    Raises:
        DecisionError: not JSON, not a decision graph, or it needs something that is not supported.
    """

    def __init__(
        self,
        text: str,
        source: str = "decision model",
        scripts: Engine | None = None,
        notes: Sequence[str] = (),
    ) -> None:
        self.text, self.source, self.notes = text, source, list(notes)
        self.language = ZenLanguage()
        self._scripts = scripts
        document = _document(text, source)
        _validate(text, source)
        self.nodes = _nodes(document, source)
        for node in self.nodes:
            for expression in (*node.texts(), *node.paths()):
                if fault := out_of_bounds(expression):
                    raise DecisionError(f"{source}: node {node.name!r}: {fault}: {expression[:60]}")
        self.rules: dict[str, Rule] = {rule.id: rule for node in self.nodes for rule in node.rules}
        self._rules_of = {node.id: [rule.id for rule in node.rules] for node in self.nodes}
        self._branch = {
            (raw["id"], str(branch.get("id"))): f"{rules[index]}"
            for raw in document["nodes"]
            if raw["type"] == "switchNode" and (rules := self._rules_of[raw["id"]])
            for index, branch in enumerate(raw["content"].get("statements", []))
        }
        self.edges = tuple(_edges(document, self._branch))
        self.schema = _schema(document, source)
        self.tests: list[tuple[Case, Any]] = [
            (test["input"], test.get("output"))
            for test in (document["tests"] if isinstance(document.get("tests"), list) else [])
            if isinstance(test, dict) and isinstance(test.get("input"), dict)
        ]

    @classmethod
    def read(cls, file: Path, scripts: Engine | None = None) -> "DecisionModel":
        """The model in `file`."""
        return cls(read_text(file, MOST_CHARACTERS), str(file), scripts)

    def evaluate(self, case: Case) -> Evaluation:
        """The engine's answer and the rules it hit.

        Raises:
            CaseError: the engine cannot decide this case. DecisionError: the model has JavaScript, and nothing
                runs it, or it does not end or uses too much.
        """
        answer = self._decide(case)
        if is_too_deep(answer["result"]):
            raise CaseError(f"the result is nested more than {MOST_LEVELS} levels deep")
        hit: list[str] = []
        contexts: dict[str, Any] = {}
        for node_id, entry in sorted(answer["trace"].items(), key=lambda item: item[1]["order"]):
            if self._rules_of.get(node_id):
                contexts[node_id] = entry["input"]
            hit += self._hits(node_id, entry["traceData"])
        return Evaluation(whole_numbers(answer["result"]), tuple(dict.fromkeys(hit)), contexts)

    @property
    def files(self) -> dict[str, str]:
        """The model as an environment's folder keeps it."""
        return {"decision.json": self.text}

    @cached_property
    def _decide(self) -> Decide:
        if not self.scripts:
            return in_process(self.text)
        if self._scripts is None:
            raise DecisionError(
                f"{self.source}: node {self.scripts[0]!r} is JavaScript, and nothing here runs it"
            )
        return self._scripts(self.text)

    @property
    def scripts(self) -> list[str]:
        """Names of the nodes that are JavaScript."""
        return [node.name for node in self.nodes if node.kind == "function"]

    def _hits(self, node_id: str, trace: Any) -> list[str]:
        """Ids of the rules named in one node's trace: one hit, a list of them (collect, loop), or branches."""
        names = self._rules_of.get(node_id)
        if not names or not trace:
            return []
        if isinstance(trace, list):
            return [hit for part in trace for hit in self._hits(node_id, part)]
        if "statements" in trace:
            return [self._branch[node_id, str(branch["id"])] for branch in trace["statements"]]
        return [names[trace["index"]]] if "rule" in trace else []

    def in_order(self) -> list[Node]:
        """The nodes, each after all that lead to it; those on a cycle last."""
        waiting, placed, order = list(self.nodes), set[str](), list[Node]()
        while ready := [n for n in waiting if all(s in placed for s, t, _ in self.edges if t == n.id)]:
            order += ready
            placed |= {node.id for node in ready}
            waiting = [node for node in waiting if node.id not in placed]
        return order + waiting

    def cell_faults(self) -> list[tuple[str, str, str]]:
        """The engine's language states no types, so no cell is at fault by itself."""
        return []

    def alternatives(self) -> list[list[str]]:
        """All of it is asked for."""
        return []

    def clock_readers(self) -> list[str]:
        """Names of the nodes whose expressions read the clock."""
        return [node.name for node in self.nodes if any(map(reads_clock, node.texts()))]

    def impure(self) -> list[str]:
        """Names of the nodes that draw random numbers, or whose script reads the clock."""
        return [n.name for n in self.nodes if any(map(is_random, n.texts())) or script_is_impure(n.source)]

    def at(self, now: str) -> "DecisionModel":
        """The same model with its clock stopped at `now` (ISO 8601)."""
        document = json.loads(self.text)
        for node in document["nodes"]:
            if node["type"] in ("decisionTableNode", "expressionNode", "switchNode"):
                node["content"] = _map_strings(node["content"], lambda text: stop_clock(text, now))
        text = json.dumps(document, ensure_ascii=False, indent=2) + "\n"
        return DecisionModel(text, self.source, self._scripts, self.notes)


def _document(text: str, source: str) -> dict[str, Any]:
    try:
        document = json_value(text)
    except ValueError as error:
        raise DecisionError(f"{source}: not JSON ({error})") from None
    if not isinstance(document, dict) or not isinstance(document.get("nodes"), list):
        raise DecisionError(f"{source}: not a decision model (JDM): a JSON object with 'nodes' and 'edges'")
    for node in document["nodes"]:
        if not isinstance(node, dict) or not all(isinstance(node.get(key), str) for key in ("id", "type")):
            raise DecisionError(f"{source}: not a decision model (JDM): each node has an 'id' and a 'type'")
    return document


def _validate(text: str, source: str) -> None:
    """Have the engine check the model; nothing of it runs."""
    import zen  # here, so that listing environments does not start the engine

    try:
        _guarded(lambda: zen.ZenEngine().create_decision(text).validate())
    except CaseError as error:
        raise DecisionError(f"{source}: the rule engine cannot load it: {error}") from None


def in_process(text: str) -> Decide:
    """An engine in this process that holds the compiled model (evaluating through a loader skips a re-compile
    per case). JavaScript in it may do what this process may."""
    import zen

    content = zen.ZenDecisionContent(text)
    engine = zen.ZenEngine({"loader": lambda _key: content})
    return lambda case: _guarded(engine.evaluate, _KEY, case, {"trace": True})


def _guarded(call: Any, *arguments: Any) -> Any:
    """Call into the engine. Its panics come as BaseException; both they and its errors become CaseError."""
    try:
        return call(*arguments)
    except Exception as error:
        raise CaseError(first_lines(str(error))) from None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise CaseError(f"the engine panicked: {first_lines(str(error))}") from None


def first_lines(text: str) -> str:
    """The engine's own words in an error as one line, without its wrapping and its stack."""
    text = text.partition("Stack backtrace")[0]
    with suppress(ValueError, KeyError, TypeError):
        text = str(json.loads(text, strict=False)["source"])
    return " ".join(text.split())[:200]


def _schema(document: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The input node's JSON schema (the engine checks cases against it)."""
    for raw in document["nodes"]:
        text = (raw.get("content") or {}).get("schema") if raw["type"] == "inputNode" else None
        if text:
            try:
                schema = json_value(text)
            except ValueError as error:
                raise DecisionError(f"{source}: the input node's schema is not JSON ({error})") from None
            if fault := schema_fault(schema, "schema"):
                raise DecisionError(f"{source}: the input node's schema is no JSON schema: {fault}")
            return schema if isinstance(schema, dict) else {}
    return {}


def _edges(
    document: Mapping[str, Any], branches: Mapping[tuple[str, str], str]
) -> Iterator[tuple[str, str, str]]:
    """Edges as (source, target, the rule id of the branch it hangs on or "")."""
    for edge in document.get("edges", []):
        source = str(edge.get("sourceId"))
        yield source, str(edge.get("targetId")), branches.get((source, str(edge.get("sourceHandle"))), "")


def _nodes(document: Mapping[str, Any], source: str) -> list[Node]:
    names: Counter[str] = Counter()
    nodes = []
    for raw in document["nodes"]:
        if raw["type"] in _UNSUPPORTED:
            why = _UNSUPPORTED[raw["type"]]
            raise DecisionError(f"{source}: node {raw.get('name')!r} ({raw['type']}) is not supported: {why}")
        name = " ".join(str(raw.get("name") or raw["id"]).split())
        names[name] += 1
        nodes.append(_node(raw, name if names[name] == 1 else f"{name}~{names[name]}"))
    return nodes


def _node(raw: Mapping[str, Any], name: str) -> Node:
    content = raw.get("content")
    content = content if content is not None else {}
    if raw["type"] == "functionNode":
        code = content if isinstance(content, str) else str(content.get("source", ""))
        return Node(raw["id"], name, "function", source=code)
    if raw["type"] == "switchNode":
        branches, policy = tuple(_branches(content, name)), content.get("hitPolicy") or "first"
        return Node(raw["id"], name, "switch", rules=branches, hit_policy=policy)
    if raw["type"] not in ("decisionTableNode", "expressionNode"):
        return Node(raw["id"], name, raw["type"].removesuffix("Node"))
    scope = content.get("inputField") or ""
    node = Node(
        raw["id"],
        name,
        "expression",
        scope=f"{scope}[]" if content.get("executionMode") == "loop" and scope else scope,
        target=content.get("outputPath") or "",
        pass_through=bool(content.get("passThrough")),
    )
    if raw["type"] == "expressionNode":
        pairs = ((e.get("key") or "", e.get("value") or "") for e in content.get("expressions", []))
        return replace(node, expressions=tuple(pairs))
    return replace(
        node,
        kind="table",
        rules=tuple(_rows(content, name)),
        columns=tuple(column.get("field") or "" for column in content["inputs"]),
        outputs=tuple(column.get("field") or "" for column in content["outputs"]),
        hit_policy=content.get("hitPolicy") or "first",
        unique=content.get("statedPolicy") == "UNIQUE",
    )


def _rows(content: Mapping[str, Any], name: str) -> Iterator[Rule]:
    for index, row in enumerate(content["rules"]):
        cells = tuple((c.get("field") or "", str(row.get(c["id"]) or "").strip()) for c in content["inputs"])
        outcome = tuple((c.get("field") or "", str(row.get(c["id"]) or "").strip()) for c in content["outputs"])
        yield Rule(f"{name}:{row.get('_row') or index + 1}", name, index, cells, outcome)


def _branches(content: Mapping[str, Any], name: str) -> Iterator[Rule]:
    for index, branch in enumerate(content.get("statements", [])):
        yield Rule(f"{name}:{index + 1}", name, index, (("", str(branch.get("condition") or "").strip()),))


def _map_strings(value: Any, change: Any) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {key: _map_strings(item, change) for key, item in value.items()}
    return [_map_strings(item, change) for item in value] if isinstance(value, list) else value


def is_finite(value: Any) -> bool:
    """Whether `value` is plain JSON: no NaN, no infinity, at any depth."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(map(is_finite, value.values()))
    return all(map(is_finite, value)) if isinstance(value, list) else True
