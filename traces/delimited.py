"""Tables as text: rows with a header, fields that may be quoted and hold line breaks."""

import csv
import io
from collections.abc import Iterator
from typing import Any, BinaryIO

from vertigym.traces.records import Unreadable


def delimited(opened: BinaryIO, delimiter: str, most: int) -> Iterator[tuple[int, Any, bytes]]:
    """The rows of a table. `number` is the line a row ends at; a field has at most `most` bytes."""
    text = io.TextIOWrapper(opened, encoding="utf-8-sig", errors="replace", newline="")
    csv.field_size_limit(most)
    try:
        yield from _fields(csv.reader(text, delimiter=delimiter, strict=True), delimiter)
    finally:
        text.detach()  # the file is closed by who opened it


def _fields(reader: Any, delimiter: str) -> Iterator[tuple[int, Any, bytes]]:
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
            if len(set(header)) < len(header):
                yield reader.line_num, Unreadable("a header that names a column twice"), start
                return
        elif not fields:
            continue
        elif len(fields) != len(header):
            yield reader.line_num, Unreadable(f"{len(fields)} fields where the header has {len(header)}"), start
        elif "\ufffd" in "".join(fields):
            yield reader.line_num, Unreadable("not UTF-8 text"), start
        else:
            yield reader.line_num, dict(zip(header, fields, strict=True)), start
