"""Fields of JSON by their rules."""

from typing import Any

import pytest

from vertigym.core.errors import ConfigError
from vertigym.core.files import dumps
from vertigym.core.types import Task
from vertigym.rewards.fields import fields
from vertigym.rewards.rubric import Rubric

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
