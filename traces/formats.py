"""Other people's rows become Traces. One line of a log, already JSON, is recognised by its keys:

    {"resourceSpans": …}                      OpenTelemetry (see otel.py)
    {"messages": …, "completion": "…"}        a Trace, as `vertigym serve` writes it
    {"id": …, "feedback": {…}}                feedback that came after the call it names
    {"request": {…}, "response": {…}}         a chat-completions call; also {"messages": …, "choices": …}
    {"messages": [… assistant …]}             a conversation: every answer in it is a call
    anything else                             by the column mapping

A format is a LogFormat. Those of installed packages (entry-point group `vertigym.log_formats`) are asked first.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from vertigym.core.plugins import load_plugin, plugins
from vertigym.traces.chats import FAULTS, attempt, completed, conversation, from_call, why
from vertigym.traces.columns import mapped, with_columns
from vertigym.traces.config import ImportConfig
from vertigym.traces.messages import kind_of
from vertigym.traces.otel import is_export, spans
from vertigym.traces.records import Feedback, LateFeedback, NotACall, Trace, Unreadable

GROUP = "vertigym.log_formats"
Found = Trace | LateFeedback | NotACall | Unreadable
Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LogFormat:
    """`matches` says whether a row has this format; `read` gives what such a row holds: it gets the id for a
    call that has none, and what it raises sets the row aside with the message as the reason."""

    matches: Callable[[Row], bool]
    read: Callable[[Row, str, ImportConfig], Iterator[Found]]


def calls(row: Any, name: str, config: ImportConfig) -> Iterator[Found]:
    """What one row of a log holds, or why not; `name` becomes the id where the row has none. Never raises."""
    try:
        if not isinstance(row, Mapping):
            raise ValueError(f"a row is a JSON object, this is {kind_of(row)}")
        if config.columns.input or config.columns.completion:
            yield mapped(row, name, config.columns)
            return
        found = next((known for known in (*_installed(), *BUILT_IN) if known.matches(row)), None)
        if found is None:
            raise ValueError(
                f"no format is known with the keys {', '.join(map(str, list(row)[:8])) or 'none'}; "
                "name the columns: [columns] input and completion"
            )
        yield from found.read(row, name, config)
    except FAULTS as error:
        yield Unreadable(why(error))


@cache
def _installed() -> tuple[LogFormat, ...]:
    return tuple(load_plugin(point) for point in plugins(GROUP, {}).values())


def _spans(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    for span in spans(row):
        if isinstance(span, NotACall | Unreadable):
            yield span
        else:
            chat = span["messages"], span["answer"], span["around"]
            yield attempt(from_call, *chat, name, config.columns)


def _trace(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    if row.get("delivered") is False:  # its completion may be cut short
        yield NotACall("a call whose caller hung up")
        return
    yield with_columns(Trace.model_validate({"id": name, **row}), row, config.columns)


def _feedback(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    """Feedback on a line of its own, checked here: it is merged into its call later, where nothing may fail."""
    told = Feedback.model_validate(row["feedback"]).model_dump(mode="json", exclude_none=True)
    known = {key: row[key] for key in ("outcome", "label") if row.get(key) is not None}
    for key, value in known.items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"{key} is text, this is {kind_of(value)}")
    changes = {"feedback": told, **{key: str(value) for key, value in known.items()}}
    yield LateFeedback(str(row["id"]), changes)


def _is_feedback(row: Row) -> bool:
    return "messages" not in row and "feedback" in row and "id" in row and "response" not in row


def _is_completed(row: Row) -> bool:
    whole = "choices" in row and "messages" in row
    return whole or row.get("request") is not None or row.get("response") is not None


BUILT_IN: tuple[LogFormat, ...] = (
    LogFormat(is_export, _spans),
    LogFormat(lambda row: isinstance(row.get("completion"), str) and "messages" in row, _trace),
    LogFormat(_is_feedback, _feedback),
    LogFormat(_is_completed, completed),
    LogFormat(lambda row: "messages" in row, conversation),
)
