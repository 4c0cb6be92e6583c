"""What a case of a DMN model may hold, as a JSON schema, and cases to begin with.

Limits that a schema can say (lists of literals, ranges of numbers) are said; all others are tested by FEEL when
a case is evaluated.
"""

from collections.abc import Mapping
from itertools import islice
from typing import Any

from vertigym.decisions.dmn.item_types import ItemType
from vertigym.feel import UnaryTests, to_json
from vertigym.feel.syntax import CompareNode, Constant, RangeNode

_JSON: dict[str, dict[str, Any]] = {
    "number": {"type": ["number", "null"]},
    "string": {"type": ["string", "null"]},
    "boolean": {"type": ["boolean", "null"]},
    "date": {"type": ["string", "null"], "pattern": r"^-?\d{4,9}-\d\d-\d\d$"},
    "date and time": {"type": ["string", "null"], "pattern": r"^-?\d{4,9}-\d\d-\d\dT\d\d:\d\d(:\d\d.*)?$"},
    "time": {"type": ["string", "null"], "pattern": r"^\d\d:\d\d:\d\d"},
    "days and time duration": {"type": ["string", "null"], "pattern": r"^-?P(\d+D)?(T[\dHMS.]+)?$"},
    "years and months duration": {"type": ["string", "null"], "pattern": r"^-?P(\d+Y)?(\d+M)?$"},
    "list": {"type": ["array", "null"]},
    "context": {"type": ["object", "null"]},
}
_EXAMPLES: dict[str, list[Any]] = {
    "number": [1, 10, 100], "string": ["other", "amber", "birch"], "boolean": [True, False], "date":
    ["2024-01-01", "2000-06-15"], "date and time": ["2024-01-01T12:00:00", "2000-06-15T08:30:00"], "time":
    ["12:00:00", "08:30:00"], "days and time duration": ["P1D", "P30D"], "years and months duration": ["P1M",
    "P1Y"],
}  # fmt: skip
_MOST_EXAMPLES = 3


def input_schema(types: Mapping[str, ItemType]) -> dict[str, Any]:
    """The schema of a case from the types of its fields; every field may be missing or null."""
    return {"type": "object", "properties": {name: schema_of(kind) for name, kind in types.items()}}


def schema_of(kind: ItemType) -> dict[str, Any]:
    """The schema of one type."""
    if kind.item:
        return {"type": ["array", "null"], "items": schema_of(kind.item)}
    if kind.parts:
        return {
            "type": ["object", "null"],
            "properties": {name: schema_of(part) for name, part in kind.parts.items()},
        }
    schema = dict(_JSON.get(kind.base.name, {}))
    if kind.whole:
        schema["type"] = ["integer", "null"]
    for tests in kind.limits:
        schema |= {"items": _limits(tests)} if kind.base.name == "list" else _limits(tests)
    return schema


def _limits(tests: UnaryTests) -> dict[str, Any]:
    """What a schema can say of a limit; nothing where it cannot."""
    if tests.negated or not tests.tests:
        return {}
    if all(isinstance(test, Constant) for test in tests.tests):
        return {"enum": [*(to_json(test.value) for test in tests.tests if isinstance(test, Constant)), None]}
    if len(tests.tests) > 1:
        return {}
    match tests.tests[0]:
        case RangeNode(low=Constant(low), high=Constant(high), low_closed=at_low, high_closed=at_high):
            return {**_bound("minimum", low, closed=at_low), **_bound("maximum", high, closed=at_high)}
        case CompareNode(operator=">" | ">=" as operator, bound=Constant(low)):
            return _bound("minimum", low, closed=operator == ">=")
        case CompareNode(operator="<" | "<=" as operator, bound=Constant(high)):
            return _bound("maximum", high, closed=operator == "<=")
    return {}


def _bound(side: str, value: Any, *, closed: bool) -> dict[str, Any]:
    number = to_json(value)
    if isinstance(number, bool) or not isinstance(number, int | float):
        return {}
    return {side: number} if closed else {f"exclusive{side.capitalize()}": number}


def example_cases(schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A few cases that the schema allows; between them each field has each of its examples, those of no known
    type left out."""
    fields = {name: examples(part) for name, part in schema["properties"].items()}
    fields = {name: values for name, values in fields.items() if values != [None]}
    count = max((len(values) for values in fields.values()), default=1)
    return [{name: values[turn % len(values)] for name, values in fields.items()} for turn in range(count)]


def examples(schema: Mapping[str, Any]) -> list[Any]:
    """Values that a field's schema allows, at most three."""
    if "enum" in schema:
        return [value for value in schema["enum"] if value is not None][:_MOST_EXAMPLES] or [None]
    if "items" in schema:
        inner = examples(schema["items"])
        return [inner[:1], inner]
    if schema.get("properties"):
        return list(islice(example_cases(schema), _MOST_EXAMPLES))
    for kind, known in _JSON.items():
        if (
            known.get("pattern") == schema.get("pattern")
            and known["type"][0] == (schema.get("type") or [""])[0]
        ):
            return _numbers(schema) if kind == "number" else _EXAMPLES.get(kind, [None])
    return _numbers(schema) if "integer" in schema.get("type", ()) else [None]


def _numbers(schema: Mapping[str, Any]) -> list[Any]:
    """Numbers inside the limits."""
    low, high = (schema.get(key, schema.get(f"exclusive{key.capitalize()}")) for key in ("minimum", "maximum"))
    if low is None and high is None:
        return _EXAMPLES["number"]
    if low is None or high is None:
        return [low + 1 if low is not None else high - 1]
    return [(low + high) / 2 if "integer" not in schema.get("type", ()) else (low + high) // 2]
