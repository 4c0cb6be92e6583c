"""What messages are made of, whoever's API wrote them: text, thinking, calls of tools, and their results.

Every vendor names the same four things in a way of its own. A part that is none of them (an image, a search
that the vendor ran) refuses its message by name: what is left out in silence is what a model is trained
without.

Sources: the message types of the SDKs openai, anthropic, google-genai, boto3 (Bedrock Converse), langchain-
core, the Vercel AI SDK, and OpenTelemetry's conventions for generative AI.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vertigym.core.files import dumps

_TEXTS = {"text", "input_text", "output_text", "refusal"}
_THOUGHTS = {"thinking", "reasoning", "reasoning_text", "summary_text", "thought", "reasoningContent"}
_CALLS = {
    "tool_use", "tool_call", "tool-call", "function_call", "functionCall", "toolUse", "custom_tool_call",
}  # fmt: skip
_RESULTS = {
    "tool_result", "tool_call_response", "tool-result", "function_call_output", "functionResponse",
    "function_response", "toolResult", "custom_tool_call_output",
}  # fmt: skip
_UNREADABLE_THOUGHTS = {"redacted_thinking"}  # encrypted: there is nothing to keep
_MARKS = {"step-start", "step-finish"}  # of the Vercel AI SDK
_CALL_IDS = ("call_id", "toolCallId", "toolUseId", "tool_use_id", "tool_call_id", "id")


@dataclass(slots=True)
class Content:
    """The content of one message. `calls` have OpenAI's form; a result is a `tool` message without its role."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def add(self, content: Any) -> None:
        """Text, one part, or a list of them.

        Raises:
            ValueError: a part of a kind that is not read.
        """
        if isinstance(content, str):
            self.texts.append(content)
        elif isinstance(content, Mapping):
            self._add_part(content)
        elif isinstance(content, Sequence):
            for part in content:
                self.add(part)
        else:
            raise ValueError(f"content is text or a list of parts, this is {kind_of(content)}")

    def _add_part(self, part: Mapping[str, Any]) -> None:
        part = _typed({key: value for key, value in part.items() if value is not None})
        kind = str(part.get("type"))
        if kind in _TEXTS:
            self.texts.append(_text(part, kind))
        elif kind in _THOUGHTS:
            self.thoughts.append(_thought(part))
        elif kind in _CALLS:
            self.add_call(part)
        elif kind in _RESULTS:
            self.results.append(_result(part))
        elif kind.startswith("tool-"):  # a call with its result, of the Vercel AI SDK's UI messages
            self.add_call({**part, "name": kind.removeprefix("tool-")})
            if "output" in part:
                self.results.append(_result(part))
        elif kind not in _UNREADABLE_THOUGHTS | _MARKS:
            raise ValueError(f"a message has a part of type {kind!r}: only text, thinking and tools are read")

    def add_call(self, call: Any) -> None:
        """A call of a tool, in any vendor's form; one that is here already (some logs write it twice) is not
        added.

        Raises:
            ValueError: it names no tool.
        """
        made = tool_call(call)
        if not made["id"] or all(made["id"] != known["id"] for known in self.calls):
            self.calls.append(made)


def what_part(value: Mapping[str, Any]) -> str | None:
    """What a part is, by its type, where it is no text: thought, call or result."""
    found = {"thought": _THOUGHTS | _UNREADABLE_THOUGHTS, "call": _CALLS, "result": _RESULTS}
    return next((what for what, kinds in found.items() if value.get("type") in kinds), None)


def tool_call(call: Any) -> dict[str, Any]:
    """A call of a tool in OpenAI's form: its arguments are JSON text.

    Raises:
        ValueError: it names no tool.
    """
    inside = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(inside, Mapping):
        raise ValueError(f"a call of a tool is an object, this is {kind_of(call)}")
    name = inside.get("name") or inside.get("toolName")
    if not isinstance(name, str):
        raise ValueError("a call of a tool without the tool's name")
    keys = ("arguments", "input", "args")
    given: Any = next((inside[key] for key in keys if inside.get(key) is not None), {})
    arguments = given if isinstance(given, str) else dumps(given)
    return {"id": _identity(call), "type": "function", "function": {"name": name, "arguments": arguments}}


def _typed(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part that names its type; Gemini and Bedrock have the type as the key of what is inside."""
    if "type" in part:
        return part
    if "text" in part:
        return {**part, "type": "thinking" if part.get("thought") is True else "text"}
    known = [key for key in part if key in _CALLS | _RESULTS | _THOUGHTS and isinstance(part[key], Mapping)]
    if len(known) != 1:
        raise ValueError(f"a message has a part of an unknown kind: its keys are {', '.join(part) or 'none'}")
    return {**part[known[0]], "type": known[0]}


def _text(part: Mapping[str, Any], kind: str) -> str:
    text = next((part[key] for key in ("text", "content", "refusal") if key in part), None)
    if not isinstance(text, str):
        raise ValueError(f"a part of type {kind!r} without its text")
    return text


def _thought(part: Mapping[str, Any]) -> str:
    keys = ("thinking", "reasoning", "text", "content", "summary", "reasoningText")
    found: Any = next((part[key] for key in keys if part.get(key)), "")
    if isinstance(found, Mapping):
        return _thought(found)
    return found if isinstance(found, str) else "\n".join(_thought(item) for item in found)


def _result(part: Mapping[str, Any]) -> dict[str, Any]:
    keys = ("content", "response", "result", "output")
    told: Any = next((part[key] for key in keys if part.get(key) is not None), "")
    made = {"tool_call_id": _identity(part), "name": part.get("name") or part.get("toolName")}
    return {"content": result_text(told), **{key: value for key, value in made.items() if value}}


def result_text(told: Any) -> str:
    """What a tool gave, as text; what is neither text nor parts of text is JSON.

    Raises:
        ValueError: an image, or another part that is not text.
    """
    if isinstance(told, str):
        return told
    if isinstance(told, Mapping) and set(told) == {"type", "value"}:  # of the Vercel AI SDK
        return result_text(told["value"])
    if (
        isinstance(told, list)
        and told
        and all(isinstance(p, Mapping) and {"type", "text"} & set(p) for p in told)
    ):
        inside = Content()
        inside.add(told)
        return "\n".join(inside.texts)
    if isinstance(told, list) and told and all(isinstance(p, Mapping) and set(p) == {"json"} for p in told):
        return "\n".join(dumps(p["json"]) for p in told)  # of Bedrock
    return dumps(told)


def _identity(part: Mapping[str, Any]) -> str:
    return str(next((part[key] for key in _CALL_IDS if part.get(key)), ""))


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
