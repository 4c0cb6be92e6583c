"""OpenAI's chat completions, and whatever speaks like them (vLLM, LiteLLM, Azure, Mistral, …)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vertigym.traces.apis.chat_api_form import Answer, Body, ChatApi, merged


def _answers(response: Body) -> Iterator[Answer]:
    choices = response.get("choices")
    if not isinstance(choices, Sequence) or isinstance(choices, str) or not choices:
        raise ValueError("the response has no choices")
    for choice in choices:
        message = choice.get("message") if isinstance(choice, Mapping) else None
        if message is None and isinstance(choice, Mapping) and isinstance(choice.get("text"), str):
            message = {"content": choice["text"]}  # of a text completion
        yield (
            message or {},
            {"finish_reason": choice.get("finish_reason")} if isinstance(choice, Mapping) else {},
        )


def _join(chunks: Sequence[Body]) -> dict[str, Any]:
    """The deltas of each choice put together; calls of tools grow by their index."""
    choices: dict[int, dict[str, Any]] = {}
    for part in (part for chunk in chunks for part in chunk.get("choices") or ()):
        choice = choices.setdefault(part.get("index") or 0, {"message": {"role": "assistant", "content": None}})
        _grow(choice["message"], part.get("delta") or {})
        if part.get("finish_reason"):
            choice["finish_reason"] = part["finish_reason"]
    if not all(choice.get("finish_reason") for choice in choices.values()):
        raise ValueError("a stream that was cut off: no chunk has a finish_reason")
    return {**merged(chunks), "object": "chat.completion", "choices": [choices[i] for i in sorted(choices)]}


def _grow(message: dict[str, Any], delta: Body) -> None:
    for key in ("content", "refusal", "reasoning_content", "reasoning"):
        if delta.get(key):
            message[key] = (message.get(key) or "") + delta[key]
    calls = message.setdefault("tool_calls", []) if delta.get("tool_calls") else []
    for part in delta.get("tool_calls") or ():
        while len(calls) <= part.get("index", 0):
            calls.append({"type": "function", "function": {"name": "", "arguments": ""}})
        call, said = calls[part.get("index", 0)], part.get("function") or {}
        call["id"] = part.get("id") or call.get("id")
        for key in ("name", "arguments"):
            call["function"][key] += said.get(key) or ""


API = ChatApi(
    "OpenAI chat completions",
    lambda body: "choices" in body,
    _answers,
    lambda chunk: "chunk" in str(chunk.get("object")) and "choices" in chunk,
    _join,
)
