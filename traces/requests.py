"""Requests of all chat APIs: the messages that went in, the system text first, and the tools that were
offered."""

from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.traces.messages import chat, is_message
from vertigym.traces.parts import what_part

_SYSTEMS = ("system", "instructions", "systemInstruction", "system_instruction")
_CHATS = ("messages", "input", "contents", "prompt")
_SETTINGS = ("config", "params", "parameters", "generation_config")


def is_request(value: Any) -> bool:
    """Whether a JSON value is a request to a chat API."""
    return isinstance(value, Mapping) and any(isinstance(value.get(key), list) for key in _CHATS[:3])


def asked(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The messages of a request, in our form.

    Raises:
        ValueError: there are none, there are two chats, or one of the messages is none.
    """
    found = {key: request[key] for key in _CHATS if request.get(key) not in (None, [], "")}
    if len(found) > 1:
        raise ValueError(f"the request has several chats: {', '.join(found)}")
    if not found:
        raise ValueError("no messages went in")
    ((key, said),) = found.items()
    if isinstance(said, Mapping) or (key == "contents" and isinstance(said, list) and _are_parts(said)):
        said = [{"role": "user", "parts": said}]  # one content, or parts without one
    if isinstance(said, str):
        said = [{"role": "user", "content": said}]
    said = [{"role": "user", **m} if key == "contents" and isinstance(m, Mapping) else m for m in said]
    told = system_text(request)
    return joined_turns(chat([*([{"role": "system", **told}] if told else []), *said]), key == "input")


def _are_parts(contents: list[Any]) -> bool:
    """Gemini also takes the parts of one content for the contents."""
    return not any(isinstance(one, Mapping) and ("parts" in one or is_message(one)) for one in contents)


def system_text(request: Mapping[str, Any]) -> dict[str, Any] | None:
    """The system text of a request that has it beside the messages."""
    settings = [request[key] for key in _SETTINGS if isinstance(request.get(key), Mapping)]
    found = next((s[key] for s in (request, *settings) for key in _SYSTEMS if s.get(key)), None)
    if isinstance(found, Mapping) and "parts" in found:
        return {"parts": found["parts"]}
    return None if found is None else {"content": found}


def joined_turns(messages: Sequence[dict[str, Any]], items: bool) -> list[dict[str, Any]]:
    """Items of OpenAI's Responses: what the assistant thought, said and called in a row is one message."""
    made: list[dict[str, Any]] = []
    for message in messages:
        last = made[-1] if made else None
        if not items or last is None or last["role"] != "assistant" or message["role"] != "assistant":
            made.append(message)
            continue
        made[-1] = {**last, **message, "content": last["content"] + message["content"]}
        for key in ("tool_calls", "reasoning_content"):
            if both := [value[key] for value in (last, message) if value.get(key)]:
                made[-1][key] = both[0] + both[1] if len(both) > 1 else both[0]
    return made


def offered_tools(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The tools of a request, in OpenAI's form; those that the vendor runs itself are as they are."""
    settings = [request[key] for key in _SETTINGS if isinstance(request.get(key), Mapping)]
    given = next((s["tools"] for s in (request, *settings) if isinstance(s.get("tools"), list)), None)
    bedrock = request.get("toolConfig")
    given = (
        given or (bedrock.get("tools") if isinstance(bedrock, Mapping) else None) or request.get("functions")
    )
    return [made for tool in given or () if isinstance(tool, Mapping) for made in _tools(tool)]


def _tools(tool: Mapping[str, Any]) -> list[dict[str, Any]]:
    inside = tool.get("functionDeclarations") or tool.get("function_declarations")
    if inside:
        return [made for function in inside for made in _tools(function)]
    function = next((tool[key] for key in ("function", "toolSpec") if isinstance(tool.get(key), Mapping)), tool)
    keys = ("parameters", "input_schema", "inputSchema", "parametersJsonSchema", "parameters_json_schema")
    schema: Any = next((function[key] for key in keys if function.get(key)), None)
    if not isinstance(function.get("name"), str) or what_part(tool) or (schema is None and "type" in tool):
        return [dict(tool)]
    if isinstance(schema, Mapping) and set(schema) == {"json"}:
        schema = schema["json"]
    made = {"name": function["name"], "description": function.get("description"), "parameters": schema}
    return [{"type": "function", "function": {key: value for key, value in made.items() if value is not None}}]
