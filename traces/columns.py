"""The column mapping on top of a row that was read: our field = your column."""

from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.files import dumps
from vertigym.traces.config import Columns
from vertigym.traces.facts import thumb_of
from vertigym.traces.messages import decoded, documents, seconds
from vertigym.traces.records import Trace


def with_columns(trace: Trace, row: Mapping[str, Any], columns: Columns) -> Trace:
    """The trace with the mapped columns on top."""
    found: dict[str, Any] = {}
    for field in ("id", "model", "version", "label", "outcome", "customer", "session", "cluster"):
        column = getattr(columns, field)
        if column and (value := at(row, column)) not in (None, ""):
            found[field] = value if isinstance(value, str) else dumps(value)
    for field in ("latency_s", "cost"):
        if (column := getattr(columns, field)) and (value := at(row, column)) not in (None, ""):
            found[field] = value
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
            thumb = thumb_of(value)
            if thumb is None:
                raise ValueError(
                    f"column {column!r} ({field}): {value!r} is neither up nor down, true nor false"
                )
            found[field] = thumb == "up" if field == "resolved" else thumb
    if columns.edit and at(row, columns.edit):
        found["edit"] = str(at(row, columns.edit))
    return found


def at(row: Mapping[str, Any], column: str) -> Any:
    """The value of a column, or under a path of keys with dots; None where there is none."""
    if column in row:
        return row[column]
    value: Any = row
    for key in column.split("."):
        value = decoded(value)  # a cell may hold JSON
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, Sequence) and not isinstance(value, str) and key.lstrip("-").isdecimal():
            value = value[int(key)] if -len(value) <= int(key) < len(value) else None
        else:
            return None
    return value
