"""Files of logs as a stream of rows with their place: JSONL, JSON, CSV, TSV and Parquet, `.gz` too.

One row is in memory at a time, however large the file. What cannot be read comes as `Unreadable`, never as an
exception: a log of a year has a torn line somewhere.
"""

import codecs
import csv
import gzip
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.core.files import jsonable, read_text
from vertigym.traces.records import Unreadable

_LINE = 64 << 20  # bytes; a longer line is not a row
_WHOLE = 512 << 20  # bytes of a JSON document that is not in lines
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")

Rows = Iterator[
    tuple[int, Any, bytes]
]  # number of line or row, what it holds (Unreadable where nothing), its start


def log_files(paths: Sequence[Path]) -> list[Path]:
    """The files, and those in the folders, in a fixed order.

    Raises:
        DataError: a path is missing, of a kind nobody reads, or a folder without logs.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if _suffix(file) in SUFFIXES)
            if not inside:
                raise DataError(
                    f"{path}: no logs in this folder; read are {', '.join(SUFFIXES)}, also with .gz"
                )
            files += inside
        elif _suffix(path) not in SUFFIXES and path.exists():
            raise DataError(f"{path}: what is this? Read are {', '.join(SUFFIXES)}, also with .gz")
        else:
            if not path.is_file():
                read_text(path)  # says what is wrong
            files.append(path)
    return files


def rows(file: Path, at: Callable[[int], None] = lambda _: None) -> Rows:
    """The rows of a file; `at` is told how many bytes of it have been read.

    Raises:
        DataError: a JSON document too large to hold, or a Parquet file that is none.
    """
    suffix = _suffix(file)
    if suffix == ".parquet":
        yield from _parquet(file)
        return
    with file.open("rb") as raw:
        opened: BinaryIO = gzip.GzipFile(fileobj=raw) if file.suffix == ".gz" else raw  # type: ignore[assignment]
        try:
            read = _delimited(opened, "\t" if suffix == ".tsv" else ",") if suffix in (".csv", ".tsv") else None
            for row in read or _json(opened, file, whole=suffix == ".json"):
                at(raw.tell())
                yield row
        except (OSError, EOFError) as error:  # a damaged archive: what came before it counts
            yield 0, Unreadable(f"the file cannot be read further: {error}"), b""


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower()


def _json(opened: BinaryIO, file: Path, *, whole: bool) -> Rows:
    """JSON lines; a `.json` file may also be one document: a list of rows, or an export."""
    number = 0
    while line := opened.readline(_LINE):
        number += 1
        start = line[:400]
        if len(line) == _LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = opened.readline(_LINE)
            yield number, Unreadable(f"a line of more than {_LINE >> 20} MiB"), start
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        row = _parse(line)
        if whole and number == 1 and (isinstance(row, Unreadable | list)):
            yield from _document(line + _rest(opened), file)
            return
        yield number, row, start


def _rest(opened: BinaryIO) -> bytes:
    """What follows, up to the limit; in pieces, because a read of so much at once takes that much memory."""
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < _WHOLE and (piece := opened.read(_LINE >> 3)):
        pieces.append(piece)
    return b"".join(pieces)


def _document(text: bytes, file: Path) -> Rows:
    if len(text) >= _WHOLE:
        raise DataError(
            f"{file}: a JSON document of more than {_WHOLE >> 20} MiB; write its rows as lines (jq -c '.[]')"
        )
    found = _parse(text)
    if isinstance(found, list):
        for number, row in enumerate(found, 1):
            yield number, row, repr(row)[:400].encode("utf-8", "replace")
    else:
        yield 1, found, text[:400]


def _parse(line: bytes) -> Any:
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return Unreadable(f"not JSON ({str(error).partition(' at line ')[0]})")


def _delimited(opened: BinaryIO, delimiter: str) -> Rows:
    """A table with a header. `number` is the line a row ends at; quoted fields may hold line breaks."""
    text = io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace", newline="")
    csv.field_size_limit(_LINE)
    try:
        yield from _fields(csv.reader(text, delimiter=delimiter, strict=True), delimiter)
    finally:
        text.detach()  # the file is closed by who opened it


def _fields(reader: Any, delimiter: str) -> Rows:
    header: list[str] | None = None
    while True:
        try:
            fields = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield reader.line_num, Unreadable(f"not a row of the table ({error})"), b""
            continue
        start = delimiter.join(fields)[:400].encode("utf-8", "replace")
        if header is None:
            header = fields
        elif not fields:
            continue
        elif len(fields) != len(header):
            yield reader.line_num, Unreadable(f"{len(fields)} fields where the header has {len(header)}"), start
        elif "\ufffd" in "".join(fields):
            yield reader.line_num, Unreadable("not UTF-8 text"), start
        else:
            yield reader.line_num, dict(zip(header, fields, strict=True)), start


def _parquet(file: Path) -> Rows:
    duckdb = engine("Parquet")
    with duckdb.connect() as connection:
        connection.execute("SET memory_limit='256MB'; SET threads=1; SET TimeZone='UTC'")
        try:
            found = connection.execute("SELECT * FROM read_parquet(?)", [str(file)])
        except duckdb.Error as error:
            raise DataError(f"{file}: not a Parquet file: {str(error).splitlines()[0]}") from None
        names = [column[0] for column in found.description]
        number = 0
        while batch := found.fetchmany(1024):
            for values in batch:
                number += 1
                row = jsonable(dict(zip(names, values, strict=True)))
                yield number, row, repr(values)[:400].encode("utf-8", "replace")


def engine(purpose: str) -> Any:
    """DuckDB, which sorts, joins and groups what is larger than memory.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import duckdb
    except ImportError:
        raise MissingDependencyError("duckdb", "traces", purpose) from None
    return duckdb
