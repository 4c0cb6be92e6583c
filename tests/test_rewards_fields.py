"""Fields of JSON by their rules."""

import socket
from pathlib import Path
from typing import Any

import pytest

from vertigym.core import bounds
from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.types import Score, Task
from vertigym.rewards.fields import fields
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.structure import json_schema

pytest.importorskip("jsonschema")
SCHEMA = {"type": "object", "properties": {"a": {}, "b": {"type": "object", "properties": {"c": {}}}}}


def right(rule: Any, given: object, wanted: object) -> float | None:
    rubric = Rubric(fields(SCHEMA, rules={"a": rule}))
    return rubric.score(
        task=Task(id="t", prompt="?", answer={"a": wanted}), completion=dumps({"a": given})
    ).value


@pytest.mark.parametrize(
    ("rule", "given", "wanted", "value"),
    [
        ("exact", "x", "x", 1.0),
        ("exact", "X", "x", 0.0),
        ("exact", 1.0000001, 1.0, 0.0),
        ("number", "1,250.50", 1250.5, 1.0),
        ("number", "$7", 7, 1.0),
        ("number", 7.1, 7, 0.0),
        ("number", True, 1, 0.0),
        ("number", "seven", 7, 0.0),
        ({"as": "number", "absolute": 0.2}, 7.1, 7, 1.0),
        ({"as": "number", "relative": 0.1}, 7.5, 7, 1.0),
        ("set", ["b", "a"], ["a", "b"], 1.0),
        ("set", ["a", "a"], ["a", "b"], 0.0),
        ("set", ["a", "b", "c"], ["a", "b"], 0.0),
        ("set", "ab", ["a", "b"], 0.0),
        ("set", [True], [1], 0.0),
        ("date", "2024-03-05", "2024-03-05T10:00:00", 1.0),
        ("date", "05.03.2024", "2024-03-05", 0.0),
        ({"as": "date", "formats": ["%d.%m.%Y"]}, "05.03.2024", "2024-03-05", 1.0),
        ("date", "soon", "soon", 0.0),
        ("text", "The order arrived late", "the order arrived late.", 1.0),
        ("text", "The order came late", "the order arrived late", 0.0),
        ({"as": "text", "least": 0.7}, "The order came late", "the order arrived late", 1.0),
    ],
)
def test_a_field_is_compared_by_its_rule(rule: Any, given: object, wanted: object, value: float) -> None:
    assert right(rule, given, wanted) == value


def test_a_rule_may_name_a_nested_field() -> None:
    rubric = Rubric(fields(SCHEMA, rules={"b.c": "set"}))
    task = Task(id="t", prompt="?", answer={"b": {"c": [1, 2]}})
    assert rubric.score(task=task, completion='{"b": {"c": [2, 1]}}').value == 1.0


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"x": "set"}, "rules: the schema has no field 'x'"),
        ({"a": "sett"}, "rules.a.as"),
        ({"a": {"as": "text", "least": 2}}, "rules.a.least"),
        ({"a": {"as": "text", "most": 2}}, "rules.a.most"),
    ],
)
def test_a_rule_that_is_none_is_refused_in_one_line(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fields(SCHEMA, rules=rules)


def fits(schema: dict[str, Any], value: object) -> Score:
    task = Task(id="t", prompt="?", answer="")
    return Rubric(json_schema(schema)).score(task=task, completion=dumps(value))


EVIL = "^(a|aa)+$"  # twice as long for every other letter


@pytest.mark.parametrize(
    ("schema", "value"),
    [
        ({"properties": {"a": {"pattern": EVIL}}}, {"a": "a" * 60 + "!"}),
        ({"patternProperties": {EVIL: {}}}, {"a" * 60 + "!": 1}),
        ({"patternProperties": {EVIL: {}}, "additionalProperties": False}, {"a" * 60 + "!": 1}),
    ],
)
def test_a_schemas_pattern_stops_after_its_time(
    schema: dict[str, Any], value: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounds, "SEARCH_S", 0.05)
    found = fits(schema, value)
    assert found.value is None
    assert "takes more than" in found.evidence["reason"]


@pytest.mark.parametrize("place", ["http://127.0.0.1:{port}/x.json", "file://{file}"])
def test_a_schema_reaches_for_nothing_outside_of_itself(place: str, tmp_path: Path) -> None:
    file = tmp_path / "x.json"
    file.write_text('{"type": "object"}')
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        found = fits({"$ref": place.format(port=server.getsockname()[1], file=file)}, {})
        assert found.value is None
        assert "Unresolvable" in found.evidence["reason"]
        with pytest.raises(TimeoutError):
            server.accept()
    assert fits({"$ref": "#/$defs/a", "$defs": {"a": {"type": "object"}}}, {}).value == 1
    assert fits({"$ref": "https://json-schema.org/draft/2020-12/schema"}, {"type": 3}).value == 0


def test_names_and_patterns_decide_as_json_schema_says() -> None:
    schema = {
        "properties": {"a": {"pattern": "^x"}},
        "patternProperties": {"^n_": {"type": "number"}},
        "additionalProperties": {"type": "boolean"},
    }
    valid: list[object] = [{"a": "xy"}, {"a": 1}, {"n_1": 2}, {"other": True}, {}, []]
    for value in valid:
        assert fits(schema, value).value == 1, value
    for value in ({"a": "yx"}, {"n_1": "2"}, {"other": 1}):
        assert fits(schema, value).value == 0, value
    closed = {"properties": {"a": {}}, "additionalProperties": False}
    assert (fits(closed, {"a": 1}).value, fits(closed, {"b": 1}).value) == (1, 0)
