"""Anthropic's messages: content blocks, which a stream opens, grows and closes by their index."""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from vertigym.traces.apis.chat_api_form import Answer, Body, ChatApi

_GROWS = {"text_delta": "text", "thinking_delta": "thinking", "signature_delta": "signature"}


def _answers(response: Body) -> Iterator[Answer]:
    if not response.get("content"):
        raise ValueError(f"the response has no content; it stopped for {response.get('stop_reason')}")
    yield {"role": "assistant", "content": response["content"]}, {"finish_reason": response.get("stop_reason")}


def _join(chunks: Sequence[Body]) -> dict[str, Any]:
    response: dict[str, Any] = {}
    blocks: dict[int, dict[str, Any]] = {}
    for event in chunks:
        kind = event.get("type")
        if kind == "message_start":
            response = dict(event["message"])
        elif kind == "content_block_start":
            blocks[event["index"]] = {**event["content_block"], "json": ""}
        elif kind == "content_block_delta":
            _grow(blocks[event["index"]], event["delta"])
        elif kind == "message_delta":
            response |= event["delta"]
            response["usage"] = {**(response.get("usage") or {}), **(event.get("usage") or {})}
    if not response.get("stop_reason"):
        raise ValueError("a stream that was cut off: no event message_delta with a stop_reason")
    return {**response, "content": [_closed(blocks[i]) for i in sorted(blocks)]}


def _grow(block: dict[str, Any], delta: Body) -> None:
    kind = str(delta.get("type"))
    if kind == "input_json_delta":
        block["json"] += delta.get("partial_json") or ""
    elif key := _GROWS.get(kind):
        block[key] = (block.get(key) or "") + delta[key]


def _closed(block: dict[str, Any]) -> dict[str, Any]:
    grown = block.pop("json")
    return {**block, "input": json.loads(grown)} if grown else block


API = ChatApi(
    "Anthropic messages",
    lambda body: body.get("type") == "message" and isinstance(body.get("content"), list),
    _answers,
    lambda chunk: chunk.get("type") in ("message_start", "content_block_start", "content_block_delta", "ping"),
    _join,
)
