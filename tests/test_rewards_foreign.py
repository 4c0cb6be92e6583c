"""The verifiers agree with a careful person on answers and programs that were made up before they were looked
at.

`foreign_verdicts.toml` has them, by kind.
"""

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.types import Task
from vertigym.envs.code.formats import mbpp
from vertigym.rewards.calling import RewardFunction
from vertigym.rewards.code import Verifier
from vertigym.rewards.code_tests import parse_tests
from vertigym.rewards.fields import fields
from vertigym.rewards.math import math_equal
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.sql import sql_result
from vertigym.sandboxes import JobLimits, SandboxPool

KINDS: dict[str, list[dict[str, Any]]] = tomllib.loads(
    (Path(__file__).parent / "foreign_verdicts.toml").read_text("utf-8")
)
RULES = {"exact": "exact", "numeric": "number", "set": "set", "date": "date", "fuzzy": "text"}


def cases(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", KINDS[kind], ids=[case["why"] for case in KINDS[kind]])


def value(verifier: RewardFunction, reference: Any, reply: str, **info: Any) -> float | None:
    task = Task(id="one", prompt="?", answer=reference, info=info)
    return Rubric(verifier).score(task=task, completion=reply).value


@cases("math")
def test_answers_in_mathematics(case: dict[str, Any]) -> None:
    assert value(math_equal(), case["gold"], case["answer"]) == case["right"]


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
@cases("sql")
def test_queries(case: dict[str, Any], engine: Any) -> None:
    found = value(sql_result(engine=engine), case["reference"], case["query"], schema=case["script"])
    assert found == case["right"]


TIED = (
    "CREATE TABLE t(name TEXT, score INT); "
    "INSERT INTO t VALUES ('a', 2), ('b', 2), ('c', 1), ('d', 1), ('e', 0);"
)


@pytest.mark.parametrize("engine", ["sqlite", "duckdb"])
@pytest.mark.parametrize(
    ("reference", "query", "right"),
    [
        ("SELECT name FROM t ORDER BY score -- by score", "SELECT name FROM t ORDER BY score, name DESC", True),
        ("SELECT name FROM t ORDER BY score", "SELECT name FROM t ORDER BY name DESC", True),
        ("SELECT name FROM t ORDER BY score", "SELECT name FROM t ORDER BY name", False),
        (
            "SELECT name FROM t ORDER BY score LIMIT 3;",
            "SELECT name FROM t WHERE score < 2 ORDER BY 1 DESC",
            True,
        ),
        ("SELECT name FROM t ORDER BY name", "SELECT name FROM t ORDER BY score DESC, name DESC", False),
        ("SELECT score FROM t ORDER BY score", "SELECT score FROM t ORDER BY score, name", True),
    ],
)
def test_rows_are_tied_where_the_order_asked_for_leaves_them_so(
    reference: str, query: str, right: bool, engine: Any
) -> None:
    assert value(sql_result(engine=engine), reference, query, schema=TIED) == right


@cases("json")
def test_fields_of_json(case: dict[str, Any]) -> None:
    reference = json.loads(case["reference"])
    rules = {name: RULES[rule] for name, rule in case["rules"].items()}
    found = value(fields(_schema(reference), rules=rules), reference, case["answer"])
    assert (found == 1) == case["right"]


def _schema(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {}
    return {"type": "object", "properties": {name: _schema(one) for name, one in value.items()}}


@pytest.fixture(scope="module")
def verifier() -> Iterator[Verifier]:
    with SandboxPool() as pool:
        yield Verifier(pool, cache=0, limits=JobLimits(cpu_s=5, wall_s=60))


NOT_CARRIED = {
    "operators on a class under test": "what an operator returns is asked for names only: it could be anything",
    "a context manager": "what a function returns is no context, and its argument changes after the call",
}


@pytest.mark.usefixtures("sandbox")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(one, id=one["why"], marks=[pytest.mark.xfail(strict=True, reason=why)] if why else [])
        for one in KINDS["code"]
        for why in [NOT_CARRIED.get(one["why"], "")]
    ],
)
def test_programs(case: dict[str, Any], verifier: Verifier, tmp_path: Path) -> None:
    row = {"task_id": 1, "text": "?", "code": case["program"], "test_list": ["\n".join(case["tests"])]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row), "utf-8")
    (task,) = mbpp(tmp_path / "rows.jsonl")
    checked = verifier.check(case["program"], parse_tests(task.info["tests"]))
    assert checked.all_pass == case["right"], checked.notes
