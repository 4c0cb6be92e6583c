"""The column mapping: rows in a shape of their own, and columns on top of a known format."""

from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.files import dumps
from vertigym.traces.config import Columns
from vertigym.traces.messages import decoded, documents, message, seconds
from vertigym.traces.records import Trace

_UP = frozenset({"up", "+1", "1", "true", "yes", "good", "like", "liked", "positive", "thumbs_up", "thumbsup"})
_DOWN = frozenset(
    {"down", "-1", "0", "false", "no", "bad", "dislike", "disliked", "negative", "thumbs_down", "thumbsdown"}
)


def mapped(row: Mapping[str, Any], name: str, columns: Columns) -> Trace:
    """A row in a shape of its own, by the column mapping; columns that are not mapped go into `meta`."""
    asked, answered = _need(row, columns.input, "input"), _need(row, columns.completion, "completion")
    if isinstance(asked, str) and asked.lstrip().startswith('[{"'):
        asked = decoded(asked)
    chat = asked if isinstance(asked, list) else [{"role": "user", "content": _text(asked, columns.input)}]
    if columns.system and at(row, columns.system):
        chat = [{"role": "system", "content": _text(at(row, columns.system), columns.system)}, *chat]
    mapped = {column.partition(".")[0] for column in columns.model_dump().values() if column}
    around = {key: value for key, value in row.items() if key not in mapped}
    if not columns.id and row.get("id") not in (None, ""):
        around["id"] = row["id"]
    meta = {k: v for k, v in around.items() if k != "id" and v not in (None, "")}
    trace = Trace(
        id=str(around.get("id") or name),
        messages=tuple(message(m) for m in chat),
        completion=_text(answered, columns.completion),
        meta=meta,
    )
    return with_columns(trace, row, columns)


def _need(row: Mapping[str, Any], column: str, field: str) -> Any:
    if not column:
        raise ValueError(f"[columns] {field} is not set: both input and completion are needed")
    value = at(row, column)
    if value is None or value == "":
        raise ValueError(f"column {column!r} ({field}) is empty or missing")
    return value


def _text(value: Any, column: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        return dumps(value)
    return str(value)


def with_columns(trace: Trace, row: Mapping[str, Any], columns: Columns) -> Trace:
    """The trace with the mapped columns on top."""
    found: dict[str, Any] = {}
    for field in ("id", "model", "version", "label", "outcome", "customer", "cluster"):
        column = getattr(columns, field)
        if column and (value := at(row, column)) not in (None, ""):
            found[field] = value if isinstance(value, str) else dumps(value)
    if columns.time:
        found["time"] = seconds(at(row, columns.time))
    if columns.documents:
        found["documents"] = documents(at(row, columns.documents))
    feedback = _feedback(row, columns)
    if feedback:
        found["feedback"] = {
            **(trace.feedback.model_dump(exclude_none=True) if trace.feedback else {}),
            **feedback,
        }
    if not found:
        return trace
    return Trace.model_validate({**trace.model_dump(exclude_unset=True), **found})


def _feedback(row: Mapping[str, Any], columns: Columns) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for field in ("thumb", "resolved"):
        column = getattr(columns, field)
        value = at(row, column) if column else None
        if value not in (None, ""):
            word = str(value).strip().lower()
            if word not in _UP | _DOWN:
                raise ValueError(
                    f"column {column!r} ({field}): {value!r} is neither up nor down, true nor false"
                )
            found[field] = (word in _UP) if field == "resolved" else ("up" if word in _UP else "down")
    if columns.edit and at(row, columns.edit):
        found["edit"] = str(at(row, columns.edit))
    return found


def at(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or under a path of keys with dots; None where there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and not isinstance(value, str) and key.lstrip("-").isdecimal():
            value = value[int(key)] if -len(value) <= int(key) < len(value) else None
        else:
            return None
    return value
