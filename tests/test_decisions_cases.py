"""One case is one task: however it is written, it never stands in two splits, and the check would see it."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_envs_decision_import import graph, table
from vertigym.core.types import SPLITS, Task
from vertigym.decisions.cases import case_key, value_key
from vertigym.decisions.model import DecisionModel
from vertigym.decisions.sampler import Sampler
from vertigym.envs import SingleTurnEnv, TaskSet
from vertigym.envs.check import check
from vertigym.envs.check.task_checks import splits_do_not_leak
from vertigym.envs.decision.diff import RuleComparison
from vertigym.envs.decision.env import load
from vertigym.envs.decision.importer import import_decision
from vertigym.envs.folders import EnvFolder
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.text import exact

LEAVES = st.none() | st.booleans() | st.integers(-9, 9) | st.text("ab1", max_size=2)
NAMES = st.sampled_from("abcd")
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=3) | st.dictionaries(NAMES, v, max_size=4), max_leaves=9
)
CASES = st.dictionaries(NAMES, VALUES, max_size=4)


def rewritten(value: Any, rng: random.Random) -> Any:
    """The same case: fields shuffled, whole numbers as floats, null fields left out or put in."""
    if isinstance(value, dict):
        fields = [(key, rewritten(v, rng)) for key, v in value.items() if v is not None or rng.random() < 0.5]
        fields += [(f"absent{i}", None) for i in range(rng.randrange(2))]
        rng.shuffle(fields)
        return dict(fields)
    if isinstance(value, list):
        return [rewritten(item, rng) for item in value]
    return (
        float(value) if isinstance(value, int) and not isinstance(value, bool) and rng.random() < 0.5 else value
    )


@given(CASES, st.integers(0, 99))
def test_one_case_has_one_key_however_it_is_written(case: dict[str, Any], seed: int) -> None:
    assert case_key(rewritten(case, random.Random(seed))) == case_key(case)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": 1}, {"a": "1"}),
        ({"a": 1.5}, {"a": 1}),
        ({"a": [None]}, {"a": []}),
        ({"a": {}}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
    ],
)
def test_other_cases_have_other_keys(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert case_key(one) != case_key(other)


def test_an_answer_with_a_null_field_is_not_one_without_it() -> None:
    assert value_key({"b": 1.0, "a": 2}) == value_key({"a": 2, "b": 1})
    assert value_key({"a": None}) != value_key({})


PLAN = table("plan", ["age", "kind"], ["fee"], [[">= 18", "'a'", "1"], ["", "'b'", "2"], ["", "", "3"]])
ORDERS = [
    {"age": 20, "kind": "a", "note": None},
    {"kind": "b", "age": 17.0},
    {"kind": "a", "age": 20.0},
]


def test_no_case_is_sampled_twice_because_the_tests_write_it_in_two_ways() -> None:
    found = Sampler(DecisionModel(graph(PLAN, tests=ORDERS)), 0).run(200)
    keys = [case_key(sample.case) for sample in found.samples]
    assert len(set(keys)) == len(keys) > 10


def test_no_case_stands_in_two_splits(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text(graph(PLAN, tests=ORDERS))
    import_decision(tmp_path / "plan.json", "acme/Plan-v0", tmp_path / "out")
    tasks = load(EnvFolder(tmp_path / "out")).tasks
    splits: dict[str, set[str]] = {}
    for split in SPLITS:
        for name in tasks.ids(split):
            splits.setdefault(case_key(tasks.get(name).info["input"]), set()).add(split)
    assert {len(found) for found in splits.values()} == {1}
    result = splits_do_not_leak(load(EnvFolder(tmp_path / "out")), 1000)
    assert result.measured["in two splits"] == 0


def test_a_diff_compares_a_case_once_and_fields_in_another_order_are_no_change() -> None:
    one = DecisionModel(
        graph(table("t", ["n"], ["a", "b"], [["> 1", "1", "2"], ["", "0", "3"]]), tests=[{"n": 1}])
    )
    other = DecisionModel(
        graph(table("t", ["n"], ["b", "a"], [["> 1", "2", "1"], ["", "3", "0"]]), tests=[{"n": 1}])
    )
    comparison = RuleComparison(one, other, cases=[{"n": 5, "x": 1}, {"x": 1.0, "n": 5.0}])
    assert comparison.difference().changed == 0
    keys = [case_key(compared.case) for compared in comparison.compared]
    assert len(set(keys)) == len(keys)


def leaky(one: str, other: str, subject: Any = None) -> SingleTurnEnv:
    """Twenty tasks of their own, and two that are said to be of two splits."""

    class Env(SingleTurnEnv):
        def subject(self, task: Task) -> Any:
            return subject if task.id in ("one", "other") else None

    own = [Task(id=f"t{i}", prompt=f"{i}?", answer=str(i)) for i in range(20)]
    last = Task(id="other", prompt=other, answer="yes", split="test")
    return Env(TaskSet([*own, Task(id="one", prompt=one, answer="yes"), last]), Rubric(exact()))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ('{"a": 1, "b": 2}\nPay?', '{"b": 2.0, "a": 1}\nPay?'),
        ('Case:\n{"a": [1],\n "b": 2}\nPay?', 'Case:\n{"b": 2, "a": [1.0]} Pay?'),
        ("[1, 2.0]", "[1.0, 2]"),
    ],
)
def test_the_check_compares_what_prompts_hold_and_not_how_it_is_spelt(one: str, other: str) -> None:
    found = splits_do_not_leak(leaky(one, other), 100)
    assert found.measured["in two splits"] == 1
    (finding,) = found.findings
    assert (finding.level, finding.task) == ("failure", "one")
    assert not check(lambda: leaky(one, other)).passed()


def test_the_check_compares_the_cases_that_tasks_are_about() -> None:
    apart = leaky("I am Ann.", "I am Bob.")
    assert splits_do_not_leak(apart, 100).measured["in two splits"] == 0
    same = leaky("I am Ann.", "I am Bob.", subject=json.loads('{"age": 20, "city": null}'))
    assert splits_do_not_leak(same, 100).measured["in two splits"] == 1


@pytest.mark.parametrize(
    "text", ["[" * 100_000, '{"a":' * 20_000, "{\n" * 10_000, '{"a": 1} [2' * 5000, '{"a": NaN}']
)
def test_the_check_reads_hostile_prompts(text: str) -> None:
    assert splits_do_not_leak(leaky(text, text + "x"), 100).measured["in two splits"] == 0
