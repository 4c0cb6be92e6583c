"""OpenAI's Responses: the output is a list of items (a message, a call of a tool, thinking): one answer
together."""

from collections.abc import Iterator, Sequence
from typing import Any

from vertigym.traces.apis.chat_api_form import Answer, Body, ChatApi
from vertigym.traces.messages import is_message
from vertigym.traces.parts import what_part


def _answers(response: Body) -> Iterator[Answer]:
    parts: list[Any] = []
    for item in response.get("output") or ():
        if item.get("type") == "message" and is_message(item):
            content = item.get("content") or []
            parts += [content] if isinstance(content, str) else content
        elif what_part(item) in ("call", "thought"):
            parts.append(item)
        else:
            raise ValueError(f"the response has an item of type {item.get('type')!r}: it is not read")
    if not parts:
        raise ValueError(f"the response has no output; its status is {response.get('status')}")
    yield {"role": "assistant", "content": parts}, {"finish_reason": response.get("status")}


def _join(chunks: Sequence[Body]) -> dict[str, Any]:
    """The event that ends the stream has the whole response."""
    for event in reversed(chunks):
        if event.get("type") in ("response.completed", "response.incomplete", "response.failed"):
            return dict(event["response"])
    raise ValueError("a stream that was cut off: no event response.completed")


API = ChatApi(
    "OpenAI Responses",
    lambda body: (
        "choices" not in body and (body.get("object") == "response" or isinstance(body.get("output"), list))
    ),
    _answers,
    lambda chunk: str(chunk.get("type")).startswith("response."),
    _join,
)
