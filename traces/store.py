"""The calls of an import, on disk: the rows as lines of a file, and what is known of each in a DuckDB table.

Reading saves where it stands, and a store that was left goes on from there (`resuming`). Cleaning never holds
the rows in memory. A step is one SQL statement that says which rows leave, why, and for which row that stays;
DuckDB sorts and joins on disk what does not fit. What a step needs to read again it finds by its place in the
file.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from vertigym.core.errors import DataError, OutputError
from vertigym.core.files import dumps
from vertigym.traces.ngrams import plain
from vertigym.traces.reading import engine
from vertigym.traces.records import Trace

_COLUMNS = {
    "row": "UINTEGER",  # in the order read
    "place": "UBIGINT",  # byte in the file of rows
    "file": "UINTEGER",  # where it was read: which file, and the number of the line
    "number": "UINTEGER",
    "id": "VARCHAR",
    "content": "UBIGINT",  # hash of all that went in and came out
    "verdict": "UBIGINT",  # hash of label, outcome and feedback
    "asked": "UBIGINT",  # hash of the whole input, system message and documents included, in plain words
    "question": "UBIGINT",  # hash of the input without the system message, in plain words
    "answer": "UBIGINT",  # hash of the label, or of the completion where there is none
    "label": "VARCHAR",  # that label or completion where it is short, for the balance of classes
    "time": "DOUBLE",
    "customer": "VARCHAR",
    "session": "VARCHAR",
    "cluster": "VARCHAR",
}
_TABLES = {
    "calls": ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items()),
    "fate": "row UINTEGER, step VARCHAR, kept UINTEGER, overlap DOUBLE",
    "later": "id VARCHAR, file UINTEGER, number UINTEGER, changes VARCHAR",
    "halves": "key VARCHAR, side VARCHAR, file UINTEGER, number UINTEGER, body VARCHAR",
    "placeholders": "kind VARCHAR, digest UBIGINT, number UINTEGER, value VARCHAR",
    "saved": "state VARCHAR, rows UINTEGER",
}
_DTYPES = {
    "INTEGER": np.int32,
    "UINTEGER": np.uint32,
    "UBIGINT": np.uint64,
    "DOUBLE": np.float64,
    "VARCHAR": object,
}
_LABEL = 60  # characters; a longer completion is no class


@dataclass(frozen=True, slots=True)
class StoredCall:
    """One row as it came back from disk."""

    row: int
    trace: Trace


class Store:
    """A folder with the rows and the table. A context manager, which removes the folder when all went well,
    when what was given cannot be used, and when there is nothing to go on from.

    Raises:
        MissingDependencyError: DuckDB is not installed.
    """

    def __init__(self, folder: Path, memory_mb: int = 256) -> None:
        duckdb = engine("traces import")
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder = folder
        self._kept = False  # whether there is something to go on from
        try:
            self.db: Any = duckdb.connect(str(folder / "calls.duckdb"))
        except duckdb.IOException as error:
            raise OutputError(
                f"{folder}: another import writes there, or what one left is damaged: wait for it, or remove "
                f"the folder ({str(error).partition(chr(10))[0][:80]})"
            ) from None
        (folder / "rows.jsonl").touch()
        self._file = (folder / "rows.jsonl").open("rb+")
        self._end = self._file.seek(0, os.SEEK_END)  # behind what nothing leads to any more
        self.db.execute(f"SET memory_limit='{memory_mb}MB'; SET preserve_insertion_order=false; SET threads=2")
        self.db.execute(f"SET temp_directory='{folder / 'spill'}'")
        for name, columns in _TABLES.items():
            self.db.execute(f"CREATE TABLE IF NOT EXISTS {name} ({columns})")
        self.db.execute("CREATE VIEW IF NOT EXISTS alive AS SELECT * FROM calls ANTI JOIN fate USING (row)")
        self.rows = 0

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.db.close()
        self._file.close()
        if kind is None or issubclass(kind, DataError) or not self._kept:
            shutil.rmtree(self.folder)

    def state(self) -> str | None:
        """What was saved last."""
        found = self.db.execute("SELECT state FROM saved").fetchone()
        return found[0] if found else None

    def begin(self) -> None:
        """Let what follows be gone, unless it is saved."""
        self.db.execute("BEGIN")

    def save(self, state: str) -> None:
        """Keep all that came since `begin`, with the state."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self.db.execute("DELETE FROM saved")
        self.db.execute("INSERT INTO saved VALUES (?, ?)", [state, self.rows])
        self.db.execute("COMMIT")
        self._kept = True

    def rewind(self) -> None:
        """Drop what came after the state that was saved last."""
        self._kept = True
        (self.rows,) = self.db.execute("SELECT rows FROM saved").fetchone()
        self.db.execute(f"DELETE FROM calls WHERE row >= {self.rows}")
        self.db.execute(f"DELETE FROM fate WHERE row >= {self.rows} OR step <> 'contaminated'")

    def placeholders(self) -> Iterator[tuple[str, str]]:
        """What was masked: each placeholder, and its value where values are kept."""
        for batch in self.select("SELECT kind, number, value FROM placeholders ORDER BY kind, number"):
            yield from ((f"[{kind.upper()}_{number}]", value) for kind, number, value in batch)

    def clear(self) -> None:
        """Drop everything."""
        for name in _TABLES:
            self.db.execute(f"DELETE FROM {name}")

    def add(self, calls: Sequence[tuple[Trace, int, int]]) -> range:
        """Append rows, each with its file and its number there; the numbers they have here."""
        numbers = range(self.rows, self.rows + len(calls))
        self.rows += len(calls)
        self.insert("calls", [self._row(n, *call) for n, call in zip(numbers, calls, strict=True)])
        return numbers

    def replace(self, changed: Iterable[tuple[int, Trace, int, int]]) -> None:
        """Put these in the place of the rows with their numbers."""
        rows = [self._row(*row) for row in changed]
        self._file.flush()
        self.db.execute("CREATE OR REPLACE TEMP TABLE changed AS FROM calls LIMIT 0")
        self.insert("changed", rows)
        self.db.execute("BEGIN")
        self.db.execute("DELETE FROM calls WHERE row IN (SELECT row FROM changed)")
        self.db.execute("INSERT INTO calls FROM changed")
        self.db.execute("COMMIT")

    def insert(self, table: str, rows: Sequence[Sequence[Any]]) -> None:
        """Insert rows of Python values, a column at a time."""
        if not rows:
            return
        kinds = self.db.execute(f"SELECT column_name, column_type FROM (DESCRIBE {table})").fetchall()
        batch = {
            name: np.array(column, dtype=_DTYPES[kind])
            for (name, kind), column in zip(kinds, zip(*rows, strict=True), strict=True)
        }
        assert batch  # DuckDB finds it by its name
        columns = ", ".join(f"nullif({n}, 'nan')" if kind == "DOUBLE" else n for n, kind in kinds)
        self.db.execute(f"INSERT INTO {table} SELECT {columns} FROM batch")

    def count(self, table: str = "alive", where: str = "true") -> int:
        """How many rows of a table."""
        return int(self.db.execute(f"SELECT count(*) FROM {table} WHERE {where}").fetchone()[0])

    def select(self, sql: str, size: int = 2048) -> Iterator[list[tuple[Any, ...]]]:
        """The answer of a query in batches, while other queries go on."""
        cursor = self.db.cursor()
        try:
            cursor.execute(sql)
            while batch := cursor.fetchmany(size):
                yield batch
        finally:
            cursor.close()

    def drop(self, step: str, sql: str) -> int:
        """Let rows leave: `sql` selects row, kept (or NULL), overlap (or NULL) of rows alive. How many left."""
        before = self.count("fate")
        self.db.execute(f"INSERT INTO fate SELECT row, '{step}', kept, overlap FROM ({sql})")
        return self.count("fate") - before

    def calls(self, where: str = "true", size: int = 1024) -> Iterator[list[StoredCall]]:
        """The rows that are alive, in order, in batches."""
        sql = f"SELECT row, place FROM alive WHERE {where} ORDER BY row"
        for batch in self.select(sql, size):
            yield [StoredCall(row, self.read(place)) for row, place in batch]

    def read(self, place: int) -> Trace:
        """The row at a byte of the file."""
        self._file.seek(place)
        return Trace.model_validate_json(self._file.readline())

    def of(self, rows: Iterable[int]) -> dict[int, Trace]:
        """Some rows by their numbers, dropped ones too."""
        listed = ",".join(map(str, rows))
        found = self.db.execute(f"SELECT row, place FROM calls WHERE row IN ({listed})") if listed else None
        return {row: self.read(place) for row, place in sorted(found.fetchall(), key=_second)} if found else {}

    def _row(self, row: int, trace: Trace, file: int, number: int) -> tuple[Any, ...]:
        line = trace.line().encode("utf-8", "surrogatepass")
        self._file.seek(self._end)
        self._file.write(line)
        place, self._end = self._end, self._end + len(line)
        system = "\n".join(m["content"] for m in trace.messages if m["role"] == "system")
        shown = "\n".join(d.text for d in trace.documents)
        question, answered = plain(input_text(trace)), answer_text(trace)
        label = class_of(trace)
        return (
            row,
            place,
            file,
            number,
            trace.id,
            _hash(dumps([trace.messages, [[d.id, d.text] for d in trace.documents], answered])),
            _hash(dumps([trace.label, trace.outcome, trace.feedback.model_dump() if trace.feedback else None])),
            _hash(f"{plain(system)}\n{plain(shown)}\n{question}"),
            _hash(question),
            _hash(plain(label)),
            label if len(label) <= _LABEL else None,
            np.nan if trace.time is None else trace.time,
            trace.customer,
            trace.session,
            trace.cluster,
        )


def input_text(trace: Trace) -> str:
    """What went in, but for the system message, which all calls of a product share."""
    return "\n".join(
        m["content"] + (dumps(m["tool_calls"]) if "tool_calls" in m else "")
        for m in trace.messages
        if m["role"] != "system"
    )


def answer_text(trace: Trace) -> str:
    """What came out: the text, and the functions called."""
    tools = trace.meta.get("tool_calls")
    if not tools:
        return trace.completion
    functions = [tool.get("function", tool) if isinstance(tool, dict) else tool for tool in tools]
    return f"{trace.completion}\n{json.dumps(functions, sort_keys=True)}".strip()


def class_of(trace: Trace) -> str:
    """The label, or what came out where there is none."""
    return trace.label if trace.label is not None else answer_text(trace)


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _second(pair: tuple[int, int]) -> int:
    return pair[1]
