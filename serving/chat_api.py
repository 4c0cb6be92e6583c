"""What `vertigym serve` adds to OpenAI's requests: the passages that a call is about, and feedback."""

import time
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from vertigym.core.chat_wire import ChatRequest
from vertigym.traces.records import Document


class ServedRequest(ChatRequest):
    """`user` becomes the trace's customer, `metadata` its meta; `documents` (not OpenAI's) are the passages in
    the messages."""

    documents: tuple[Document, ...] = ()


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
