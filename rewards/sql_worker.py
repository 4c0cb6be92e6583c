"""The process that runs a query (see `rewards.process_pool`): on a read-only database, one statement, at most
so many rows.

SQLite by the standard library: an authorizer lets only reading through. DuckDB, where it is installed: no file,
no network, no extension, no setting is within reach of the query. The statements that make a database come with
the task, which may be somebody else's data: they reach no other file, either.
"""

import json
import sqlite3
from collections.abc import Sequence
from decimal import Decimal
from typing import Any
from urllib.parse import quote

from vertigym.rewards.process_pool import serve

_LONGEST_VALUE = 1 << 20  # bytes of a text, a blob or a query
_MEMORY_MIB = 512
_READING = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_LEAVING = {sqlite3.SQLITE_ATTACH, sqlite3.SQLITE_DETACH}  # VACUUM INTO attaches, too
_REFUSED = {"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"}


def run(request: dict[str, Any]) -> list[Any]:
    """`{"engine", "database" or "schema", "query", "most"}` -> `["rows", rows]`, or `["error", why]`;
    `["setup", why]` when the database itself cannot be opened or made."""
    connect = {"sqlite": _sqlite, "duckdb": _duckdb}[request["engine"]]
    try:
        query = connect(request.get("database"), request.get("schema") or "")
    except Exception as error:
        return ["setup", f"{type(error).__name__}: {error}"[:500]]
    try:
        rows = query(request["query"], request["most"] + 1)
    except Exception as error:
        return ["error", f"{type(error).__name__}: {error}"[:500]]
    if len(rows) > request["most"]:
        return ["error", f"more than {request['most']:,} rows"]
    return ["rows", [[_plain(value) for value in row] for row in rows]]


def _sqlite(database: str | None, schema: str) -> Any:
    uri = f"file:{quote(database)}?mode=ro&immutable=1" if database else ":memory:"
    connection = sqlite3.connect(uri, uri=bool(database), isolation_level=None)
    connection.text_factory = lambda data: data.decode("utf-8", "replace")
    connection.set_authorizer(lambda action, *names: _answer(action not in _LEAVING, names))
    connection.executescript(schema)
    connection.execute("SELECT count(*) FROM sqlite_master")  # opens the file
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_VALUE)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, _LONGEST_VALUE)
    connection.set_authorizer(lambda action, *names: _answer(action in _READING, names))
    return lambda text, most: connection.execute(text).fetchmany(most)


def _answer(allowed: bool, names: Sequence[str | None]) -> int:
    """What an authorizer says: the second name is a function's."""
    return sqlite3.SQLITE_OK if allowed and (names[1] or "").lower() not in _REFUSED else sqlite3.SQLITE_DENY


def _duckdb(database: str | None, schema: str) -> Any:
    import duckdb

    config: Any = {"threads": 1, "memory_limit": f"{_MEMORY_MIB}MB", "autoinstall_known_extensions": False}
    config["temp_directory"] = ""
    connection = duckdb.connect(database or ":memory:", read_only=bool(database), config=config)
    for statement in ("SET enable_external_access = false", schema, "SET lock_configuration = true"):
        connection.execute(statement)

    def query(text: str, most: int) -> Any:
        statements = duckdb.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
            raise ValueError("one SELECT is allowed")
        return connection.execute(statements[0]).fetchmany(most)

    return query


def _plain(value: Any) -> Any:
    """A value as JSON: bytes as hex, whatever else is not JSON's own as its text."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    return json.loads(json.dumps(value, default=str))


if __name__ == "__main__":
    serve(run)
