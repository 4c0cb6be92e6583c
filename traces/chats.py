"""Chats as logs have them, a request with its response or a conversation: the calls in them as Traces."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from vertigym.traces.columns import with_columns
from vertigym.traces.config import Columns, ImportConfig
from vertigym.traces.messages import decoded, documents, kind_of, message, role_of, seconds, text_of
from vertigym.traces.records import Trace, Unreadable, reason

_OWN = ("model", "version", "label", "outcome", "customer", "cluster", "feedback", "documents")
_TIMES = ("time", "timestamp", "created_at", "created")
FAULTS = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError)


def completed(row: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Trace | Unreadable]:
    """The calls of a request with its response: each choice is one."""
    request, response = decoded(row.get("request")), decoded(row.get("response"))
    if "choices" in row and "messages" in row:
        request, response = row, row
    if not isinstance(request, Mapping) or not isinstance(response, Mapping):
        raise ValueError(f"a call needs both a request and a response; the keys are {', '.join(row)}")
    rest = {} if request is row else {k: v for k, v in row.items() if k not in ("request", "response")}
    yield from _choices(request, response, {**rest, **_common(request, response, rest)}, name, config)


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


def _choices(
    request: Mapping[str, Any],
    response: Mapping[str, Any],
    around: Mapping[str, Any],
    name: str,
    config: ImportConfig,
) -> Iterator[Trace | Unreadable]:
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
            yield Unreadable("a choice has no message (a chunk of a stream is not a call)")
            continue
        part = {**around, "finish_reason": choice.get("finish_reason")}
        if number:
            part["id"] = f"{around.get('id', name)}#{number}"
        yield attempt(from_call, request.get("messages"), answer, part, name, config.columns)


def conversation(row: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Trace | Unreadable]:
    """The calls of a conversation: every answer of the assistant is one, or only the last."""
    messages = row["messages"]
    if not isinstance(messages, Sequence) or isinstance(messages, str):
        raise ValueError(f"messages: a list of chat messages is needed, this is {kind_of(messages)}")
    answers = [i for i, m in enumerate(messages) if i and isinstance(m, Mapping) and role_of(m) == "assistant"]
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
        yield attempt(from_call, messages[:i], messages[i], part, name, config.columns)


def from_call(
    messages: Any, answer: Mapping[str, Any], around: Mapping[str, Any], name: str, columns: Columns
) -> Trace:
    """The Trace of a chat: what went in, the assistant's message, and whatever else the log has on the call.

    Raises:
        ValueError: no messages, a role or a kind of content nobody knows, an answer without text or tool calls.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise ValueError("no messages went in")
    chat = tuple(message(m) for m in messages)
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
        fields["documents"] = documents(fields["documents"])
    time = next((around[key] for key in _TIMES if around.get(key) is not None), None)
    trace = Trace.model_validate(
        {
            "id": str(around.get("id") or name),
            "time": seconds(time),
            "messages": chat,
            "completion": completion,
            "meta": meta,
            **fields,
        }
    )
    return with_columns(trace, {**around, "messages": messages}, columns)


def attempt(make: Callable[..., Trace], *args: Any) -> Trace | Unreadable:
    """One call of several on a line: its fault is its own."""
    try:
        return make(*args)
    except FAULTS as error:
        return Unreadable(why(error))


def why(error: Exception) -> str:
    """The reason in one line. Other people's rows have shapes nobody foresaw: those are named by what broke."""
    if isinstance(error, ValidationError):
        return reason(error)
    text = str(error).partition("\n")[0]
    if type(error) is ValueError:
        return text
    return f"a shape nobody expects here ({type(error).__name__}: {text})"
