"""Chat messages, documents and times, out of the shapes in which logs have them."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertigym.traces.parts import Content, kind_of, result_text, tool_call, what_part

_ROLES = {
    "developer": "system", "function": "tool", "observation": "tool", "ipython": "tool", "tool_result": "tool",
    "human": "user", "ai": "assistant", "model": "assistant", "gpt": "assistant", "bot": "assistant",
    "chatbot": "assistant", "function_call": "assistant",
    "SystemMessage": "system", "HumanMessage": "user", "AIMessage": "assistant", "AIMessageChunk": "assistant",
    "ToolMessage": "tool", "FunctionMessage": "tool",
}  # fmt: skip
_KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})
_CONTENTS = ("content", "parts", "value", "text")
_THINKING = ("reasoning_content", "reasoning", "thinking")


def role_of(value: Mapping[str, Any]) -> Any:
    """The role of a message, in the words of today; None where it has none."""
    named = opened(value)
    role = next((named[key] for key in ("role", "from", "type") if named.get(key)), None)
    return _ROLES.get(str(role), role)


def is_message(value: Any) -> bool:
    """Whether a JSON value is a chat message."""
    return isinstance(value, Mapping) and role_of(value) in _KNOWN_ROLES


def is_chat(value: Any) -> bool:
    """Whether a JSON value is a list of chat messages."""
    return isinstance(value, list) and bool(value) and all(map(is_message, value))


def opened(value: Mapping[str, Any]) -> Mapping[str, Any]:
    """A message out of what wraps it: LangChain's two serialisations, OpenInference's `message`, and the
    items of OpenAI's Responses that are a part without a message."""
    if value.get("lc") and isinstance(value.get("kwargs"), Mapping):
        return {"role": (value.get("id") or [""])[-1], **value["kwargs"]}
    if set(value) == {"message"} and isinstance(value["message"], Mapping):
        return dict(value["message"])
    if "role" in value or "from" in value:
        return value
    if isinstance(value.get("data"), Mapping) and isinstance(value.get("type"), str):
        return {**value["data"], "role": value["type"]}
    kind = what_part(value)
    return value if kind is None else {"role": "tool" if kind == "result" else "assistant", "content": [value]}


def chat(messages: Any) -> tuple[dict[str, Any], ...]:
    """A list of messages in our form; results of tools become messages of their own.

    Raises:
        ValueError: one that is none, with its place in the list.
    """
    if isinstance(messages, str | Mapping) or not isinstance(messages, Sequence) or not messages:
        raise ValueError("no messages went in")
    made: list[dict[str, Any]] = []
    for number, value in enumerate(messages):
        try:
            made += message(value)
        except ValueError as error:
            raise ValueError(f"messages[{number}]: {error}") from None
    return tuple(made)


def message(value: Any) -> Iterator[dict[str, Any]]:
    """A chat message in our form, after the results of tools that stand in it.

    Raises:
        ValueError: no message, a role nobody knows, content that is not text, or none at all.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a message is an object with role and content, this is {kind_of(value)}")
    role, value = role_of(value), opened(value)
    if role not in _KNOWN_ROLES:
        raise ValueError(f"a message with the role {role!r}; known: {', '.join(sorted(_KNOWN_ROLES))}")
    found = content_of(value, role)
    yield from ({"role": "tool", **result} for result in found.results)
    if found.results and not (found.texts or found.calls or found.thoughts):
        return
    made: dict[str, Any] = {"role": role, "content": ("" if role == "assistant" else "\n").join(found.texts)}
    made |= {"tool_calls": found.calls} if found.calls else {}
    made |= {"reasoning_content": "\n".join(found.thoughts)} if any(found.thoughts) else {}
    kept = ("tool_call_id", "name", "weight")
    yield made | {key: value[key] for key in kept if value.get(key) not in (None, "")}


def content_of(value: Mapping[str, Any], role: str = "assistant") -> Content:
    """The content of a message, wherever its form has it.

    Raises:
        ValueError: there is none, or two that differ.
    """
    if value.get("from") == "function_call":
        return Content(calls=[tool_call(decoded(value.get("value")))])
    found = _written(value, role)
    extra = value.get("additional_kwargs")
    calls = value.get("tool_calls") or (extra.get("tool_calls") if isinstance(extra, Mapping) else None) or ()
    for call in [*calls, *([value["function_call"]] if value.get("function_call") else [])]:
        found.add_call(call)
    if isinstance(value.get("refusal"), str):
        found.texts.append(value["refusal"])
    for thought in (value.get(key) for key in _THINKING):
        if isinstance(thought, str) and thought and thought not in found.thoughts:
            found.thoughts.append(thought)
    if not (found.texts or found.thoughts or found.calls or found.results):
        raise ValueError(f"a message without content; its keys are {', '.join(value)}")
    return found


def _written(value: Mapping[str, Any], role: str) -> Content:
    """What stands under the keys for content; several are read when they say the same."""
    readings: dict[str, Content] = {}
    for content in (value[key] for key in _CONTENTS if value.get(key) is not None):
        reading = Content()
        reading.add(result_text(content) if role == "tool" and isinstance(content, Mapping) else content)
        readings.setdefault("".join(reading.texts), reading)
    said = {text: reading for text, reading in readings.items() if text or reading != Content(texts=[""])}
    if len(said) > 1:
        raise ValueError(f"a message with two contents that differ; its keys are {', '.join(value)}")
    return next(iter(said.values()), next(iter(readings.values()), Content()))


def documents(value: Any) -> list[dict[str, Any]]:
    """Documents with ids: out of one text, several, or objects with a text and perhaps an id."""
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


def seconds(value: Any) -> Any:
    """Seconds since 1970; larger numbers are milli-, micro- or nanoseconds."""
    if value in (None, ""):
        return None
    if isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value
    while isinstance(value, int | float) and abs(value) > 1e11:
        value /= 1000
    return value


def decoded(value: Any) -> Any:
    """JSON text as its value where that is an object or a list; anything else as it is."""
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            inside = json.loads(value)
        except (json.JSONDecodeError, RecursionError):
            return value
        return inside if isinstance(inside, dict | list) else value
    return value
