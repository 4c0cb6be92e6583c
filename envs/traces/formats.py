"""Other people's rows become Traces. One line of a log, already JSON, is recognised by its keys:

    {"messages": …, "completion": "…"}        a Trace, as `vertigym serve` writes it
    {"id": …, "feedback": {…}}                feedback that came after the call it names
    {"request": {…}, "response": {…}}         a chat-completions call; also {"messages": …, "choices": …}
    {"messages": [… assistant …]}             a conversation: every answer in it is a call
    {"resourceSpans": …}                      OpenTelemetry (see otel.py)
    anything else                             by the column mapping

`calls` yields what a line holds; what cannot be used comes as `Bad`, with the reason.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from vertigym.core.files import dumps
from vertigym.envs.traces.config import Columns, ImportConfig
from vertigym.envs.traces.otel import Bad, Other, is_export, spans
from vertigym.envs.traces.rows import Feedback, Trace, reason

_ROLES = {"developer": "system", "function": "tool", "human": "user", "ai": "assistant", "model": "assistant"}
_KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})
_UP = frozenset({"up", "+1", "1", "true", "yes", "good", "like", "liked", "positive", "thumbs_up", "thumbsup"})
_DOWN = frozenset(
    {"down", "-1", "0", "false", "no", "bad", "dislike", "disliked", "negative", "thumbs_down", "thumbsdown"}
)
_OWN = ("model", "version", "label", "outcome", "customer", "cluster", "feedback", "documents")
_TIMES = ("time", "timestamp", "created_at", "created")


@dataclass(frozen=True, slots=True)
class Later:
    """Feedback (an outcome, a label) that names the call it belongs to."""

    id: str
    changes: Mapping[str, Any]


Found = Trace | Later | Other | Bad


def calls(row: Any, name: str, config: ImportConfig) -> Iterator[Found]:
    """What one row of a log holds, or why not; `name` becomes the id where the row has none. Never raises."""
    try:
        if not isinstance(row, Mapping):
            raise ValueError(f"a row is a JSON object, this is {_kind(row)}")
        yield from _calls(row, name, config)
    except _FAULTS as error:
        yield Bad(_why(error))


_FAULTS = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError)


def _attempt(make: Callable[..., Trace], *args: Any) -> Trace | Bad:
    """One call of several on a line: its fault is its own."""
    try:
        return make(*args)
    except _FAULTS as error:
        return Bad(_why(error))


def _why(error: Exception) -> str:
    """The reason in one line. Other people's rows have shapes nobody foresaw: those are named by what broke."""
    if isinstance(error, ValidationError):
        return reason(error)
    text = str(error).partition("\n")[0]
    return (
        text if type(error) is ValueError else f"a shape nobody expects here ({type(error).__name__}: {text})"
    )


def _calls(row: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Found]:
    columns = config.columns
    if columns.input or columns.completion:
        yield _mapped(row, name, columns)
    elif is_export(row):
        for span in spans(row):
            if isinstance(span, Other | Bad):
                yield span
            else:
                yield _attempt(from_call, span["messages"], span["answer"], span["around"], name, columns)
    elif isinstance(row.get("completion"), str) and "messages" in row:
        yield _with_columns(Trace.model_validate({"id": name, **row}), row, columns)
    elif "messages" not in row and "feedback" in row and "id" in row and "response" not in row:
        changes = {key: row[key] for key in ("feedback", "outcome", "label") if key in row}
        Feedback.model_validate(changes["feedback"])
        yield Later(str(row["id"]), changes)
    else:
        yield from _chat(row, name, config)


def _chat(row: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Found]:
    request, response = _body(row.get("request")), _body(row.get("response"))
    if "choices" in row and "messages" in row:
        request, response = row, row
    if request is not None or response is not None:
        if not isinstance(request, Mapping) or not isinstance(response, Mapping):
            raise ValueError(f"a call needs both a request and a response; the keys are {', '.join(row)}")
        rest = {} if request is row else {k: v for k, v in row.items() if k not in ("request", "response")}
        yield from _completed(request, response, {**rest, **_common(request, response, rest)}, name, config)
    elif "messages" in row:
        yield from _conversation(row, name, config)
    else:
        raise ValueError(
            f"no format is known with the keys {', '.join(map(str, list(row)[:8])) or 'none'}; "
            "name the columns: [columns] input and completion"
        )


def _body(value: Any) -> Any:
    """A request or response, or the body in it (batch logs and proxies wrap it), JSON text decoded."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"request or response is text that is not JSON ({error.msg})") from None
    return value["body"] if isinstance(value, Mapping) and isinstance(value.get("body"), Mapping) else value


def _common(request: Mapping[str, Any], response: Mapping[str, Any], rest: Mapping[str, Any]) -> dict[str, Any]:
    """What request and response say of the call itself; what the line says comes first."""
    found: dict[str, Any] = {
        "id": rest.get("id") or response.get("id"),
        "model": rest.get("model") or response.get("model") or request.get("model"),
        "usage": response.get("usage"),
    }
    if not any(key in rest for key in _TIMES):
        found["time"] = response.get("created", request.get("time"))
    if isinstance(request.get("metadata"), Mapping) and "metadata" not in rest:
        found["metadata"] = request["metadata"]
    return {key: value for key, value in found.items() if value is not None}


def _completed(
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    around: Mapping[str, Any],
    name: str,
    config: ImportConfig,
) -> Iterator[Found]:
    if response.get("error"):
        error = response["error"]
        raise ValueError(
            f"the response is an error: {error.get('message', error) if isinstance(error, Mapping) else error}"
        )
    choices = response.get("choices")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise ValueError("the response has no choices")
    for number, choice in enumerate(choices):
        answer = choice.get("message") if isinstance(choice, Mapping) else None
        if not isinstance(answer, Mapping):
            yield Bad("a choice has no message (a chunk of a stream is not a call)")
            continue
        part = {**around, "finish_reason": choice.get("finish_reason")}
        if number:
            part["id"] = f"{around.get('id', name)}#{number}"
        yield _attempt(from_call, request.get("messages"), answer, part, name, config.columns)


def _conversation(row: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Found]:
    messages = row["messages"]
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages: a list of chat messages is needed, this is {_kind(messages)}")
    answers = [
        i
        for i, m in enumerate(messages)
        if i and isinstance(m, Mapping) and _ROLES.get(str(m.get("role")), m.get("role")) == "assistant"
    ]
    if not answers:
        raise ValueError("no assistant message that answers something")
    around = {key: value for key, value in row.items() if key != "messages"}
    around.setdefault("id", row.get("conversation_id", name))
    if len(answers) > 1 and config.turns == "all":
        around.setdefault("cluster", str(around["id"]))  # turns of one conversation belong together
    for i in answers if config.turns == "all" else answers[-1:]:
        part = (
            around
            if i == answers[-1]
            else {k: v for k, v in around.items() if k not in ("label", "outcome", "feedback")}
        )
        part = {**part, "id": f"{around['id']}#{i}"} if len(answers) > 1 else part
        yield _attempt(from_call, messages[:i], messages[i], part, name, config.columns)


def from_call(
    messages: Any, answer: Mapping[str, Any], around: Mapping[str, Any], name: str, columns: Columns
) -> Trace:
    """The Trace of a chat: what went in, the assistant's message, and whatever else the log has on the call.

    Raises:
        ValueError: no messages, a role or a kind of content nobody knows, an answer without text or tool calls.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError("no messages went in")
    chat = tuple(_message(m) for m in messages)
    completion = text_of(answer.get("content"))
    meta = {k: v for k, v in around.items() if k not in ("id", "metadata", *_OWN, *_TIMES) and v is not None}
    meta |= around["metadata"] if isinstance(around.get("metadata"), Mapping) else {}
    tools = answer.get("tool_calls")
    if tools:
        meta["tool_calls"] = tools
    elif not completion:
        raise ValueError("the answer has neither text nor tool calls")
    fields = {key: around[key] for key in _OWN if around.get(key) is not None}
    for key in ("model", "version", "label", "outcome", "customer", "cluster"):
        if isinstance(fields.get(key), int | float):
            fields[key] = str(fields[key])
    if "documents" in fields:
        fields["documents"] = _documents(fields["documents"])
    time = next((around[key] for key in _TIMES if around.get(key) is not None), None)
    trace = Trace.model_validate(
        {
            "id": str(around.get("id") or name),
            "time": _time(time),
            "messages": chat,
            "completion": completion,
            "meta": meta,
            **fields,
        }
    )
    return _with_columns(trace, {**around, "messages": messages}, columns)


def _message(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"a message is an object with role and content, this is {_kind(value)}")
    role = _ROLES.get(str(value.get("role")), value.get("role"))
    if role not in _KNOWN_ROLES:
        raise ValueError(f"a message with the role {role!r}; known: {', '.join(sorted(_KNOWN_ROLES))}")
    message: dict[str, Any] = {"role": role, "content": text_of(value.get("content"))}
    for key in ("tool_calls", "tool_call_id", "name"):
        if value.get(key):
            message[key] = value[key]
    return message


def text_of(content: Any) -> str:
    """The text of a message's content: text, nothing, or a list of text parts.

    Raises:
        ValueError: a part that is not text, such as an image.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(_part(part) for part in content)
    raise ValueError(f"content is text or a list of parts, this is {_kind(content)}")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else _kind(part)
    if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
        raise ValueError(f"a message has a part of type {kind!r}: only text is read")
    return str(part["text"])


def _documents(value: Any) -> list[dict[str, Any]]:
    if value is None or value == "":
        return []
    items = [value] if isinstance(value, str | Mapping) else value
    documents = []
    for number, item in enumerate(items, 1):
        if isinstance(item, Mapping):
            text = next((item[key] for key in ("text", "content", "page_content") if key in item), None)
            documents.append({"id": str(item.get("id", f"d{number}")), "text": text})
        else:
            documents.append({"id": f"d{number}", "text": item})
    return documents


def _mapped(row: Mapping[str, Any], name: str, columns: Columns) -> Trace:
    """A row in a shape of its own, by the column mapping; columns that are not mapped go into `meta`."""
    asked, answered = _need(row, columns.input, "input"), _need(row, columns.completion, "completion")
    if isinstance(asked, str) and asked.lstrip().startswith('[{"'):
        asked = _body(asked)
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
        messages=tuple(_message(m) for m in chat),
        completion=_text(answered, columns.completion),
        meta=meta,
    )
    return _with_columns(trace, row, columns)


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


def _with_columns(trace: Trace, row: Mapping[str, Any], columns: Columns) -> Trace:
    """The trace with the mapped columns on top."""
    found: dict[str, Any] = {}
    for field in ("id", "model", "version", "label", "outcome", "customer", "cluster"):
        column = getattr(columns, field)
        if column and (value := at(row, column)) not in (None, ""):
            found[field] = value if isinstance(value, str) else dumps(value)
    if columns.time:
        found["time"] = _time(at(row, columns.time))
    if columns.documents:
        found["documents"] = _documents(at(row, columns.documents))
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


def _time(value: Any) -> Any:
    """Seconds since 1970; larger numbers are milli-, micro- or nanoseconds."""
    if value in (None, ""):
        return None
    if hasattr(value, "isoformat"):  # a date out of a Parquet file
        return value.isoformat()
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    while isinstance(value, int | float) and abs(value) > 1e11:
        value /= 1000
    return value


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


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
