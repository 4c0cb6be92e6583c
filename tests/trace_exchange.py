"""The exchange that every vendor's log tells in `trace_vendors.py`: a system text, a question, a call of a tool, its
result, an answer."""

import json
from typing import Any

ANSWER, SYSTEM, QUESTION, RESULT, THOUGHT = (
    "shipping",
    "Sort.",
    "Where is it?",
    "sent on Monday",
    "It was sent.",
)
ARGUMENTS = {"order": 7}
SCHEMA = {"type": "object", "properties": {"order": {"type": "integer"}}}
TIME = 1767225600
CALL = {"id": "t1", "type": "function", "function": {"name": "find", "arguments": json.dumps(ARGUMENTS)}}
TOOL = {"type": "function", "function": {"name": "find", "description": "An order", "parameters": SCHEMA}}
CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": SYSTEM},
    {"role": "user", "content": QUESTION},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "t1", "content": RESULT},
]
Rows = list[dict[str, Any]]


def dumped(value: Any, **options: Any) -> Any:
    """A pydantic model as its JSON."""
    return value.model_dump(mode="json", **{"exclude_none": True, **options})
