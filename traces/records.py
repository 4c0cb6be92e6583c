"""The row everything speaks: a Trace is one call to a model, with what came of it.

One JSON object a line. `vertigym serve` writes such rows, `vertigym traces import` reads them (and other
people's logs) and writes cleaned ones, environments are built over them:

    {"id": "c-17", "time": 1767225600.0, "messages": [{"role": "user", "content": "Where is my parcel?"}],
     "completion": "shipping", "model": "intent", "version": "step-000050", "customer": "acme",
     "feedback": {"thumb": "down", "edit": "returns"}}

A folder that was imported:

    train.jsonl, eval.jsonl, test.jsonl   Trace rows
    rejected.jsonl                        what could not be read: file, number, reason, the start of the line
    card.md                               what can be told by what was held out, and what not
    report.json, traces.toml              what was done, with counts; the settings it was done with
    manifest.json                         the sha256 of each file: what was edited is not replaced
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from vertigym.core.errors import DataError
from vertigym.core.files import dumps, read_text
from vertigym.core.types import Message

IMPORTED = "import of traces"  # what the manifest of such a folder says it is


def epoch(value: Any) -> Any:
    """Seconds since 1970 UTC out of ISO 8601 text (without a zone: UTC); numbers and None pass through.

    Raises:
        ValueError: text that is neither a date nor a number.
    """
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        pass
    try:
        when = datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(f"{value!r} is neither ISO 8601 nor seconds since 1970") from None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


class Record(BaseModel):
    """Base of the rows: frozen, unknown keys refused, NaN and infinities too."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Document(Record):
    """A passage the model was shown. `id` is what a citation names."""

    id: str = Field(min_length=1)
    text: str


class Feedback(Record):
    """What people said of a completion, or did with it; keys of your own are kept."""

    model_config = ConfigDict(extra="allow")

    thumb: Literal["up", "down"] | None = None
    edit: str | None = Field(None, description="what a person made of the completion before using it")
    resolved: bool | None = Field(None, description="True: the matter was closed; False: it came back")


class LoggedMessage(Message):
    """A message as a log has it: with the assistant's thinking, and the weight it has in training."""

    reasoning_content: NotRequired[str]
    weight: NotRequired[float]


class Trace(Record):
    """One call.

    `messages` is the chat that went in, `completion` the assistant's text that came out. `label` is the class
    or value known to be right, where the log has one; `outcome` what happened afterwards, in the product's own
    word. `customer`, `session` (one conversation, of several calls) and `cluster` (a template, a queue) say
    what belongs together, and never lies on two sides of a split; a session never does, whatever is split by.
    `time` is in seconds since 1970 UTC; ISO 8601 text is read as well. `latency_s` is in seconds, `cost` in
    the log's own currency.
    """

    id: str = Field(min_length=1)
    time: Annotated[float | None, BeforeValidator(epoch)] = None
    messages: tuple[LoggedMessage, ...] = Field(min_length=1)
    completion: str
    model: str = ""
    version: str = Field("", description="the model's version, for example its checkpoint")
    label: str | None = None
    outcome: str | None = None
    customer: str = ""
    session: str = ""
    cluster: str = ""
    latency_s: float | None = Field(None, ge=0)
    cost: float | None = None
    feedback: Feedback | None = None
    documents: tuple[Document, ...] = ()
    meta: dict[str, Any] = Field(default_factory=dict)

    @property
    def question(self) -> str:
        """The last thing the user said."""
        return next((m["content"] for m in reversed(self.messages) if m["role"] == "user"), "")

    def line(self) -> str:
        """The row as one line of JSON, with its newline; what is at its default is left out."""
        return dumps(self.model_dump(mode="json", exclude_defaults=True)) + "\n"


@dataclass(frozen=True, slots=True)
class LateFeedback:
    """Feedback (an outcome, a label) that names the call it belongs to."""

    id: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class HalfCall:
    """A request or a response of a batch; the other half has the same key, and stands on a line elsewhere."""

    key: str
    side: Literal["request", "response"]
    body: Any


@dataclass(frozen=True, slots=True)
class NotACall:
    """A row of a log that is not a call to a chat model, and need not be one."""

    what: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What cannot be used, and why. One of many calls on a line does not take the others with it."""

    reason: str


def read_traces(path: Path) -> Iterator[Trace]:
    """The traces of a JSONL file, one at a time; blank lines are skipped.

    Raises:
        DataError: missing, or a line that is not a Trace (names file, line and field).
    """
    if not path.is_file():
        read_text(path)  # says what is wrong
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    yield Trace.model_validate_json(line)
                except ValidationError as error:
                    raise DataError(f"{path}:{number}: not a trace: {reason(error)}") from None


def reason(error: ValidationError) -> str:
    """A validation error in one line: where, and what is wrong."""
    fault = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in fault["loc"])
    message = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
