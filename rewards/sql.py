"""The verifier of queries: does the reply's query find what the reference's finds, on every database of the
task?

Both run in worker processes (`vertigym.rewards.sql_worker`) on read-only databases, each under its own time
limit. Agreement on one database may be luck (`SELECT 5`): a task can name several (Zhong, Yu & Klein 2020).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from typing import Any, Literal

from vertigym.core.errors import ConfigError, MissingDependencyError
from vertigym.core.files import dumps
from vertigym.core.types import Score
from vertigym.rewards.calling import RewardFunction, bounded
from vertigym.rewards.process_pool import shared_pool
from vertigym.rewards.replies import fences

_TOLERANCE = 1e-6  # relative, of numbers that are not whole
_LONGEST_QUERY = 20_000  # characters
_STRINGS = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|--[^\n]*|/\*.*?\*/", re.DOTALL)
_INNER = re.compile(r"\([^()]*\)")
_ORDER = re.compile(r"\border\s+by\b", re.IGNORECASE)
_LIMIT = re.compile(r"\b(?:limit|offset|fetch)\b", re.IGNORECASE)


def sql_result(
    *,
    engine: Literal["sqlite", "duckdb"] = "sqlite",
    order: Literal["asked", "always", "never"] = "asked",
    limit_s: float = 2.0,
    most_rows: int = 10_000,
) -> RewardFunction:
    """1 when the reply's query (in its last Markdown fence, or all of it) returns the rows of the reference
    query.

    The task's `info` has `database` (a file), `schema` (statements that make one in memory), or `databases`, a
    list of tables with either; all must agree. Rows are compared in order where the reference has an ORDER BY
    of its own (`order="asked"`), tied ones in any order, columns by position,
    whole numbers exactly, others to 1e-6. `limit_s`: seconds of processor time for one query.

    A reference that fails, or that finds nothing on any database (each empty query would do), is not scored.

    Raises:
        MissingDependencyError: DuckDB is not installed. ConfigError: an engine or order there is none of.
    """
    if engine not in ("sqlite", "duckdb") or order not in ("asked", "always", "never"):
        raise ConfigError(f"sql: engine {engine!r}, order {order!r}: sqlite or duckdb; asked, always or never")
    if engine == "duckdb" and find_spec("duckdb") is None:
        raise MissingDependencyError("duckdb", "traces", "running queries on DuckDB")

    @bounded  # by the workers' own limit
    def sql_result(completion: str, answer: Any, info: dict[str, Any]) -> Score:
        query, reference = query_in(completion), str(answer)
        places = info.get("databases") or [{key: info[key] for key in ("database", "schema") if key in info}]
        wanted = [_rows(engine, dumps(place), reference, limit_s, most_rows) for place in places]
        failed = next((why for kind, why in wanted if kind != "rows"), None)
        if failed is not None:
            return Score.unscored(f"the reference query fails: {failed}")
        if not any(rows for _, rows in wanted):
            return Score.unscored("the reference query finds no rows: any query that finds none would be right")
        if not query or len(query) > _LONGEST_QUERY:
            why = f"a query of more than {_LONGEST_QUERY:,} characters" if query else "no query"
            return Score(0.0, {"runs": 0.0}, {"why": why})
        in_order = order == "always" or (order == "asked" and ordered(reference))
        for place, (_, rows) in zip(places, wanted, strict=True):
            kind, found = _found(engine, place, query, limit_s, most_rows)
            if kind == "setup":
                return Score.unscored(str(found))
            if kind != "rows":
                return Score(0.0, {"runs": 0.0}, {"query": query, "why": found})
            cuts = _cuts(engine, place, reference, rows, limit_s, most_rows) if in_order else (0, len(rows))
            if not same_rows(rows, found, cuts):
                return Score(0.0, {"runs": 1.0}, {"query": query, "why": _apart(rows, found)})
        return Score(1.0, {"runs": 1.0}, {"query": query})

    return sql_result


def query_in(reply: str) -> str:
    """The query in a reply: its last fence marked `sql` or not marked, else all of it; without a closing
    semicolon."""
    blocks = [body for language, body in fences(reply) if language in ("", "sql", "sqlite", "duckdb")]
    return (blocks[-1] if blocks else reply).strip().rstrip(";").strip()


def ordered(query: str) -> bool:
    """Whether the outermost query has an ORDER BY."""
    return _ORDER.search(_outermost(query)) is not None


def _outermost(query: str) -> str:
    """The query with spaces in place of texts, comments and brackets."""
    text = _STRINGS.sub(_blank, query)
    while (inner := _INNER.sub(_blank, text)) != text:
        text = inner
    return text


def _blank(found: re.Match[str]) -> str:
    return " " * len(found[0])


def same_rows(wanted: list[list[Any]], found: list[list[Any]], cuts: Sequence[int]) -> bool:
    """Whether two results hold the same rows, each as often, between each two of the `cuts`."""
    if len(wanted) != len(found) or any(len(a) != len(b) for a, b in zip(wanted, found, strict=True)):
        return False
    pairs = [
        [row for a, b in pairwise(cuts) for row in sorted(rows[a:b], key=_key)] for rows in (wanted, found)
    ]
    return all(_same(a, b) for rows in zip(*pairs, strict=True) for a, b in zip(*rows, strict=True))


def _cuts(
    engine: str, place: Mapping[str, Any], query: str, rows: list[list[Any]], limit_s: float, most: int
) -> Sequence[int]:
    """Where the query's own ORDER BY decides which rows come first: numbers of rows, from 0 to all.

    The columns are added to its keys, once rising and once falling. Where both results agree on which rows have
    come so far, the query's own keys have decided it; elsewhere rows are tied.
    """
    text = _outermost(query)
    asked = list(_ORDER.finditer(text))
    every = range(len(rows) + 1)
    if not asked or len(rows) < 2:
        return every
    tail = _LIMIT.search(text, asked[-1].end())
    end = len(text[: tail.start()].rstrip() if tail else text.rstrip().rstrip(";").rstrip())
    both = list[list[list[Any]]]()
    for way in ("ASC", "DESC"):
        keys = "".join(f", {at} {way}" for at in range(1, len(rows[0]) + 1))
        kind, found = _rows(engine, dumps(place), f"{query[:end]}{keys}\n{query[end:]}", limit_s, most)
        if kind != "rows" or len(found) != len(rows):
            return every
        both.append(found)
    surplus, cuts = Counter[str](), [0]
    for at, (first, second) in enumerate(zip(*both, strict=True), 1):
        for row, change in ((dumps(first), 1), (dumps(second), -1)):
            surplus[row] += change
            if not surplus[row]:
                del surplus[row]
        if not surplus:
            cuts.append(at)
    return cuts if cuts[-1] == len(rows) else every  # tied rows were cut off: as the reference has it


def _same(wanted: Any, found: Any) -> bool:
    numbers = [isinstance(one, int | float) and not isinstance(one, bool) for one in (wanted, found)]
    if not all(numbers) or (isinstance(wanted, int) and isinstance(found, int)):
        return type(wanted) is type(found) and bool(wanted == found)
    return bool(wanted == found or abs(wanted - found) <= _TOLERANCE * abs(wanted))


def _key(row: list[Any]) -> list[tuple[str, Any]]:
    """What rows are sorted by: numbers rounded, so that nearly equal ones stand side by side."""
    return [
        ("number", float(f"{v:.5g}")) if isinstance(v, int | float) else (type(v).__name__, str(v)) for v in row
    ]


def _apart(wanted: list[list[Any]], found: list[list[Any]]) -> str:
    if len(wanted) != len(found):
        return f"{len(found)} rows where {len(wanted)} are right"
    return "other rows"


@lru_cache(maxsize=1 << 12)
def _rows(engine: str, place: str, query: str, limit_s: float, most: int) -> tuple[str, Any]:
    """What a reference finds, once."""
    return _ask(engine, json.loads(place), query, limit_s, most)


def _found(engine: str, place: Mapping[str, Any], query: str, limit_s: float, most: int) -> tuple[str, Any]:
    try:
        return _ask(engine, place, query, limit_s, most)
    except TimeoutError:
        return "error", f"no result within {limit_s:g} s of processor time"


def _ask(engine: str, place: Mapping[str, Any], query: str, limit_s: float, most: int) -> tuple[str, Any]:
    request = {"engine": engine, **place, "query": query, "most": most}
    kind, found = shared_pool("vertigym.rewards.sql_worker").ask(request, limit_s=limit_s)
    return kind, found
