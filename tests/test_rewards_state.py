"""States after actions: the goal is reached, and nothing else has changed."""

import sqlite3
from typing import Any

import pytest

from vertigym.rewards.state import DELETED, compare_states, sqlite_state


def state() -> dict[str, Any]:
    return {
        "orders": {
            "17": {"status": "open", "total": 40, "paid": True, "lines": ["a", "b"]},
            "18": {"status": "open", "total": 9, "paid": False, "lines": []},
        },
        "log": {},
    }


GOAL = {"orders.17.status": "cancelled"}


def changed(*edits: tuple[str, str, Any]) -> dict[str, Any]:
    new = state()
    for order, field, value in edits:
        new["orders"][order][field] = value
    return new


def test_the_right_change_and_nothing_else_scores_1() -> None:
    verdict = compare_states(state(), changed(("17", "status", "cancelled")), GOAL)
    assert (verdict.value, dict(verdict.parts)) == (1.0, {"reached": 1.0, "untouched": 1.0})
    nested = {"orders": {"17": {"status": "cancelled"}}}
    assert compare_states(state(), changed(("17", "status", "cancelled")), nested).value == 1.0


@pytest.mark.parametrize(
    ("edits", "parts", "evidence"),
    [
        ([], (0, 1), "missed"),
        ([("18", "status", "cancelled")], (0, 0), "damaged"),
        ([("17", "status", "cancelled"), ("18", "total", 0)], (1, 0), "damaged"),
        ([("17", "status", "cancelled"), ("18", "paid", 0)], (1, 0), "damaged"),
        ([("17", "status", "cancelled"), ("17", "lines", ["a"])], (1, 0), "damaged"),
        ([("17", "status", "cancelled"), ("18", "new", 1)], (1, 0), "damaged"),
        ([("17", "status", "Cancelled")], (0, 1), "missed"),
    ],
)
def test_anything_less_or_more_scores_0(edits: Any, parts: tuple[int, int], evidence: str) -> None:
    verdict = compare_states(state(), changed(*edits), GOAL)
    assert verdict.value == 0.0
    assert (verdict.parts["reached"], verdict.parts["untouched"]) == parts
    assert verdict.evidence[evidence]


def test_what_may_change_is_free() -> None:
    after = changed(("17", "status", "cancelled"), ("17", "updated", "now"))
    after["log"]["1"] = {"who": "agent"}
    assert compare_states(state(), after, GOAL).value == 0.0
    assert compare_states(state(), after, GOAL, may_change=["*.updated", "log*"]).value == 1.0


def test_deletions() -> None:
    after = state()
    del after["orders"]["18"]
    assert compare_states(state(), after, {"orders.18": DELETED}).value == 1.0
    assert compare_states(state(), state(), {"orders.18": DELETED}).value == 0.0
    assert compare_states(after, after, {"orders.18": DELETED}).value is None
    last = {"orders": {"18": {"id": 18}}}
    assert compare_states(last, {"orders": {}}, {"orders.18": DELETED}).value == 1.0
    assert compare_states(state(), after, GOAL).value == 0.0


def test_goals_that_hold_from_the_start_are_not_scored() -> None:
    verdict = compare_states(state(), state(), {"orders.17.status": "open"})
    assert verdict.value is None
    assert "before the first action" in verdict.evidence["reason"]
    with pytest.raises(ValueError, match="at least one path"):
        compare_states(state(), state(), {})


def test_sqlite_state() -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        'CREATE TABLE orders (id INTEGER PRIMARY KEY, status TEXT); CREATE TABLE "odd ""name" (a, b);'
        "CREATE TABLE pairs (x, y, z, PRIMARY KEY (y, x));"
        "INSERT INTO orders VALUES (17, 'open'), (18, 'open'); INSERT INTO \"odd \"\"name\" VALUES (1, NULL);"
        "INSERT INTO pairs VALUES (1, 2, 3);"
    )
    before = sqlite_state(connection)
    assert before == {
        "orders": {"17": {"id": 17, "status": "open"}, "18": {"id": 18, "status": "open"}},
        'odd "name': {"1": {"a": 1, "b": None}},
        "pairs": {"2/1": {"x": 1, "y": 2, "z": 3}},
    }
    connection.execute("UPDATE orders SET status = 'cancelled' WHERE id = 17")
    assert compare_states(before, sqlite_state(connection), GOAL).value == 1.0
    connection.execute("UPDATE orders SET status = 'cancelled'")
    assert compare_states(before, sqlite_state(connection), GOAL).value == 0.0
    connection.close()
