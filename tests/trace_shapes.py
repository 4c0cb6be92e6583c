"""A made-up call in the forms that programs log it in, and lines that are no calls."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass
class Draft:
    """A call before it is written."""

    customer: int
    intent: str
    system: str
    body: list[str]  # sentences that may be changed
    fixed: list[str]  # sentences with personal data and decoys
    completion: str
    personal: list[tuple[str, str]]
    decoys: list[str]
    family: int

    @property
    def text(self) -> str:
        half = len(self.body) // 2 + 1
        return " ".join(filter(None, [*self.body[:half], *self.fixed, *self.body[half:]]))


def _messages(draft: Draft) -> list[dict[str, Any]]:
    return [{"role": "system", "content": draft.system}, {"role": "user", "content": draft.text}]


def _pair(draft: Draft, name: str, time: float) -> dict[str, Any]:
    message = {"role": "assistant", "content": draft.completion}
    return {
        "request": {"model": "large", "messages": _messages(draft), "temperature": 0},
        "response": {
            "id": name,
            "object": "chat.completion",
            "created": int(time),
            "model": "large-2026",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 90, "completion_tokens": 9},
        },
        "customer": f"shop-{draft.customer:02}",
    }


def _chat(draft: Draft, name: str, time: float) -> dict[str, Any]:
    chat = [*_messages(draft), {"role": "assistant", "content": draft.completion}]
    return {"id": name, "timestamp": time, "messages": chat, "customer": f"shop-{draft.customer:02}"}


def _served(draft: Draft, name: str, time: float) -> dict[str, Any]:
    return {
        "id": name,
        "time": time,
        "messages": _messages(draft),
        "completion": draft.completion,
        "model": "small",
        "version": "step-000050",
        "customer": f"shop-{draft.customer:02}",
    }


def _span(draft: Draft, name: str, time: float) -> dict[str, Any]:
    def parts(role: str, text: str) -> dict[str, Any]:
        return {"role": role, "parts": [{"type": "text", "content": text}]}

    def text(key: str, value: Any) -> dict[str, Any]:
        return {"key": key, "value": {"stringValue": value if isinstance(value, str) else json.dumps(value)}}

    chat = [
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.response.model", "large-2026"),
        text("gen_ai.response.id", name),
        text("user.id", f"shop-{draft.customer:02}"),
        text("gen_ai.system_instructions", [{"type": "text", "content": draft.system}]),
        text("gen_ai.input.messages", [parts("user", draft.text)]),
        text("gen_ai.output.messages", [{**parts("assistant", draft.completion), "finish_reason": "stop"}]),
    ]
    start = str(int(time * 1e9))
    spans = [
        {"name": "POST /reply", "spanId": "aa", "attributes": [text("http.route", "/reply")]},
        {"name": "chat large", "spanId": "bb", "startTimeUnixNano": start, "attributes": chat},
    ]
    resource = {"attributes": [text("service.name", "desk")]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}


SHAPES = (_pair, _chat, _served, _span)
BROKEN = {
    "torn": '{"request": {"messages": [{"role": "user", "content": "Hel',
    "error": '{"request": {"messages": [{"role": "user", "content": "Hi"}]}, "response": {"error": {"message": "overloaded"}}}',
    "no answer": '{"messages": [{"role": "user", "content": "Is anybody there?"}]}',
    "foreign": '{"level": "info", "msg": "worker started"}',
    "number": "17",
}
