"""Rows in a shape of their own, by the column mapping; columns that are not mapped go into `meta`.

A cell may hold JSON: a request, a response or messages are read as what they are, any other JSON is the text
it is.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.core.files import dumps
from vertigym.traces.apis.registry import api_of
from vertigym.traces.columns import at, with_columns
from vertigym.traces.config import Columns, ImportConfig
from vertigym.traces.exchange import attempt, came_out, from_call, went_in
from vertigym.traces.log_format import Found, Row
from vertigym.traces.messages import chat, decoded, is_chat, is_message
from vertigym.traces.records import Trace
from vertigym.traces.requests import is_request


def mapped(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    """The calls of a row.

    Raises:
        ValueError: a column that is needed is missing or empty, or a chat in it is none.
    """
    columns = config.columns
    given, told = _need(row, columns.input, "input"), _need(row, columns.completion, "completion")
    opened, answer = decoded(given), decoded(told)
    if not isinstance(given, str) and isinstance(given, list) and not is_chat(given):
        chat(given)  # says which message is none
    asked = went_in(opened if is_chat(opened) or is_request(opened) else _text(given))
    if columns.system and at(row, columns.system):
        asked = [{"role": "system", "content": _text(at(row, columns.system))}, *asked]
    known = api_of(answer) is not None or is_message(answer)
    for number, (said, _) in enumerate(came_out(answer) if known else [({"content": _text(told)}, {})]):
        part = f"{row.get('id') or name}{f'#{number}' if number else ''}"
        yield attempt(_call, asked, said, row, part, config)


def _call(asked: list[Any], said: Mapping[str, Any], row: Row, name: str, config: ImportConfig) -> Trace:
    columns = config.columns
    trace = from_call(asked, said, {"id": name}, [], name, config.model_copy(update={"columns": Columns()}))
    used = {column.partition(".")[0] for column in columns.model_dump().values() if column}
    rest = {key: value for key, value in row.items() if key not in used | {"id"} and value not in (None, "")}
    return with_columns(trace.model_copy(update={"meta": {**rest, **trace.meta}}), row, columns)


def _need(row: Row, column: str, field: str) -> Any:
    if not column:
        raise ValueError(f"[columns] {field} is not set: both input and completion are needed")
    value = at(row, column)
    if value is None or value == "":
        raise ValueError(f"column {column!r} ({field}) is empty or missing")
    return value


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return dumps(value)
    return str(value)
