"""Our own rows, as `vertigym serve` writes them: calls, and feedback that came after the call it names."""

from collections.abc import Iterator

from vertigym.traces.columns import with_columns
from vertigym.traces.config import ImportConfig
from vertigym.traces.facts import facts
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import chat
from vertigym.traces.parts import kind_of
from vertigym.traces.records import Feedback, LateFeedback, NotACall, Trace


def _trace(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    if row.get("delivered") is False:  # its completion may be cut short
        yield NotACall("a call whose caller hung up")
        return
    known = {key: value for key, value in row.items() if key in Trace.model_fields}
    rest = {key: value for key, value in row.items() if key not in known and key != "delivered"}
    found, used = facts(known, rest)
    meta = {**{key: value for key, value in rest.items() if key not in used}, **(known.get("meta") or {})}
    fields = {"id": name, **known, **found, "messages": chat(row["messages"])} | (
        {"meta": meta} if meta else {}
    )
    yield with_columns(Trace.model_validate(fields), row, config.columns)


def _feedback(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    """Feedback on a line of its own, checked here: it is merged into its call later, where nothing may fail."""
    told = Feedback.model_validate(row["feedback"]).model_dump(mode="json", exclude_none=True)
    known = {key: row[key] for key in ("outcome", "label") if row.get(key) is not None}
    for key, value in known.items():
        if not isinstance(value, str | int | float):
            raise ValueError(f"{key} is text, this is {kind_of(value)}")
    changes = {"feedback": told, **{key: str(value) for key, value in known.items()}}
    yield LateFeedback(str(row["id"]), changes)


FORMATS = (
    LogFormat(
        lambda row: isinstance(row.get("completion"), str) and "messages" in row, _trace, "vertigym's own"
    ),
    LogFormat(
        lambda row: (
            "id" in row and "feedback" in row and not {"messages", "response", "request", "choices"} & set(row)
        ),
        _feedback,
        "vertigym's own feedback",
    ),
)
