"""Tool calls as text: how a policy writes one, how an environment reads one, how a tool is described.

    <tool_call>{"name": "read", "arguments": {"path": "shop/prices.py"}}</tool_call>

A bare or fenced JSON object will do. Reading takes time linear in the text, whatever the text.
"""

import json
from collections.abc import Mapping
from typing import Any

from vertigym.core.files import dumps
from vertigym.rewards.replies import json_in, strict_json

OPEN, CLOSE = "<tool_call>", "</tool_call>"
_KEYS = ("name", "arguments", "id", "type")
_LONGEST = 4 << 20  # characters of a call: it may bring a whole file


def tool(name: str, description: str, properties: Mapping[str, Any]) -> dict[str, Any]:
    """A tool as chat templates and endpoints want it described; every property (a JSON schema) is required."""
    parameters = {
        "type": "object",
        "properties": dict(properties),
        "required": list(properties),
        "additionalProperties": False,
    }
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


def tool_call(text: str) -> tuple[str, dict[str, Any]]:
    """The name and arguments of the tool call in `text`.

    Raises:
        ValueError: there is none or more than one, or it is not JSON of the right shape (says which).
    """
    if (count := text.count(OPEN, _end_of_first(text)) + 1) > 1:
        raise ValueError(f"{count} tool calls in one turn, none of which was run: write one a turn")
    try:
        call = _read(text)
    except ValueError as error:
        fault = f"the tool call is not JSON ({error})" if OPEN in text else "no tool call found"
        raise ValueError(f'{fault}: write {OPEN}{{"name": …, "arguments": {{…}}}}{CLOSE}') from None
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        raise ValueError('a tool call needs "name" (text) and "arguments" (an object)')
    if unknown := next((key for key in call if key not in _KEYS), None):
        raise ValueError(f'a tool call has "name" and "arguments", not {dumps(unknown[:40])}')
    if not isinstance(arguments := call.get("arguments", {}), dict):
        raise ValueError(f'"arguments" must be an object, not {dumps(arguments)[:40]}')
    return call["name"], arguments


def is_call(text: str) -> bool:
    """Whether the text means to call a tool, well written or not; any other text speaks to somebody."""
    return OPEN in text or text.lstrip().startswith(("{", "```"))


def write_call(name: str, /, **arguments: Any) -> str:
    """A tool call as a policy would write it."""
    return f"{OPEN}{json.dumps({'name': name, 'arguments': arguments}, ensure_ascii=False)}{CLOSE}"


def _end_of_first(text: str) -> int:
    """Where the first pair of tags ends; the end of the text where there is none."""
    end = text.find(CLOSE, text.find(OPEN)) if OPEN in text else -1
    return len(text) if end < 0 else end


def _read(text: str) -> Any:
    """The JSON in the first pair of tags, else in the last fence or the whole text."""
    start = text.find(OPEN) + len(OPEN)
    end = text.find(CLOSE, start)
    return strict_json(text[start:end], _LONGEST) if len(OPEN) <= start < end else json_in(text)
