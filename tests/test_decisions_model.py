"""Decision models: expressions, rule ids, what the engine says, what is refused."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vertigym.decisions import expressions
from vertigym.decisions.conditions import Conditions
from vertigym.decisions.model import CaseError, DecisionError, DecisionModel


def table(
    name: str, inputs: list[str], outputs: list[str], rows: list[list[str]], **content: Any
) -> dict[str, Any]:
    """A decision table node; a row is its conditions, then its outcomes."""
    columns = [{"id": f"{name}{i}", "field": field} for i, field in enumerate([*inputs, *outputs])]
    rules = [
        {"_id": f"{name}-{n}", **dict(zip((c["id"] for c in columns), row, strict=True))}
        for n, row in enumerate(rows)
    ]
    content = {"hitPolicy": "first", "passThrough": True, **content}
    content |= {"inputs": columns[: len(inputs)], "outputs": columns[len(inputs) :], "rules": rules}
    return {"id": name, "name": name, "type": "decisionTableNode", "content": content}


def expression(name: str, pairs: dict[str, str], **content: Any) -> dict[str, Any]:
    items = [{"id": f"{name}{key}", "key": key, "value": value} for key, value in pairs.items()]
    content = {"passThrough": True, **content, "expressions": items}
    return {"id": name, "name": name, "type": "expressionNode", "content": content}


def graph(*nodes: dict[str, Any], tests: list[dict[str, Any]] | None = None) -> str:
    """A chain of nodes as JDM text; `tests` are inputs."""
    chain = [{"id": "in", "name": "request", "type": "inputNode"}, *nodes]
    edges = [
        {"id": f"e{i}", "sourceId": a["id"], "targetId": b["id"]} for i, (a, b) in enumerate(pairwise(chain))
    ]
    return json.dumps({"nodes": chain, "edges": edges, "tests": [{"input": t} for t in tests or []]})


AGE = table("age", ["person.age"], ["group"], [["< 18", "'minor'"], ["[18..65)", "'adult'"], ["", "'senior'"]])


def test_an_evaluation_names_the_rules_it_hit() -> None:
    model = DecisionModel(graph(AGE))
    outcome = model.evaluate({"person": {"age": 30}})
    assert outcome.output == {"person": {"age": 30}, "group": "adult"}
    assert outcome.rules == ("age:2",)
    assert model.rules["age:2"].text == "person.age [18..65) -> group 'adult'"
    assert model.rules["age:3"].text == "otherwise -> group 'senior'"


def test_collect_and_loop_tables_name_every_rule_they_hit() -> None:
    flags = table(
        "flags",
        ["x"],
        ["flag"],
        [["> 1", "'a'"], ["> 2", "'b'"], ["> 9", "'c'"]],
        hitPolicy="collect",
        outputPath="flags",
    )
    each = table(
        "each",
        ["n"],
        ["big"],
        [["> 5", "true"], ["", "false"]],
        executionMode="loop",
        inputField="items",
        outputPath="sizes",
    )
    outcome = DecisionModel(graph(flags, each)).evaluate({"x": 3, "items": [{"n": 1}, {"n": 9}, {"n": 2}]})
    assert outcome.rules == ("flags:1", "flags:2", "each:2", "each:1")
    assert [item["big"] for item in outcome.output["sizes"]] == [False, True, False]


def test_nodes_of_one_name_keep_their_rules_apart() -> None:
    twin = {**table("b", ["x"], ["z"], [["", "1"]]), "name": "a"}
    assert set(DecisionModel(graph(table("a", ["x"], ["y"], [["", "1"]]), twin)).rules) == {"a:1", "a~2:1"}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a decision model"),
        ('{"nodes": [{"id": "a", "name": "a", "type": 1}], "edges": []}', "each node has an 'id'"),
        ('{"nodes": []}', "cannot load"),
        ('{"nodes": [], "edges": []}', "invalidInputCount"),
        ('{"nodes": [{"id": "a", "name": "a", "type": "strange"}], "edges": []}', "unknown variant"),
        (
            graph({"id": "d", "name": "sub", "type": "decisionNode", "content": {"key": "x.json"}}),
            "'sub'.*not supported",
        ),
    ],
)
def test_a_broken_file_is_refused_in_one_line(text: str, says: str) -> None:
    with pytest.raises(DecisionError, match=says) as caught:
        DecisionModel(text, "loan.json")
    assert str(caught.value).startswith("loan.json: ")
    assert "\n" not in str(caught.value)


def test_what_the_engine_cannot_decide_is_a_case_error() -> None:
    model = DecisionModel(graph(expression("e", {"total": "a + b"})))
    with pytest.raises(CaseError, match="a \\+ b"):
        model.evaluate({"a": 1, "b": "x"})
    with pytest.raises(CaseError):
        model.evaluate({"a": float("nan"), "b": 1})


def test_a_panic_of_the_engine_is_a_case_error_and_an_interrupt_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    class PanicException(BaseException):
        """As the engine's: not an Exception."""

    class Engine:
        def __init__(self, error: BaseException) -> None:
            self.error = error

        def evaluate(self, *_: Any) -> None:
            raise self.error

    panicking, interrupted = DecisionModel(graph(AGE)), DecisionModel(graph(AGE))
    monkeypatch.setattr("zen.ZenEngine", lambda *_: Engine(PanicException("slice index")))
    with pytest.raises(CaseError, match="panicked: slice index"):
        panicking.evaluate({})
    monkeypatch.setattr("zen.ZenEngine", lambda *_: Engine(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        interrupted.evaluate({})


@pytest.mark.parametrize(
    ("text", "reads"),
    [
        ("date('now') - date(start)", True),
        ('date( "now" ) > 3', True),
        ("year('now') - born", True),
        ("d().year()", True),
        ("d('2025-01-01').year()", False),
        ("status == 'now'", False),
        ("update('now')", False),
        ("date(now) > date(then)", False),
    ],
)
def test_the_clock_is_seen_and_can_be_stopped(text: str, reads: bool) -> None:
    assert expressions.reads_clock(text) is reads
    stopped = expressions.stop_clock(text, "2025-06-30T12:00:00Z")
    assert not expressions.reads_clock(stopped)
    assert (stopped != text) is reads


def test_a_model_with_its_clock_stopped_answers_alike_on_every_day() -> None:
    model = DecisionModel(graph(expression("e", {"age": "year('now') - born"})))
    assert model.clock_readers() == ["e"]
    assert model.at("2025-06-30T12:00:00Z").evaluate({"born": 2000}).output["age"] == 25


@pytest.mark.parametrize(
    ("text", "names", "literals"),
    [
        (
            "customer.age >= 65 and plan in ['gold', 'basic']",
            [["customer.age"], ["plan"]],
            [[65], ["gold", "basic"]],
        ),
        ("a.b - 3 > -2", [["a.b"]], [[3, -2]]),
        ("x * 60 * 60 > y", [["x", "y"]], [[3600]]),
        ("wait > 2 * 60 * 60", [["wait"]], [[7200]]),
        ("contains(skills, 'lift') ? 1_000 : 0", [["skills"], [], []], [["lift"], [1000], [0]]),
        ("(a > 1 or b == null) and !c", [["c"], ["a"], ["b"]], [[], [1], []]),
        ("some(tags, # == 'x')", [["tags", "tags[]"], ["tags"], ["tags[]"]], [["x"], [], ["x"]]),
    ],
)
def test_an_expression_falls_into_atoms(text: str, names: list[list[str]], literals: list[list[Any]]) -> None:
    atoms = expressions.atoms(text)
    found = sorted((sorted(n for n, _ in a.names), sorted(map(str, [*a.numbers, *a.strings]))) for a in atoms)
    as_text = [[str(float(v)) if isinstance(v, int) else v for v in group] for group in literals]
    wanted = sorted((sorted(n), sorted(v)) for n, v in zip(names, as_text, strict=True))
    assert found == wanted


def candidates(*nodes: dict[str, Any], tests: list[dict[str, Any]]) -> dict[str, list[Any]]:
    fields = Conditions(DecisionModel(graph(*nodes, tests=tests))).fields
    return {field.name: list(field.near) for field in fields}


def test_candidates_lie_at_and_around_each_literal() -> None:
    rows = [
        ["< 18", "'gold'", "true", "1"],
        ["[18..65)", "'basic', 'silver'", "", "2"],
        ["> 2.5", "", "false", "3"],
    ]
    found = candidates(
        table("t", ["person.age", "plan", "vip"], ["out"], rows),
        tests=[{"person": {"age": 40, "name": "Ann"}, "plan": "gold", "vip": True}],
    )
    assert {17.9, 18, 18.1, 64.9, 65, 65.1, 2.4, 2.5, 2.6} <= set(found["person.age"])
    assert found["plan"] == ["gold", "basic", "silver", "other"]
    assert found["vip"] == [True, False]
    assert "person.name" not in found


def test_candidates_for_lengths_members_dates_and_null() -> None:
    cells = [
        ["len(items) > 2", "1"],
        ["'red' in tags", "2"],
        ["date(due) < date('2024-03-01')", "3"],
        ["note == null", "4"],
    ]
    found = candidates(
        table("t", [""], ["out"], cells),
        tests=[{"items": ["a"], "tags": ["blue"], "due": "2024-01-05", "note": "n"}],
    )
    assert {len(value) for value in found["items"]} >= {1, 2, 3}
    assert ["red"] in found["tags"]
    assert {"2024-02-29", "2024-03-01", "2024-03-02"} <= set(found["due"])
    assert None in found["note"]


def test_candidates_reach_a_field_through_what_is_computed_from_it() -> None:
    limits = table("limits", ["kind"], ["limit"], [["'a'", "7"], ["", "30"]])
    late = expression("late", {"late": "days > limit"})
    found = candidates(
        limits, late, table("t", ["late"], ["out"], [["true", "1"]]), tests=[{"kind": "a", "days": 3}]
    )
    assert {6, 7, 8, 29, 30, 31} <= set(found["days"])
    assert set(found) == {"kind", "days"}


def test_a_scaled_number_is_not_a_threshold() -> None:
    found = candidates(expression("e", {"fee": "price * 0.2"}), tests=[{"price": 80}])
    assert all(isinstance(value, int) and value >= 20 for value in found["price"])


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"properties": [1]}, r"schema\.properties is '\[1\]'"),
        ({"properties": {"n": 5}}, r"schema\.n is '5', not an object"),
        ({"properties": {"n": {"enum": "a"}}}, r"schema\.n\.enum is 'a'"),
        ({"properties": {"n": {"minimum": True}}}, r"schema\.n\.minimum is 'True'"),
        ({"properties": {"n": {"type": 3}}}, r"schema\.n\.type is '3'"),
        ([1], "not an object"),
        ("{", "not JSON"),
    ],
)
def test_what_is_no_schema_is_refused_by_place(schema: Any, fault: str) -> None:
    document = json.loads(graph(table("t", ["n"], ["fee"], [["> 1", "5"], ["", "1"]])))
    document["nodes"][0]["content"] = {"schema": schema if isinstance(schema, str) else json.dumps(schema)}
    with pytest.raises(DecisionError, match=fault):
        DecisionModel(json.dumps(document))


def test_a_schema_of_any_value_limits_nothing() -> None:
    document = json.loads(graph(table("t", ["n"], ["fee"], [["> 1", "5"], ["", "1"]])))
    document["nodes"][0]["content"] = {"schema": json.dumps({"properties": {"n": True}})}
    assert DecisionModel(json.dumps(document)).evaluate({"n": 2}).output["fee"] == 5


def test_the_input_schema_limits_the_candidates() -> None:
    document = json.loads(
        graph(table("t", ["plan", "n"], ["o"], [["'a'", "> 5", "1"]]), tests=[{"plan": "a", "n": 1}])
    )
    schema = {"properties": {"plan": {"enum": ["a", "b"]}, "n": {"type": "integer", "maximum": 6}}}
    document["nodes"][0]["content"] = {"schema": json.dumps(schema)}
    fields = {f.name: f.near for f in Conditions(DecisionModel(json.dumps(document))).fields}
    assert fields["plan"] == ("a", "b")
    assert max(fields["n"]) == 6


def test_reading_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="no such file"):
        DecisionModel.read(tmp_path / "none.json")
