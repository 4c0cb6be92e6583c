"""The state verifier: after the policy's actions, the right things have changed *and nothing else has*.

    before = {"orders": {"17": {"status": "open", "total": 40}, "18": {"status": "open", "total": 9}}}
    compare_states(before, after, {"orders.17.status": "cancelled"}, may_change=["orders.17.updated"])

Without such frame conditions, an agent that also cancels a stranger's order is paid in full. A state is any
nesting of dicts with JSON values; `sqlite_state` reads one from a database. A list is one value.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, Final

from vertigym.core.types import Score

_SHOWN = 10
_LONGEST = 300  # characters of a value in the evidence


class _Deleted:
    """The value of what is not there."""

    def __repr__(self) -> str:
        return "deleted"


DELETED: Final = _Deleted()


def compare_states(
    before: Mapping[str, Any],
    after: Mapping[str, Any],
    goal: Mapping[str, Any],
    *,
    may_change: Sequence[str] = (),
    equal: Callable[[Any, Any], bool] | None = None,
) -> Score:
    """1 when every path of `goal` has its value (`DELETED`: is gone) and every other path is as before, else 0.

    Paths are dotted (`orders.17.status`); a goal's value may be a dict, whose leaves are then the goals.
    `may_change`: patterns (`*.updated_at`) of what is free to change; `equal`: what counts as the same value,
    by default equality that tells true from 1. Parts: `reached`, the share of goals, and `untouched`, 1 when
    nothing else changed. A goal that held before the first action is *not scored*: doing nothing would be paid.

    Raises:
        ValueError: `goal` is empty.
    """
    same = equal or _same
    wanted = dict(_leaves(goal))
    if not wanted:
        raise ValueError(
            "a goal needs at least one path: leaving everything as it is can be done by doing nothing"
        )
    old, new = dict(_leaves(before)), dict(_leaves(after))
    missed = [path for path, value in wanted.items() if not _holds(new, path, value, same)]
    if all(_holds(old, path, value, same) for path, value in wanted.items()):
        return Score.unscored("the goal held before the first action", goal=list(wanted)[:_SHOWN])
    damaged = [
        path
        for path in {**old, **new}
        if path not in wanted
        and not same(old.get(path, DELETED), new.get(path, DELETED))
        and not _inside_deleted(path, wanted)
        and not any(fnmatchcase(path, pattern) for pattern in may_change)
    ]
    parts = {"reached": 1 - len(missed) / len(wanted), "untouched": float(not damaged)}
    evidence: dict[str, Any] = {}
    if missed:
        evidence["missed"] = [_difference(path, new, wanted) for path in missed[:_SHOWN]]
    if damaged:
        evidence["damaged"] = [_difference(path, new, old) for path in damaged[:_SHOWN]]
    return Score(float(not missed and not damaged), parts, evidence)


def sqlite_state(connection: sqlite3.Connection) -> dict[str, Any]:
    """Every table as `{table: {key: {column: value}}}`; the key is the primary key's value (several columns are
    joined with `/`), or the rowid."""
    tables = connection.execute(
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' ORDER BY name"
    )
    return {name: _table(connection, name) for (name,) in tables.fetchall()}


def _table(connection: sqlite3.Connection, name: str) -> dict[str, Any]:
    quoted = '"' + name.replace('"', '""') + '"'
    columns = connection.execute(f"PRAGMA table_info({quoted})").fetchall()
    names = [column[1] for column in columns]
    keys = [column[1] for column in sorted(columns, key=lambda column: column[5]) if column[5]]
    state = {}
    if keys:
        rows = connection.execute(f"SELECT * FROM {quoted}").fetchall()  # noqa: S608 (a quoted name)
        for row in rows:
            record = dict(zip(names, row, strict=True))
            state["/".join(str(record[key]) for key in keys)] = record
    else:
        rows = connection.execute(f"SELECT rowid, * FROM {quoted}").fetchall()  # noqa: S608 (a quoted name)
        for rowid, *row in rows:
            state[str(rowid)] = dict(zip(names, row, strict=True))
    return state


def _leaves(state: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of everything that is not a dict; an empty dict is nothing."""
    for key, value in state.items():
        path = f"{prefix}{key}"
        if value is None or type(value) is str:  # most are; asking for Mapping takes long
            yield path, value
            continue
        if type(value) is dict or isinstance(value, Mapping):
            yield from _leaves(value, f"{path}.")
        else:
            yield path, value


def _inside_deleted(path: str, wanted: Mapping[str, Any]) -> bool:
    """Whether a goal deletes a record that `path` belongs to."""
    return any(value is DELETED and path.startswith(f"{goal}.") for goal, value in wanted.items())


def _holds(state: Mapping[str, Any], path: str, value: Any, same: Callable[[Any, Any], bool]) -> bool:
    """Whether `path` has `value` among a state's leaves; `DELETED`: neither it nor anything below is there."""
    if value is DELETED:
        return path not in state and not any(other.startswith(f"{path}.") for other in state)
    return path in state and same(state[path], value)


def _same(left: Any, right: Any) -> bool:
    """Equality that tells true from 1."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, list | tuple) and isinstance(right, list | tuple):
        return len(left) == len(right) and all(map(_same, left, right))
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return left.keys() == right.keys() and all(_same(left[key], right[key]) for key in left)
    return bool(left == right)


def _difference(path: str, new: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    is_now, should_be = (repr(state.get(path, DELETED))[:_LONGEST] for state in (new, wanted))
    return f"{path}: {is_now}, should be {should_be}"
