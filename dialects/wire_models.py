"""Requests as pydantic models: a parameter is honoured, accepted since it asks for nothing, or refused by name.

The one idea: what a dialect's model declares is honoured; of all else `NEUTRAL` has the values that ask for
nothing, and `HINTS` the names that change no answer. Null stands for a parameter that is not given.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic_core import from_json

from vertigym.core.bounds import MOST_LEVELS, is_too_deep
from vertigym.core.files import dumps
from vertigym.core.types import Message
from vertigym.dialects.chat_call import RefusedError, unsupported

M = TypeVar("M", bound=BaseModel)
MOST_MESSAGES = 1000
_MESSAGE_KEYS = set(Message.__annotations__)


class WireModel(BaseModel):
    """A part of a request: JSON types are not converted, and null is not given."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)
    NEUTRAL: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    HINTS: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, request: Any) -> Any:
        if not isinstance(request, dict):
            return request
        return {name: value for name, value in request.items() if value is not None}

    def refuse_rest(self, within: str = "") -> None:
        """
        Raises:
            RefusedError: it asks for something that is not done here; names it.
        """
        for name, value in (self.model_extra or {}).items():
            if name not in self.HINTS and value not in self.NEUTRAL.get(name, ()):
                raise unsupported(within + name)


def request_json(body: bytes) -> Any:
    """The JSON in a request's body.

    Raises:
        RefusedError: none, nested too deeply, or a number that no record can hold.
    """
    try:
        value = from_json(body, allow_inf_nan=False)
        dumps(value)  # fails on 1e999
    except ValueError as error:
        raise RefusedError(400, f"Invalid JSON: {error}") from None
    if is_too_deep(value):
        raise RefusedError(400, f"Invalid JSON: nested more than {MOST_LEVELS} levels deep")
    return value


def validated(model: type[M], value: Any) -> M:
    """A value as a model.

    Raises:
        RefusedError: where, and what is wrong.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        param = str(fault["loc"][0])[:100] if fault["loc"] else None
        raise RefusedError(400, f"{where}: {message}"[:300] if where else message, param=param) from None


def plain_message(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates know it: what is null or empty left out, parts as one text, `developer` (OpenAI's
    newer name) as `system`."""
    if unknown := next((key for key, value in message.items() if value and key not in _MESSAGE_KEYS), None):
        raise ValueError(f"{unknown!r} in a message is not supported")
    plain = {key: value for key, value in message.items() if key == "content" or value}
    if plain.get("role") == "developer":
        plain["role"] = "system"
    if plain.get("content") is None and "tool_calls" in plain:
        plain["content"] = ""
    if isinstance(plain.get("content"), list):
        plain["content"] = joined_text(plain["content"], ("text",))
    return plain


def joined_text(parts: Sequence[Any], kinds: Sequence[str]) -> str:
    """Text parts as one text."""
    return "".join(_text(part, kinds) for part in parts)


def _text(part: Any, kinds: Sequence[str]) -> str:
    if not isinstance(part, dict) or part.get("type") not in kinds or not isinstance(part.get("text"), str):
        raise ValueError("only text can be read: a message has a part of another type")
    text: str = part["text"]
    return text


def function_tool(function: Any) -> dict[str, Any]:
    """A tool in OpenAI's form.

    Raises:
        ValueError: it is no function with a name.
    """
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("only tools of type 'function' are known, with a 'function' that has a name")
    if not isinstance(function.get("parameters") or {}, dict):
        raise ValueError("a function's parameters are a JSON schema")
    return {
        "type": "function",
        "function": {key: value for key, value in function.items() if value is not None},
    }
