"""The dialects by path, and which one a caller hears an error in."""

from collections.abc import Mapping
from typing import Protocol

from vertigym.dialects.completions_dialect import ChatCompletions
from vertigym.dialects.dialect import Dialect
from vertigym.dialects.messages_dialect import Messages
from vertigym.dialects.responses_dialect import Responses

COMPLETIONS, MESSAGES = ChatCompletions(), Messages()
DIALECTS: Mapping[str, Dialect] = {one.path: one for one in (COMPLETIONS, Responses(), MESSAGES)}


class Headers(Protocol):
    """A request's headers, whatever case their names are in."""

    def get(self, name: str, default: str, /) -> str:
        """The header's text."""
        ...


def dialect_of(path: str, headers: Headers) -> Dialect:
    """The dialect of a request, by its path or by a header that only Anthropic's clients send."""
    if found := DIALECTS.get(path):
        return found
    anthropic = path.startswith(MESSAGES.path + "/") or bool(headers.get("Anthropic-Version", ""))
    return MESSAGES if anthropic else COMPLETIONS


def models_json(name: str, version: str) -> dict[str, object]:
    """The one model there is, as both OpenAI's and Anthropic's clients list models."""
    model = {
        "id": name, "object": "model", "created": 0, "owned_by": "vertigym", "version": version,
        "type": "model", "display_name": name, "created_at": "1970-01-01T00:00:00Z", "lifecycle": "active",
    }  # fmt: skip
    return {"object": "list", "data": [model], "has_more": False, "first_id": name, "last_id": name}


def sent_key(headers: Headers) -> str:
    """The key that a request brings, in OpenAI's or in Anthropic's header."""
    scheme, _, given = headers.get("Authorization", "").partition(" ")
    return given.strip() if scheme.lower() == "bearer" else headers.get("X-Api-Key", "")
