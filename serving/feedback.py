"""Feedback: what people say of an answer."""

import time
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


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
