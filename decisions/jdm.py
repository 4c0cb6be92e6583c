"""Decision models written: tables and expressions as one chain in the engine's JSON format (JDM).

Other formats are translated to this one. Every node hands on what it got, so the case and all results so far
are there for the nodes after it. `statedPolicy` and `_row` are ours (the engine passes over them): the hit
policy as the author stated it, and the number a rule has in the author's table."""

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from vertigym.decisions.model import DecisionError

_JSON_TYPES: dict[str, dict[str, Any]] = {
    "number": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\d$"},
    "dateTime": {"type": ["string", "null"], "pattern": r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)$"},
    "time": {"type": ["string", "null"], "pattern": r"^\d\d:\d\d:\d\d$"},
}
_LETTERS = {
    "ß": "ss",
    "æ": "ae",
    "Æ": "AE",
    "ø": "o",
    "Ø": "O",
    "ł": "l",
    "Ł": "L",
    "ı": "i",  # noqa: RUF001
    "đ": "d",
    "œ": "oe",
    "Œ": "OE",
}
_EXAMPLES: dict[str, Any] = {
    "number": 1, "string": "other", "boolean": True, "date": "2024-01-01", "dateTime": "2024-01-01T12:00:00Z",
    "time": "12:00:00",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TableRow:
    """A rule: conditions and outcomes in the engine's language; `number` is its place in the author's table."""

    conditions: tuple[str, ...]
    outcomes: tuple[str, ...]
    number: int


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table to write. `columns` and `outputs` are fields; `collect` puts all matching rows as a list at
    `target`; `policy` is the hit policy as stated."""

    name: str
    columns: tuple[str, ...]
    outputs: tuple[str, ...]
    rows: tuple[TableRow, ...]
    policy: str = "FIRST"
    collect: bool = False
    target: str = ""


@dataclass(frozen=True, slots=True)
class ExpressionSpec:
    """An expression node to write: (key, expression) pairs."""

    name: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(slots=True)
class ModelSpec:
    """A whole model: its nodes in the order they run, the schema of a case, one example case."""

    nodes: list[TableSpec | ExpressionSpec] = field(default_factory=list)
    schema: dict[str, Any] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)

    def text(self) -> str:
        """The model as JDM text."""
        nodes: list[dict[str, Any]] = [_input(self.schema), *map(_node, self._named())]
        edges = [
            {"id": f"edge-{i}", "type": "edge", "sourceId": a["id"], "targetId": b["id"]}
            for i, (a, b) in enumerate(pairwise(nodes))
        ]
        document: dict[str, Any] = {
            "contentType": "application/vnd.gorules.decision",
            "nodes": nodes,
            "edges": edges,
        }
        if self.example:
            document["tests"] = [{"name": "example", "input": self.example}]
        return json.dumps(document, ensure_ascii=False, indent=2) + "\n"

    def _named(self) -> list[tuple[str, TableSpec | ExpressionSpec]]:
        return [(f"node-{place}", node) for place, node in enumerate(self.nodes, 1)]


def schema_of(properties: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """A JSON schema of a case from its fields by dotted path. Every field may be missing or null."""
    schema: dict[str, Any] = {"type": "object", "properties": {}}
    for path, part in properties.items():
        at, (*parents, last) = schema, path.split(".")
        for key in parents:
            at = at["properties"].setdefault(key, {"type": ["object", "null"], "properties": {}})
        at["properties"][last] = dict(part)
    return schema


def put_path(case: dict[str, Any], path: str, value: Any) -> None:
    """Set a dotted path in a case."""
    *parents, last = path.split(".")
    for key in parents:
        case = case.setdefault(key, {})
    case[last] = value


def field_schema(kind: str, allowed: Sequence[str] = ()) -> dict[str, Any]:
    """The JSON schema of a field of a type ("" for any), where only some texts may be allowed."""
    return {**_JSON_TYPES.get(kind, {}), **({"enum": [*allowed, None]} if allowed else {})}


def example_of(part: Mapping[str, Any]) -> Any:
    """A value that a field's schema allows."""
    if "enum" in part:
        return part["enum"][0]
    return next((_EXAMPLES[kind] for kind, schema in _JSON_TYPES.items() if part == schema), None)


def identifier(name: str) -> str:
    """A name as a field name: the engine knows letters a to z, digits and `_` only."""
    plain = "".join(c for c in unicodedata.normalize("NFKD", name) if not unicodedata.combining(c))
    plain = "".join(c if c.isascii() or not c.isalnum() else _LETTERS.get(c, f"u{ord(c):x}") for c in plain)
    found = re.sub(r"\W+", "_", plain.strip(), flags=re.ASCII).strip("_")
    if not found or found[0].isdigit():
        found = f"_{found}"
    return (
        f"{found}_" if found in ("in", "not", "and", "or", "true", "false", "null", "date", "time") else found
    )


def quoted(text: str, where: str) -> str:
    """A text as a literal of the engine.

    Raises:
        DecisionError: it has both kinds of quotes or a backslash: the engine cannot spell it.
    """
    if "\\" in text or ("'" in text and '"' in text):
        raise DecisionError(
            f"{where}: the text {text!r} has a backslash or both kinds of quotes: not supported"
        )
    return f'"{text}"' if "'" in text else f"'{text}'"


def _input(schema: Mapping[str, Any]) -> dict[str, Any]:
    content = {"schema": json.dumps(schema, ensure_ascii=False)} if schema.get("properties") else {}
    return {
        "id": "node-0",
        "name": "case",
        "type": "inputNode",
        "content": content,
        "position": {"x": 0, "y": 0},
    }


def _node(named: tuple[str, TableSpec | ExpressionSpec]) -> dict[str, Any]:
    id_, spec = named
    head = {"id": id_, "name": spec.name, "position": {"x": 280 * int(id_.rpartition("-")[2]), "y": 0}}
    if isinstance(spec, ExpressionSpec):
        items = [{"id": f"{id_}-{i}", "key": key, "value": value} for i, (key, value) in enumerate(spec.pairs)]
        return {**head, "type": "expressionNode", "content": {"passThrough": True, "expressions": items}}
    inputs = _columns(f"{id_}-in", spec.columns)
    outputs = _columns(f"{id_}-out", spec.outputs)
    content: dict[str, Any] = {
        "hitPolicy": "collect" if spec.collect else "first",
        "statedPolicy": spec.policy,
        "passThrough": True,
        "inputs": inputs,
        "outputs": outputs,
        "rules": [_row(row, inputs, outputs, id_) for row in spec.rows],
    }
    if spec.target:
        content["outputPath"] = spec.target
    return {**head, "type": "decisionTableNode", "content": content}


def _columns(prefix: str, fields: Sequence[str]) -> list[dict[str, str]]:
    return [{"id": f"{prefix}-{i}", "name": field, "field": field} for i, field in enumerate(fields)]


def _row(
    row: TableRow, inputs: Sequence[Mapping[str, str]], outputs: Sequence[Mapping[str, str]], id_: str
) -> dict[str, Any]:
    cells = dict(zip((c["id"] for c in (*inputs, *outputs)), (*row.conditions, *row.outcomes), strict=True))
    return {"_id": f"{id_}-{row.number}", "_row": str(row.number), **cells}
