"""Chats as items of OpenAI's Responses API, which NeMo Gym speaks, and back."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.chat_client import tool_call_text
from vertigym.core.types import Message


def input_items(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """An opening as `input`."""
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def opening_messages(asked: Any) -> list[dict[str, Any]]:
    """`input` as messages; a developer is a system here."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    roles = {"developer": "system"}
    return [
        {"role": roles.get(one["role"], one["role"]), "content": text_of_content(one["content"])}
        for one in asked
    ]


def text_of_content(content: Any) -> str:
    """A string, or the text of its parts."""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)


def flat_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """A tool of chat completions as Responses has it."""
    return {"type": "function", "strict": False, **tool["function"]}


def nested_tool(tool: Mapping[str, Any]) -> dict[str, Any]:
    """The other way round."""
    kept = ("name", "description", "parameters")
    return {"type": "function", "function": {key: tool.get(key) or "" for key in kept}}


def said(item: Mapping[str, Any]) -> str | None:
    """What the model wrote, as environments here read it: its words, or a call; None for anything else."""
    if item.get("type") == "function_call":
        return tool_call_text(str(item["name"]), str(item["arguments"]))
    if item.get("type", "message") == "message" and item.get("role") == "assistant":
        return text_of_content(item["content"])
    return None


def message_item(text: str) -> dict[str, Any]:
    """The model's words."""
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"id": "msg", "type": "message", "role": "assistant", "status": "completed", "content": [part]}


def call_items(call_id: str, name: str, arguments: Mapping[str, Any], output: str) -> list[dict[str, Any]]:
    """A call and what it answered."""
    written = json.dumps(arguments, ensure_ascii=False)
    call = {"type": "function_call", "id": call_id, "call_id": call_id, "name": name, "arguments": written}
    return [call, {"type": "function_call_output", "call_id": call_id, "output": output}]


def response(items: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A whole response of these items."""
    return {
        "id": "resp", "object": "response", "created_at": 0, "model": "policy", "output": list(items),
        "parallel_tool_calls": False, "tool_choice": "auto", "tools": [],
    }  # fmt: skip
