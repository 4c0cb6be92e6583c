"""Chat messages, documents and times, out of the shapes in which logs have them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

_ROLES = {"developer": "system", "function": "tool", "human": "user", "ai": "assistant", "model": "assistant"}
_KNOWN_ROLES = frozenset({"system", "user", "assistant", "tool"})


def role_of(value: Mapping[str, Any]) -> Any:
    """The role of a message, in the words of today."""
    return _ROLES.get(str(value.get("role")), value.get("role"))


def message(value: Any) -> dict[str, Any]:
    """A chat message in our form.

    Raises:
        ValueError: no message, a role nobody knows, or content that is not text.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"a message is an object with role and content, this is {kind_of(value)}")
    role = role_of(value)
    if role not in _KNOWN_ROLES:
        raise ValueError(f"a message with the role {role!r}; known: {', '.join(sorted(_KNOWN_ROLES))}")
    message: dict[str, Any] = {"role": role, "content": text_of(value.get("content"))}
    for key in ("tool_calls", "tool_call_id", "name"):
        if value.get(key):
            message[key] = value[key]
    return message


def text_of(content: Any) -> str:
    """The text of a message's content: text, nothing, or a list of text parts.

    Raises:
        ValueError: a part that is not text, such as an image.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence):
        return "\n".join(_part(part) for part in content)
    raise ValueError(f"content is text or a list of parts, this is {kind_of(content)}")


def _part(part: Any) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
    if kind not in ("text", "input_text", "output_text") or not isinstance(part.get("text"), str):
        raise ValueError(f"a message has a part of type {kind!r}: only text is read")
    return str(part["text"])


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
    """A request or response, or the body in it (batch logs and proxies wrap it), JSON text decoded."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f"request or response is text that is not JSON ({error.msg})") from None
    return value["body"] if isinstance(value, Mapping) and isinstance(value.get("body"), Mapping) else value


def kind_of(value: Any) -> str:
    """What a JSON value is, in words."""
    names = {dict: "an object", list: "a list", str: "text", type(None): "null", bool: "true or false"}
    return names.get(type(value), "a number")
