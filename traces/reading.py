"""Files of logs as a stream of rows with their place: JSON in lines or documents, tables, Parquet, ChatML text;
`.gz` and `.zst` too. What a file is, its first bytes say; its name only tells `;` and tabs from text.

One row is in memory at a time, however large the file. What cannot be read comes as `Unreadable`, never as an
exception: a log of a year has a torn line somewhere.
"""

import codecs
import glob
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from pydantic_core import from_json

from vertigym.core.errors import DataError, MissingDependencyError
from vertigym.core.files import jsonable, read_text
from vertigym.core.manifest import sealed_as
from vertigym.traces.delimited import delimited
from vertigym.traces.messages import is_chat
from vertigym.traces.records import IMPORTED, Unreadable

LINE = 64 << 20  # bytes; a longer line is not a row
_WHOLE = 512 << 20  # bytes of a JSON document that is not in lines
SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet")
_PACKED = {".gz": b"\x1f\x8b", ".zst": b"\x28\xb5\x2f\xfd"}
_KINDS = f"{', '.join(SUFFIXES)}, also with {' or '.join(_PACKED)}"

Line = tuple[int, Any, bytes]  # number of line or row, what it holds (Unreadable where nothing), its start
Rows = Iterator[Line]


def log_files(paths: Sequence[Path]) -> list[Path]:
    """The files, those in the folders and the folders in them, and those that a pattern (`logs/*.gz`) names, in
    a fixed order, each once.

    Raises:
        DataError: a path is missing, a pattern names nothing, a folder has no logs, or what an import wrote.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file) in SUFFIXES)
            if not inside:
                raise DataError(f"{path}: no logs in this folder; read are {_KINDS}")
            for folder in sorted({file.parent for file in inside}):
                if sealed_as(folder) == IMPORTED:
                    raise DataError(f"{folder}: an import, with held-out rows; name the logs themselves")
            files += inside
        elif not path.exists() and glob.has_magic(str(path)):
            matched = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not matched:
                raise DataError(f"{path}: no file has such a name")
            files += log_files(matched)
        else:
            if not path.is_file():
                read_text(path)  # says what is wrong
            files.append(path)
    return list(dict.fromkeys(files))


def rows(file: Path, at: Callable[[int], None] = lambda _: None) -> Rows:
    """The rows of a file; `at` is told how many bytes of it have been read.

    Raises:
        DataError: a JSON document too large to hold, or a Parquet file that is none.
    """
    with file.open("rb") as raw:
        head = raw.peek(4)[:4]
        if head == b"PAR1" or _suffix(file) == ".parquet":
            yield from _parquet(file)
            return
        opened = io.BufferedReader(_unpacked(raw, head))
        try:
            for row in _rows(opened, file):
                at(raw.tell())
                yield row
        except (OSError, EOFError, zlib.error) as error:  # a damaged archive: what came before it counts
            yield 0, Unreadable(f"the file cannot be read further: {error}"), b""


def _unpacked(raw: BinaryIO, head: bytes) -> Any:
    if head.startswith(_PACKED[".gz"]):
        return gzip.GzipFile(fileobj=raw)
    if head.startswith(_PACKED[".zst"]):
        try:
            import zstandard
        except ImportError:
            raise MissingDependencyError("zstandard", "traces", "files packed with zstd") from None
        return _Frames(
            zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True), zstandard.ZstdError
        )
    return raw


class _Frames(io.RawIOBase):
    """A zstd stream whose faults are OSErrors, and whose end in mid-frame is one."""

    def __init__(self, reader: Any, error: type[Exception]) -> None:
        self._reader, self._error = reader, error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            return int(self._reader.readinto(buffer))
        except self._error as error:
            raise OSError(f"damaged zstd data ({error})") from None


def _rows(opened: io.BufferedReader, file: Path) -> Rows:
    suffix, start = _suffix(file), opened.peek(4096).removeprefix(codecs.BOM_UTF8).lstrip()
    if start.startswith((b"{", b"[")) and suffix not in (".csv", ".tsv"):
        return _json(opened, file)
    if start.startswith(b"<|im_start|>"):
        return _chatml(opened)
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _json(opened, file)
    if suffix not in SUFFIXES and not any(mark in start.partition(b"\n")[0] for mark in (b",", b";", b"\t")):
        raise DataError(f"{file}: what is this? Read are {_KINDS}; other names by what is in the file")
    delimiter = b"\t" if suffix == ".tsv" else max((b",", b";", b"\t"), key=start.partition(b"\n")[0].count)
    return delimited(opened, delimiter.decode(), LINE)


def _suffix(path: Path) -> str:
    return (path.with_suffix("") if path.suffix.lower() in _PACKED else path).suffix.lower()


def _chatml(opened: BinaryIO) -> Rows:
    """One conversation, or several with `<|endoftext|>` between."""
    texts = opened.read(_WHOLE).decode("utf-8", "replace").split("<|endoftext|>")
    for number, text in enumerate((text for text in texts if text.strip()), 1):
        yield number, {"text": text}, text[:400].encode()


def _json(opened: BinaryIO, file: Path) -> Rows:
    """JSON lines; or one document: a list of rows, an export, objects over several lines."""
    number = 0
    while line := opened.readline(LINE):
        number += 1
        start = line[:400]
        if len(line) == LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = opened.readline(LINE)
            yield number, Unreadable(f"a line of more than {LINE >> 20} MiB"), start
            continue
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)
        if not line.strip():
            continue
        row = _parse(line)
        if number == 1 and _opens_a_document(row, line, whole=_suffix(file) == ".json"):
            yield from _document(line + _rest(opened), file)
            return
        yield number, row, start


def _opens_a_document(row: Any, line: bytes, *, whole: bool) -> bool:
    """Whether a first line is only the start of what is on it: an open bracket, or a list of rows."""
    if isinstance(row, Unreadable):
        return whole or line.strip() in (b"[", b"{", b"[{")
    return isinstance(row, list) and (whole or not is_chat(row))


def _rest(opened: BinaryIO) -> bytes:
    """What follows, up to the limit; in pieces, because a read of so much at once takes that much memory."""
    pieces: list[bytes] = []
    while sum(map(len, pieces)) < _WHOLE and (piece := opened.read(LINE >> 3)):
        pieces.append(piece)
    return b"".join(pieces)


def _document(text: bytes, file: Path) -> Rows:
    if len(text) >= _WHOLE:
        raise DataError(
            f"{file}: a JSON document of more than {_WHOLE >> 20} MiB; write its rows as lines (jq -c '.[]')"
        )
    found = _parse(text)
    if isinstance(found, list) and not is_chat(found):
        for number, row in enumerate(found, 1):
            yield number, row, repr(row)[:400].encode("utf-8", "replace")
    elif isinstance(found, Unreadable):
        yield from _several(text, found)
    else:
        yield 1, found, text[:400]


def _several(text: bytes, fault: Unreadable) -> Rows:
    """Objects one after the other, each over several lines, as exporters print them; the first fault ends
    it."""
    decoder, said, at, number = json.JSONDecoder(), text.decode("utf-8", "replace"), 0, 0
    while at < len(said):
        number += 1
        try:
            row, end = decoder.raw_decode(said, at)
        except (json.JSONDecodeError, RecursionError):
            yield number, fault, said[at : at + 400].encode("utf-8", "replace")
            return
        yield number, row, said[at : at + 400].encode("utf-8", "replace")
        at = end + len(said[end:]) - len(said[end:].lstrip())


def _parse(line: bytes) -> Any:
    try:
        return from_json(line, allow_inf_nan=False)
    except ValueError as error:
        return Unreadable(f"not JSON ({str(error).partition(' at line ')[0]})")


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
