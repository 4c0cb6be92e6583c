"""The SQL verifier: what a query finds decides, nothing but reading works, and a query costs its limit only."""

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError
from vertigym.core.types import Score, Task
from vertigym.rewards.named import named
from vertigym.rewards.rubric import Rubric
from vertigym.rewards.sql import ordered, query_in, same_rows, sql_result

SCHEMA = """
CREATE TABLE orders (id INTEGER, customer TEXT, total REAL);
INSERT INTO orders VALUES (1, 'ann', 10.0), (2, 'bob', 20.5), (3, 'ann', 0.3);
"""
MORE = SCHEMA + "INSERT INTO orders VALUES (4, 'cy', 99);"
BY_CUSTOMER = "SELECT customer, sum(total) FROM orders GROUP BY customer"
ENGINES = ["sqlite", "duckdb"]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    if request.param == "duckdb":
        pytest.importorskip("duckdb")
    return str(request.param)


def score(reply: str, answer: str = BY_CUSTOMER, engine: str = "sqlite", **info: Any) -> Score:
    settings = {"engine": engine, "limit_s": 5.0}
    task = Task(id="t", prompt="?", answer=answer, info=info or {"schema": SCHEMA})
    return Rubric(sql_result(**settings)).score(task=task, completion=reply)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (BY_CUSTOMER, 1.0),
        (f"Here:\n```sql\n{BY_CUSTOMER};\n```", 1.0),
        (f"{BY_CUSTOMER} ORDER BY 1 DESC", 1.0),
        ("SELECT customer, sum(total) + 1e-9 FROM orders GROUP BY 1", 1.0),
        ("SELECT customer, total FROM orders", 0.0),
        ("SELECT sum(total), customer FROM orders GROUP BY customer", 0.0),
        ("SELECT customer FROM orders GROUP BY customer", 0.0),
        ("SELECT customer, sum(total) FROM orders WHERE id < 3 GROUP BY customer", 0.0),
        ("SELECT nothing FROM nowhere", 0.0),
        ("", 0.0),
        ("I cannot", 0.0),
    ],
)
def test_what_a_query_finds_decides(reply: str, value: float, engine: str) -> None:
    assert score(reply, engine=engine).value == value


def test_order_counts_where_the_reference_asks_for_it(engine: str) -> None:
    reference = "SELECT id FROM orders ORDER BY total"
    assert score("SELECT id FROM orders ORDER BY total, id", reference, engine).value == 1.0
    assert score("SELECT id FROM orders ORDER BY id", reference, engine).value == 0.0
    inner = "SELECT id FROM (SELECT * FROM orders ORDER BY total)"
    assert score("SELECT id FROM orders ORDER BY id DESC", inner, engine).value == 1.0


def test_every_database_must_agree(engine: str) -> None:
    databases = [{"schema": SCHEMA}, {"schema": MORE}]
    constant = "SELECT 3"
    assert score(constant, "SELECT count(*) FROM orders", engine).value == 1.0
    assert score(constant, "SELECT count(*) FROM orders", engine, databases=databases).value == 0.0


@pytest.mark.parametrize("reference", ["SELECT 1 WHERE 0 = 1", "SELECT nothing", "DROP TABLE orders"])
def test_a_reference_that_shows_nothing_is_not_scored(reference: str, engine: str) -> None:
    assert score(reference, reference, engine).value is None


HOSTILE = [
    "DROP TABLE orders",
    "DELETE FROM orders",
    "INSERT INTO orders VALUES (9, 'x', 1)",
    "UPDATE orders SET total = 0",
    "CREATE TABLE x (y INTEGER)",
    "CREATE TEMP TABLE x AS SELECT 1",
    "PRAGMA writable_schema = 1",
    "SELECT 1; DROP TABLE orders",
    "COMMIT",
    "VACUUM INTO '{folder}/new'",
    "ATTACH '{folder}/new' AS other",
    "COPY orders TO '{folder}/new'",
    "COPY (SELECT 1) TO '{folder}/new'",
    "SELECT * FROM read_csv('{folder}/secret')",
    "SELECT * FROM read_text('{folder}/secret')",
    "SELECT * FROM '{folder}/secret.csv'",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT load_extension('{folder}/new')",
    "SELECT writefile('{folder}/new', 'x')",
    "SELECT readfile('{folder}/secret')",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "EXPORT DATABASE '{folder}/new'",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n",
    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    "SELECT randomblob(1000000000)",
    "SELECT repeat('x', 2000000000)",
    "SELECT " + "(" * 5000,
    "SELECT '" + "x" * 30_000 + "'",
    "SELECT '\ud800'",
    "SELECT \0",
]


@pytest.mark.parametrize("query", HOSTILE)
def test_a_hostile_query_gets_nothing(query: str, engine: str, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("1")
    (tmp_path / "secret.csv").write_text("1\n")
    file = tmp_path / "orders.db"
    if engine == "sqlite":
        with sqlite3.connect(file) as made:
            made.executescript(SCHEMA)
        made.close()
        place: dict[str, Any] = {"database": str(file)}
    else:
        place = {"schema": SCHEMA}
    before = file.read_bytes() if file.exists() else b""
    found = score(query.replace("{folder}", str(tmp_path)), BY_CUSTOMER, engine, **place)
    assert found.value == 0.0, found
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != "orders.db") == ["secret", "secret.csv"]
    assert before == (file.read_bytes() if file.exists() else b"")
    assert score(BY_CUSTOMER, BY_CUSTOMER, engine, **place).value == 1.0


def test_the_query_of_a_reply_and_the_order_of_a_reference() -> None:
    assert query_in("x\n```sql\nSELECT 1;\n```\ny") == "SELECT 1"
    assert ordered("SELECT a FROM t WHERE b = ')' ORDER  BY a")
    assert not ordered("SELECT a FROM t WHERE b = 'order by' AND c IN (SELECT d FROM u ORDER BY d)")


def test_rows_are_a_bag_of_values_with_types() -> None:
    assert same_rows([[1, None], [2, "a"]], [[2, "a"], [1, None]], (0, 2))
    assert not same_rows([[1], [1], [2]], [[1], [2], [2]], (0, 3))
    assert not same_rows([["1"]], [[1]], (0, 1))
    assert same_rows([[1]], [[1.0]], (0, 1))
    assert not same_rows([[10**18]], [[10**18 + 1]], (0, 1))
    assert not same_rows([[None]], [[0]], (0, 1))


def test_settings_are_checked() -> None:
    assert callable(named("sql", {"engine": "sqlite"}))
    with pytest.raises(ConfigError, match="sqlite or duckdb"):
        sql_result(engine="postgres")  # type: ignore[arg-type]


LEAVING = {
    "sqlite": ["ATTACH '{}' AS x; CREATE TABLE x.t (a)", "VACUUM INTO '{}'", "SELECT load_extension('{}')"],
    "duckdb": [
        "COPY (SELECT 1) TO '{}'",
        "ATTACH '{}' AS x",
        "SET enable_external_access = true; ATTACH '{}' AS x",
        "CREATE TABLE p AS SELECT * FROM read_text('/etc/hostname') -- {}",
    ],
}


def test_the_statements_that_make_a_database_reach_no_file(engine: str, tmp_path: Path) -> None:
    """They come with the tasks of an environment's folder, which is data."""
    for number, statement in enumerate(LEAVING[engine]):
        place = tmp_path / f"left{number}"
        found = score(BY_CUSTOMER, engine=engine, schema=SCHEMA + statement.format(place) + ";")
        assert found.value is None, statement
        assert "Error" in found.evidence["reason"] or "Exception" in found.evidence["reason"]
    assert not list(tmp_path.iterdir())


def test_the_name_of_a_database_is_no_more_than_a_name(tmp_path: Path) -> None:
    assert score(BY_CUSTOMER, database=f"{tmp_path}/new.db?mode=rwc&x=").value is None
    assert not list(tmp_path.iterdir())
    odd = tmp_path / "100% sure? #1.db"
    made = sqlite3.connect(odd)
    made.executescript(SCHEMA)
    made.close()
    assert score(BY_CUSTOMER, database=str(odd)).value == 1
