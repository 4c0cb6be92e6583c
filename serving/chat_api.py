"""The wire format: the part of OpenAI's chat completions that a text model supports, and feedback."""

import time
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from vertigym.core.types import Completion, Message, StopReason
from vertigym.traces.records import Document


class ChatRequest(BaseModel):
    """A request. Unknown keys are ignored, as by OpenAI's server; unsupported keys that would change the answer
    are refused. `user` becomes the trace's customer, `metadata` its meta; `documents` (not OpenAI's) are the
    passages in the messages."""

    model_config = ConfigDict(extra="ignore")

    model: str
    messages: tuple[Message, ...] = Field(min_length=1, max_length=1000)
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int = 0
    n: Literal[1] = 1
    stream: bool = False
    stop: None = None
    tools: None = None
    response_format: None = None
    logprobs: Literal[False] | None = None
    user: str = Field("", max_length=200)
    metadata: dict[str, Any] = Field(default_factory=dict)
    documents: tuple[Document, ...] = ()

    @field_validator("messages", mode="before")
    @classmethod
    def _plain_text(cls, messages: Any) -> Any:
        """Content given as parts becomes their text."""
        if not isinstance(messages, list):
            return messages
        return [_with_text(message) if isinstance(message, dict) else message for message in messages]

    @property
    def limit(self) -> int | None:
        """The most tokens of the reply."""
        return self.max_completion_tokens or self.max_tokens


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
    return _head(id, request, version, "chat.completion") | {
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": completion.text},
                "finish_reason": _finish(completion),
            }
        ],
        "usage": {
            "prompt_tokens": completion.prompt_tokens,
            "completion_tokens": completion.completion_tokens,
            "total_tokens": completion.prompt_tokens + completion.completion_tokens,
        },
    }


def chunks(id: str, request: ChatRequest, completion: Completion, version: str) -> list[dict[str, Any]]:  # noqa: A002
    """The same as a stream: all of the text in one piece, since it is on record before any of it is sent."""
    head = _head(id, request, version, "chat.completion.chunk")
    said = {"index": 0, "delta": {"role": "assistant", "content": completion.text}, "finish_reason": None}
    end = {"index": 0, "delta": {}, "finish_reason": _finish(completion)}
    return [head | {"choices": [said]}, head | {"choices": [end]}]


def fault(message: str, kind: str = "invalid_request_error", code: str | None = None) -> dict[str, Any]:
    """An error as OpenAI's clients read it."""
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}


def _head(id: str, request: ChatRequest, version: str, kind: str) -> dict[str, Any]:  # noqa: A002
    created = int(time.time())
    return {"id": id, "object": kind, "created": created, "model": request.model, "system_fingerprint": version}


def _finish(completion: Completion) -> str:
    return "length" if completion.stop_reason is StopReason.LENGTH else "stop"


def _with_text(message: dict[str, Any]) -> dict[str, Any]:
    content = message.get("content")
    if not isinstance(content, list):
        return message
    if not all(isinstance(part, dict) and part.get("type") == "text" for part in content):
        raise ValueError("only text can be read: a message has a part of another type")
    return {**message, "content": "".join(str(part.get("text", "")) for part in content)}
