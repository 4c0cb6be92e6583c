"""All chat APIs, and the response that a log has: JSON, JSON text, in a body, or a stream that is put
together."""

import json
from collections.abc import Mapping
from typing import Any

from vertigym.traces.apis import anthropic_messages, bedrock, gemini, openai_chat, openai_responses
from vertigym.traces.apis.chat_api_form import ChatApi
from vertigym.traces.messages import decoded

APIS: tuple[ChatApi, ...] = tuple(
    module.API for module in (openai_chat, openai_responses, anthropic_messages, gemini, bedrock)
)
_BODIES = ("body", "inputBodyJson", "outputBodyJson", "message_body")


def unwrapped(value: Any) -> Any:
    """A request or a response: JSON text decoded, the body taken out of what a proxy or a batch puts around
    it."""
    value = decoded(value)
    for key in _BODIES if isinstance(value, Mapping) else ():
        inside = decoded(value.get(key))
        if isinstance(inside, Mapping | list):
            return inside
    return value


def whole(value: Any) -> Any:
    """A response; the chunks of a stream (a list, or lines of server-sent events) put together.

    Raises:
        ValueError: the stream ends before the answer does, or its chunks are of no API known here.
    """
    value = unwrapped(value)
    if isinstance(value, str) and "data:" in value:
        value = _events(value)
    if not isinstance(value, list) or not value or not all(isinstance(chunk, Mapping) for chunk in value):
        return value
    api = next((api for api in APIS if any(map(api.is_chunk, value))), None)
    return value if api is None else api.join(value)


def api_of(response: Any) -> ChatApi | None:
    """The API that such a response is of."""
    return next((api for api in APIS if isinstance(response, Mapping) and api.is_response(response)), None)


def _events(text: str) -> list[Any]:
    lines = (line.removeprefix("data:").strip() for line in text.splitlines() if line.startswith("data:"))
    return [json.loads(line) for line in lines if line and line != "[DONE]"]
