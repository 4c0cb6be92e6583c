"""From what went in and what came out, in any API's form, to calls.

A tracing tool logs two values and does not say of which API they are: a request, a list of messages or plain
text went in; a response, a message or plain text came out. They are known by what is in them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from vertigym.traces.apis.chat_api_form import Answer
from vertigym.traces.apis.registry import api_of, unwrapped, whole
from vertigym.traces.columns import with_columns
from vertigym.traces.config import ImportConfig
from vertigym.traces.facts import facts
from vertigym.traces.messages import chat, documents, is_chat, is_message, opened
from vertigym.traces.parts import kind_of
from vertigym.traces.records import Trace, Unreadable, reason
from vertigym.traces.requests import asked, is_request, offered_tools

FAULTS = (ValueError, TypeError, AttributeError, KeyError, IndexError, OverflowError, RecursionError)
_IDS = ("id", "responseId", "response_id", "custom_id", "key")
_WRAPPERS = ("output", "message", "messages", "response", "completion", "content", "text", "answer")
_SEEN = frozenset({"id", "metadata", "request", "response", "messages", "choices"})


def exchanges(
    given: Any, told: Any, around: Mapping[str, Any], name: str, config: ImportConfig
) -> Iterator[Trace | Unreadable]:
    """The calls of one exchange: each answer is one. `around` is what the log says of it; the response and then
    the request are asked for what it leaves out.

    Raises:
        ValueError: what went in or came out is of no form known here.
    """
    request, response = unwrapped(given), whole(told)
    messages, answers = went_in(request), list(came_out(response))
    sources = [source for source in (response, request) if isinstance(source, Mapping)]
    known = {**_common(sources), **around}
    tools = offered_tools(request) if isinstance(request, Mapping) else []
    known |= {"tools": tools} if tools and "tools" not in known else {}
    for number, (answer, more) in enumerate(answers):
        part = {**known, **{key: value for key, value in more.items() if value is not None}}
        if number:
            part["id"] = f"{known.get('id', name)}#{number}"
        yield attempt(from_call, messages, answer, part, sources, name, config)


def went_in(given: Any) -> list[dict[str, Any]]:
    """The messages that went in: of a request, a list of messages (or one such list in a list), or a text.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(given, list) and len(given) == 1 and is_chat(given[0]):
        given = given[0]  # LangChain writes a batch of one
    if isinstance(given, str) and given:
        return [{"role": "user", "content": given}]
    if isinstance(given, list):
        return list(chat(given))
    if isinstance(given, Mapping) and is_request(given):
        inner = given.get("messages")
        if isinstance(inner, list) and len(inner) == 1 and is_chat(inner[0]):
            given = {**given, "messages": inner[0]}
        return asked(given)
    if is_message(given):
        return list(chat([given]))
    if isinstance(given, Mapping) and any(given.get(key) for key in ("prompt", "input", "contents")):
        return asked(given)
    raise ValueError(f"what went in is no request, no messages and no text: it is {_shape(given)}")


def came_out(told: Any) -> Iterator[Answer]:
    """The answers that came out: of a response, a message, a list that ends in one, or a text.

    Raises:
        ValueError: it is none of these, or an error.
    """
    api = api_of(told)
    if isinstance(told, Mapping) and told.get("error"):
        error = told["error"]
        raise ValueError(
            f"the response is an error: {error.get('message', error) if isinstance(error, Mapping) else error}"
        )
    if api is not None:
        yield from api.answers(told)
    elif isinstance(told, str) and told:
        yield {"content": told}, {}
    elif is_message(told):
        yield opened(told), {}
    elif isinstance(told, list) and told and is_message(told[-1]):
        yield opened(told[-1]), {}
    elif isinstance(told, Mapping) and told.get("generations"):
        yield from _generations(told["generations"])
    elif isinstance(told, Mapping) and (inside := _inside(told)) is not None:
        yield from came_out(inside)
    else:
        raise ValueError(f"what came out is no response, no message and no text: it is {_shape(told)}")


def _generations(lists: Any) -> Iterator[Answer]:
    """LangChain's LLMResult: for each prompt a list of generations."""
    if len(lists) != 1 and isinstance(lists[0], list):
        raise ValueError(
            f"a batch of {len(lists)} prompts in one run: which answers belong to which is not read"
        )
    for one in lists[0] if isinstance(lists[0], list) else lists:
        info = one.get("generation_info") or {}
        said = opened(one["message"]) if one.get("message") else {"content": one.get("text")}
        yield said, {"finish_reason": info.get("finish_reason")}


def _inside(told: Mapping[str, Any]) -> Any:
    """The answer in a wrapper that has nothing else to say."""
    keys = [key for key in _WRAPPERS if told.get(key)]
    return told[keys[0]] if len(keys) == 1 else None


def from_call(
    messages: Sequence[Mapping[str, Any]],
    answer: Mapping[str, Any],
    around: Mapping[str, Any],
    sources: list[Mapping[str, Any]],
    name: str,
    config: ImportConfig,
) -> Trace:
    """The Trace of a chat: what went in (in our form), the assistant's message, and whatever else the log has
    on the call.

    Raises:
        ValueError: no messages, a role or a kind of content nobody knows, an answer without text or tool calls.
    """
    if not answer:
        raise ValueError("a choice has no message (a chunk of a stream is not a call)")
    if not any(value for key, value in answer.items() if key not in ("role", "from", "type")):
        raise ValueError("the answer has neither text nor tool calls")
    said = chat([{**answer, "role": "assistant"} if "from" not in answer else answer])[-1]
    if not said["content"] and not said.get("tool_calls"):
        raise ValueError("the answer has neither text nor tool calls")
    metadata = [source.get("metadata") for source in (around, *sources)]
    found, used = facts(around, *sources, *metadata)
    if "documents" in found:
        found["documents"] = documents(found["documents"])
    meta = {k: v for k, v in around.items() if k not in _SEEN | used and v is not None}
    meta |= next((dict(one) for one in metadata if isinstance(one, Mapping)), {})
    meta |= {key: said[key] for key in ("tool_calls", "reasoning_content", "weight") if key in said}
    fields = {
        "id": str(around.get("id") or name),
        "messages": tuple(messages),
        "completion": said["content"],
        **found,
    }
    trace = Trace.model_validate({**fields, "meta": meta})
    return with_columns(trace, {**around, "messages": messages}, config.columns)


def _common(sources: list[Mapping[str, Any]]) -> dict[str, Any]:
    """What a response has of the call itself."""
    made = {"id": next((s[key] for s in sources[:1] for key in _IDS if s.get(key)), None)}
    usage = [s[key] for s in sources[:1] for key in ("usage", "usageMetadata", "usage_metadata") if s.get(key)]
    made["usage"] = usage[0] if usage else None
    return {key: value for key, value in made.items() if value is not None}


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


def _shape(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(str, list(value)[:8])) or 'none'}"
    return kind_of(value)
