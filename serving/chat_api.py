"""The wire format: the part of OpenAI's chat completions that a text model supports, and feedback.

What asks for something that is not done here is refused by name. What asks for nothing (null, an empty list of
tools, a penalty of 0) is accepted, whatever its name.
"""

import time
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vertigym.core.types import Completion, Message, StopReason
from vertigym.traces.records import Document

# Parameters that are not supported, with the values that ask for nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "modalities": (["text"],),
    "n": (1,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "stop": ([],),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (0, -1),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
}
# Parameters that change no answer.
_HINTS = {
    "parallel_tool_calls",
    "prediction",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "store",
}
_MESSAGE_KEYS = set(Message.__annotations__)


class StreamOptions(BaseModel):
    """`include_usage` ends a stream with a chunk of its usage."""

    include_usage: bool = False
    include_obfuscation: bool = False  # padding against eavesdroppers: one piece of text needs none


class ChatRequest(BaseModel):
    """A request. `user` becomes the trace's customer, `metadata` its meta; `documents` (not OpenAI's) are the
    passages in the messages."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    model: str
    messages: tuple[Message, ...] = Field(min_length=1, max_length=1000)
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int = 0
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str = Field("", max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)
    documents: tuple[Document, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, request: Any) -> Any:
        """Null stands for a parameter that is not given."""
        if not isinstance(request, dict):
            return request
        return {name: value for name, value in request.items() if value is not None}

    @field_validator("messages", mode="before")
    @classmethod
    def _plain(cls, messages: Any) -> Any:
        if not isinstance(messages, list):
            return messages
        return [_plain_message(message) if isinstance(message, dict) else message for message in messages]

    @field_validator("stream_options")
    @classmethod
    def _belong_to_a_stream(cls, options: StreamOptions | None, info: Any) -> StreamOptions | None:
        if options and not info.data.get("stream"):
            raise ValueError("only allowed with stream = true")
        return options

    @property
    def limit(self) -> int | None:
        """The most tokens of the reply."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def unsupported(self) -> str | None:
        """The name of a parameter that asks for something that is not done here."""
        extra = (self.model_extra or {}).items()
        return next((n for n, value in extra if n not in _HINTS and value not in _NEUTRAL.get(n, ())), None)


class FeedbackRequest(BaseModel):
    """What people say of the call `id`, or do with its reply; unknown keys are kept."""

    model_config = ConfigDict(extra="allow")

    id: str = Field(min_length=1, max_length=200)
    thumb: Literal["up", "down"] | None = None
    edit: str | None = None
    resolved: bool | None = None
    label: str | None = None
    outcome: str | None = None

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.model_dump(exclude_none=True, exclude={"id"}):
            raise ValueError("the feedback is empty: give thumb, edit, resolved, label or outcome")
        return self

    def row(self) -> dict[str, Any]:
        """The line that `vertigym traces import` joins to its call."""
        said = self.model_dump(mode="json", exclude_none=True, exclude={"id", "label", "outcome"})
        known = self.model_dump(exclude_none=True, include={"label", "outcome"})
        return {"id": self.id, "time": time.time(), "feedback": said, **known}


def reply(id: str, request: ChatRequest, completion: Completion, version: str) -> dict[str, Any]:  # noqa: A002
    """The response to a request; `system_fingerprint` is the model's version."""
    message = {"role": "assistant", "content": completion.text}
    return _head(id, request, version, "chat.completion") | {
        "choices": [_choice(message=message, finish_reason=_finish(completion))],
        "usage": _usage(completion),
    }


def chunks(id: str, request: ChatRequest, completion: Completion, version: str) -> list[dict[str, Any]]:  # noqa: A002
    """The same as a stream: all of the text in one piece, since it is on record before any of it is sent."""
    head = _head(id, request, version, "chat.completion.chunk")
    said = _choice(delta={"role": "assistant", "content": completion.text}, finish_reason=None)
    ended = _choice(delta={}, finish_reason=_finish(completion))
    if not (request.stream_options and request.stream_options.include_usage):
        return [head | {"choices": [said]}, head | {"choices": [ended]}]
    head |= {"usage": None}
    usage = {"choices": [], "usage": _usage(completion)}
    return [head | {"choices": [said]}, head | {"choices": [ended]}, head | usage]


def _head(id: str, request: ChatRequest, version: str, kind: str) -> dict[str, Any]:  # noqa: A002
    created = int(time.time())
    return {"id": id, "object": kind, "created": created, "model": request.model, "system_fingerprint": version}


def _choice(**parts: Any) -> dict[str, Any]:
    return {"index": 0, "logprobs": None, **parts}


def _usage(completion: Completion) -> dict[str, int]:
    return {
        "prompt_tokens": completion.prompt_tokens,
        "completion_tokens": completion.completion_tokens,
        "total_tokens": completion.prompt_tokens + completion.completion_tokens,
    }


def _finish(completion: Completion) -> str:
    return "length" if completion.stop_reason is StopReason.LENGTH else "stop"


def _plain_message(message: dict[str, Any]) -> dict[str, Any]:
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
        plain["content"] = "".join(map(_text, plain["content"]))
    return plain


def _text(part: Any) -> str:
    if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        raise ValueError("only text can be read: a message has a part of another type")
    text: str = part["text"]
    return text
