"""Rules examined: what is proven about them, checked against exhaustive enumeration; pairs, outcomes,
difficulty."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import zen
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_envs_decision_import import expression, graph, table
from vertigym.benchmarks.large_tables import KINDS, costs
from vertigym.benchmarks.large_tables import table as large_table
from vertigym.decisions import symbolic
from vertigym.decisions.boxes import Classes, Cover, both, minus, outside, within, without
from vertigym.decisions.fair_shares import Outcomes
from vertigym.decisions.findings import RuleFinding, analyse
from vertigym.decisions.formats import read_model
from vertigym.decisions.minimal_pairs import adjacent, find_pairs
from vertigym.decisions.model import DecisionModel, Evaluation
from vertigym.decisions.sampler import DecidedCase, Sampler
from vertigym.decisions.zen_language import conjuncts, is_simple, simple_name
from vertigym.envs.decision.env import load
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.decision.selection import select
from vertigym.envs.folders import EnvFolder

NUMBERS = st.sampled_from([-3, 0, 1, 2.5, 7])
CELLS = st.one_of(
    st.builds("{} {}".format, st.sampled_from(["<", "<=", ">", ">=", "==", "!="]), NUMBERS),
    st.builds("[{}..{}]".format, NUMBERS, NUMBERS),
    st.builds("({}..{}]".format, NUMBERS, NUMBERS),
    st.builds("{}, {}".format, NUMBERS, NUMBERS),
    st.builds("> {} and <= {}".format, NUMBERS, NUMBERS),
    st.builds("not in ['{}', {}]".format, st.sampled_from("ab"), NUMBERS),
    st.sampled_from(
        ["'a'", "'a', 'b'", "!= 'b'", "true", "false", "null", "!= null", "$ == 'a' or $ > 1", "'x'", ""]
    ),
)
VALUES = st.one_of(
    st.integers(-5, 10), st.floats(-5, 10, allow_nan=False).map(lambda f: round(f, 3)), st.sampled_from("abx"),
    st.none(), st.booleans(), st.just([1]), st.just([]), st.just({"a": 1}),
)  # fmt: skip


def engine_says(cell: str, value: Any) -> bool:
    try:
        return bool(zen.evaluate_unary_expression(cell, {"$": value}))
    except Exception:
        return False


@settings(max_examples=300)
@given(CELLS.filter(bool), CELLS.filter(bool), VALUES)
def test_a_class_decides_for_every_value_in_it(cell: str, other: str, value: Any) -> None:
    assert is_simple(cell)
    classes = Classes([cell, other])
    numbers = [p for p in classes.points if isinstance(p, float)]
    if isinstance(value, int | float) and not isinstance(value, bool):
        cuts = numbers[1::2]
        place = next((i for i, cut in enumerate(cuts) if value <= cut), len(cuts))
        index = 2 * place + (place < len(cuts) and value == cuts[place])
    else:
        texts = [p for p in classes.points if isinstance(p, str)]
        stands = value if value in texts or not isinstance(value, str) else texts[-1]
        stands = type(value)() if isinstance(value, list | dict) else stands
        index = next(i for i, p in enumerate(classes.points) if type(p) is type(stands) and p == stands)
    for condition in (cell, other):
        assert bool(classes.where(condition) >> index & 1) == engine_says(condition, value)


@pytest.mark.parametrize(
    ("cell", "simple"),
    [("> 5", True), ("date('2024-01-01')", True), ("len($) > 2", False), ("> limit", False),
     ("$ + 1 > 2", False),
     ("'a' in $", False), ("contains($, 'a')", False), ("'it\\'s'", False), ("`a`", False),
     ("> date('soon')", False)],
)  # fmt: skip
def test_only_comparisons_with_literals_are_simple(cell: str, simple: bool) -> None:
    assert is_simple(cell) is simple


def test_an_expression_about_one_name_is_simple() -> None:
    assert simple_name("order.total > 5 and order.total < 9") == "order.total"
    assert simple_name("kind == 'a' or kind == 'b'") == "kind"
    assert not any(map(simple_name, ("a > b", "len(a) > 1", "'x' in tags", "$.a > 1", "1 > 0", "a.b + 1 > 2")))
    assert conjuncts("a > 1 and (b or c) and d == 'x and y'") == ["a > 1", "(b or c)", "d == 'x and y'"]
    assert conjuncts("a and b or c") == ["a and b or c"]


boxes = st.dictionaries(st.sampled_from("xyz"), st.integers(1, 7), max_size=3)


def points(box: dict[str, int]) -> set[tuple[int, ...]]:
    return {
        p
        for p in product(range(3), repeat=3)
        if all(box.get(n, 7) >> v & 1 for n, v in zip("xyz", p, strict=True))
    }


@given(boxes, st.lists(boxes, max_size=4))
def test_box_algebra_is_that_of_sets(box: dict[str, int], others: list[dict[str, int]]) -> None:
    left = without(box, others, 7)
    assert left is not None
    assert set().union(*map(points, left)) == points(box).difference(*map(points, others))
    assert sum(len(points(piece)) for piece in left) == len(set().union(*map(points, left)))
    part = outside(box, others, 7)
    assert part is None or points(part) <= points(box).difference(*map(points, others))
    assert part is None or points(part)
    for other in others:
        common = both(box, other)
        assert (points(common) if common is not None else set()) == points(box) & points(other)
        assert set().union(*map(points, minus(box, other, 7))) == points(box) - points(other)
        assert within(box, other, 7) == (points(box) <= points(other))
    cover = Cover()
    for other in others:
        cover.add(other)
    assert set().union(*map(points, cover)) == set().union(*map(points, others))


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_table_is_sampled_into_every_corner(kind: str, tmp_path: Path) -> None:
    """`benchmarks/large_tables.py` has more rules; there, too, none of these is beyond reach."""
    (tmp_path / "t.csv").write_text(large_table(kind, 150, 40))
    found = dict(costs(tmp_path / "t.csv"))
    assert found["hit of possible"] == 1


def test_a_rule_that_one_earlier_rule_covers_is_proven_however_many_cross_it(tmp_path: Path) -> None:
    rows = [line.split(";") for line in large_table("mixed", 150, 10).splitlines()[1:-1]]
    rules = [{column: cell for column, cell in enumerate(row[:-1]) if cell} for row in rows]

    def covers(one: dict[int, str], other: dict[int, str]) -> bool:
        return one.keys() == other.keys() and all(
            float(other[c][1:]) >= float(one[c][1:]) if one[c][0] == ">" else one[c] == other[c] for c in one
        )

    (tmp_path / "t.csv").write_text(large_table("mixed", 150, 10))
    covered = {f"rules:{i + 1}" for i, r in enumerate(rules) if any(covers(e, r) for e in rules[:i])}
    assert len(covered) > 20
    assert covered <= analyse(read_model(tmp_path / "t.csv")).unreachable


# Findings against exhaustive enumeration.

EVERY = [-4, -3, -1, 0, 0.5, 1, 2, 2.5, 5, 7, 8, "a", "b", "x", "other", True, False, None, [], {}]


def hit_by_anything(model: DecisionModel, fields: list[str]) -> set[str]:
    hit = set[str]()
    for values in product(EVERY, repeat=len(fields)):
        hit.update(model.evaluate(dict(zip(fields, values, strict=True))).rules)
    return hit


@settings(max_examples=60)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=2, max_size=5))
def test_in_one_table_a_rule_is_reported_exactly_when_no_input_hits_it(rows: list[tuple[str, str]]) -> None:
    model = DecisionModel(
        graph(table("t", ["p", "q"], ["o"], [[*row, f"'{i}'"] for i, row in enumerate(rows)]))
    )
    assert set(model.rules) - hit_by_anything(model, ["p", "q"]) == analyse(model).unreachable


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(CELLS, st.sampled_from(["'a'", "7", "p", "p * 2", "null", '{"k": p}'])),
        min_size=1,
        max_size=3,
    ),
    st.lists(st.tuples(CELLS, CELLS), min_size=2, max_size=4),
    st.sampled_from(["first", "collect"]),
    st.integers(1, 3),
)
def test_in_a_chain_no_rule_that_is_reported_is_ever_hit(
    first: list[tuple[str, str]], second: list[tuple[str, str]], policy: str, states: int
) -> None:
    model = DecisionModel(
        graph(
            table("t", ["p"], ["r"], [list(row) for row in first], hitPolicy="first"),
            expression("e", {"s": "r == 'a'", "p": "p"}),
            table("u", ["r", "p"], ["o"], [[*row, "1"] for row in second], hitPolicy=policy, outputPath="z"),
            table("v", ["s", "p"], ["x"], [["true", "> 1", "1"], ["false", "> 1", "2"], ["null", "", "3"]]),
        )
    )
    before, symbolic.MOST_STATES = symbolic.MOST_STATES, states
    try:
        assert not analyse(model).unreachable & hit_by_anything(model, ["p"])
    finally:
        symbolic.MOST_STATES = before


def reported(*nodes: dict[str, Any], schema: dict[str, Any] | None = None) -> dict[str, RuleFinding]:
    document = json.loads(graph(*nodes))
    if schema:
        document["nodes"][0]["content"] = {"schema": json.dumps(schema)}
    return {finding.rule: finding for finding in analyse(DecisionModel(json.dumps(document))).findings}


def test_a_shadowed_rule_names_the_rules_before_it() -> None:
    rows = [["'x'", "1"], ["< 10", "2"], [">= 5", "3"], ["[1..20]", "4"], ["'x', 'y'", "5"], ["'x'", "6"]]
    found = reported(table("t", ["a"], ["o"], rows))
    assert {rule: (f.kind, f.by) for rule, f in found.items()} == {
        "t:4": ("shadowed", ("t:2", "t:3")),
        "t:6": ("shadowed", ("t:1",)),
    }
    assert found["t:4"].reason == "t:2, t:3 match together wherever it matches"


def test_a_rule_whose_outcome_may_fail_shadows_nothing() -> None:
    model = DecisionModel(graph(table("t", ["a"], ["o"], [["", "a * 2"], ["", "0"], ["", "'late'"]])))
    assert model.evaluate({"a": "text"}).rules == (
        "t:2",
    )  # the engine passes over a row that it cannot compute
    assert analyse(model).unreachable == {"t:3"}


def test_conditions_that_exclude_each_other_never_hold() -> None:
    both_ways = table("t", ["a", "a"], ["o"], [["> 5", "< 3", "1"], ["", "", "'x' - 1"], ["", "", "3"]])
    assert {r: f.kind for r, f in reported(both_ways).items()} == {"t:1": "never", "t:2": "never"}
    text = table("t", [""], ["o"], [["'RU', 'NK'", "1"], ["a > 1 and a < 0", "2"], ["", "3"]])
    assert {r: f.kind for r, f in reported(text).items()} == {"t:1": "never", "t:2": "never"}


def test_what_is_decided_before_may_leave_no_case() -> None:
    supply = table("supply", ["age"], ["part"], [["> 10", "'none'"], ["", "'some'"]])
    repair = table("repair", ["part", "age"], ["o"], [["'none'", "<= 8", "'swap'"], ["'none'", "", "'pay'"]])
    assert {r: f.kind for r, f in reported(supply, repair).items()} == {"repair:1": "unreachable"}
    assert "leaves no case" in reported(supply, repair)["repair:1"].reason


def test_a_whole_and_its_part_are_known_together() -> None:
    nothing = expression("e", {"a": "null"})
    rows = [["a == null or a.b > 1", "1"], ["", "2"]]
    assert set(reported(nothing, table("t", [""], ["o"], rows))) == {"t:2"}


def test_the_inputs_schema_excludes_cases() -> None:
    schema = {
        "properties": {
            "kind": {"type": "string", "enum": ["good", "poor"]},
            "n": {"type": "integer", "minimum": 3},
        }
    }
    rows = [["'poort'", "", "1"], ["", "(4..5)", "2"], ["", "< 3", "3"], ["", "3", "4"], ["", "", "5"]]
    assert set(reported(table("t", ["kind", "n"], ["o"], rows), schema=schema)) == {"t:1", "t:2", "t:3"}


def test_rules_that_must_exclude_each_other_and_overlap_are_reported_with_an_example() -> None:
    rows = [["< 10", "'a'", "1"], ["> 5", "", "2"], ["> 20", "'b'", "3"]]
    node = table("t", ["n", "k"], ["o"], rows, statedPolicy="UNIQUE")
    found = [f for f in analyse(DecisionModel(graph(node))).findings if f.kind == "overlap"]
    assert [(f.rule, f.by, f.proven) for f in found] == [("t:2", ("t:1",), True), ("t:3", ("t:2",), True)]
    for finding in found:
        case = dict(finding.example)
        for rule in (finding.rule, *finding.by):
            cells = DecisionModel(graph(node)).rules[rule].cells
            assert all(not cell or engine_says(cell, case[column]) for column, cell in cells)
    assert not analyse(DecisionModel(graph(table("t", ["n", "k"], ["o"], rows)))).findings[1:]


# Pairs.

DESK = graph(
    table("size", ["amount"], ["size"], [["> 100", "'big'"], ["", "'small'"]]),
    table(
        "desk",
        ["size", "vip", "days"],
        ["desk"],
        [["'big'", "true", "", "'chief'"], ["'big'", "", "<= 30", "'senior'"],
         ["", "", "<= 30", "'junior'"], ["", "", "", "'no'"]],
    ),
    tests=[{"amount": 50, "vip": False, "days": 3}],
)  # fmt: skip


def test_adjacent_rules_are_one_column_apart() -> None:
    model = DecisionModel(DESK)
    pairs = {(p.one, p.other): p.columns for p in adjacent(model, analyse(model)) if p.node == "desk"}
    assert pairs == {
        ("desk:1", "desk:2"): ("vip",),
        ("desk:1", "desk:3"): ("size",),
        ("desk:1", "desk:4"): ("size", "vip"),
        ("desk:2", "desk:3"): ("size",),
        ("desk:2", "desk:4"): ("days",),
        ("desk:3", "desk:4"): ("days",),
    }


def test_a_minimal_pair_differs_in_one_field_and_in_the_answer() -> None:
    model = DecisionModel(DESK)
    known = analyse(model)
    sampler = Sampler(model, 0, known=known)
    sampled = sampler.run(40)
    pairs = find_pairs(sampler, sampled, known, ["desk"])
    assert all(pairs.outcomes(model).values())
    for asked, pair in [(asked, pair) for asked, found in pairs.minimal.items() for pair in found]:
        one, other = pair.one.case, pair.other.case
        assert [name for name in one if one[name] != other[name]] == [pair.field]
        assert pair.one.evaluation.output["desk"] != pair.other.evaluation.output["desk"]
        assert asked.one in pair.one.evaluation.rules
        assert asked.other in pair.other.evaluation.rules
    every = {(f"size:{i}", f"desk:{j}") for i in (1, 2) for j in range(1, 5)}
    assert pairs.hit == pairs.interacting == every - {
        ("size:1", "desk:3"), ("size:2", "desk:1"), ("size:2", "desk:2")
    }  # fmt: skip


def test_tasks_keep_minimal_pairs_together_and_say_how_hard_they_are(tmp_path: Path) -> None:
    file = tmp_path / "desk.json"
    file.write_text(DESK)
    report = import_decision(
        file, "acme/Desk-v0", tmp_path / "out", sizes={"train": 60, "eval": 20, "test": 20}
    )
    assert (report.adjacent_shown, report.adjacent) == (7, 7)
    env = load(EnvFolder(tmp_path / "out"))
    paired = 0
    for split in ("train", "eval", "test"):
        tasks = {i: env.tasks.get(i) for i in env.tasks.ids(split)}
        for task in tasks.values():
            rules = task.info["rules"]
            assert task.info["difficulty"] == len(rules) + {"desk:1": 2, "desk:2": 3}.get(rules[-1], 3)
            if "pair" in task.info:
                other = tasks[task.info["pair"]["task"]]
                changed = [k for k, v in task.info["input"].items() if other.info["input"][k] != v]
                assert changed == [task.info["pair"]["field"]]
                assert other.answer != task.answer
                paired += 1
    assert paired >= 10


def samples(answers: Iterator[tuple[str, int]]) -> list[DecidedCase]:
    return [
        DecidedCase({"n": i}, Evaluation({"o": o, "fee": fee}, ("t:1",), {}))
        for i, (o, fee) in enumerate(answers)
    ]


def test_outcomes_are_balanced() -> None:
    found = samples(("common" if i % 10 else "rare", i) for i in range(400))
    names = set(map(Outcomes(found, ["o", "fee"]), found))
    assert names == {'[["o","common"]]', '[["o","rare"]]'} or len(names) == 2
    kept = select(found, 60, 0, fields=["o", "fee"])
    assert sum(s.evaluation.output["o"] == "rare" for s in kept) >= 25
