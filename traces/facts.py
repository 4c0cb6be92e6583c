"""Who called and what came of it: the fields of a Trace under the names that logs give them.

One table for all forms. What a form calls by a name that means something else elsewhere (LangSmith's
`session_id` is a project, Langfuse's `latency` is in seconds) its reader renames. `latency` and `rating`
alone say no unit and no scale, so they stay in `meta`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.traces.messages import seconds
from vertigym.traces.records import epoch

NAMES: dict[str, tuple[str, ...]] = {
    "customer": (
        "customer", "customer_id", "customerId", "user", "user_id", "userId", "end_user", "user.id",
        "enduser.id", "safety_identifier", "tenant", "tenant_id",
    ),
    "session": (
        "session", "session_id", "sessionId", "session.id", "conversation_id", "conversationId", "conversation",
        "thread_id", "threadId", "chat_id", "gen_ai.conversation.id",
    ),
    "time": (
        "time", "timestamp", "created_at", "createdAt", "created", "create_time", "createTime", "start_time",
        "startTime",
    ),
    "model": (
        "model", "model_name", "modelName", "model_id", "modelId", "llm.model_name",
        "gen_ai.response.model", "gen_ai.request.model", "ls_model_name",
    ),
    "version": ("version", "release", "deployment", "checkpoint"),
    "latency_s": ("latency_s", "latency_seconds", "duration_s", "duration_seconds", "response_time_s"),
    "cost": (
        "cost", "cost_usd", "total_cost", "totalCost", "response_cost", "calculatedTotalCost", "llm.cost.total",
        "gen_ai.usage.cost",
    ),
    "outcome": ("outcome", "resolution"),
    "label": ("label",),
    "cluster": ("cluster",),
    "feedback": ("feedback",),
    "documents": ("documents",),
}  # fmt: skip
_MILLISECONDS = (
    "latency_ms", "latencyMs", "duration_ms", "durationMs", "response_ms", "response_time_ms", "elapsed_ms",
)  # fmt: skip
_ENDS = ("end_time", "endTime", "completed_at", "completedAt", "ended_at")
_THUMBS = ("thumb", "thumbs", "vote", "liked", "user_feedback", "thumbs_up")
UP = frozenset(
    {"up", "+1", "1", "true", "yes", "good", "like", "liked", "positive", "thumbs_up", "thumbsup", "👍"}
)
DOWN = frozenset(
    {
        "down",
        "-1",
        "0",
        "false",
        "no",
        "bad",
        "dislike",
        "disliked",
        "negative",
        "thumbs_down",
        "thumbsdown",
        "👎",
    }
)
_TEXTS = ("customer", "session", "model", "version", "label", "outcome", "cluster")


def facts(*sources: Any) -> tuple[dict[str, Any], set[str]]:
    """The fields that some source has, the first source first, then the first name; and the names that were
    used.

    Raises:
        ValueError: a time that is none.
    """
    known = [source for source in sources if isinstance(source, Mapping)]
    found: dict[str, Any] = {}
    used: set[str] = set()
    for field, names in NAMES.items():
        for name, value in _values(known, names):
            value = _plain(value) if field in _TEXTS else value
            if value not in (None, "", [], {}):
                found[field] = seconds(value) if field == "time" else value
                used.add(name)
                break
    if "latency_s" not in found and (latency := _latency(known, found.get("time"))) is not None:
        found["latency_s"] = latency[0]
        used.add(latency[1])
    if "feedback" not in found:
        for name, value in _values(known, _THUMBS):
            if (thumb := thumb_of(value)) is not None:
                found["feedback"] = {"thumb": thumb}
                used.add(name)
                break
    return found, used


def thumb_of(value: Any) -> str | None:
    """Up or down, in whatever word; None where it is neither."""
    word = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip().lower()
    return "up" if word in UP else "down" if word in DOWN else None


AT_THE_END = frozenset(
    {name for field in ("label", "outcome", "feedback") for name in NAMES[field]} | {*_THUMBS}
)
"""What is said of a conversation is said of its last answer."""


def scored(scores: Any) -> dict[str, Any]:
    """Feedback of scores (name, value, comment, correction): all by their names; those named like a thumb are
    one."""
    found: dict[str, Any] = {}
    for name, value, comment, correction in scores:
        found |= {name: value} if value is not None and name not in ("thumb", "edit", "resolved") else {}
        if name.replace("-", "_").lower() in _THUMBS and (thumb := thumb_of(value)):
            found["thumb"] = thumb
        found |= {f"{name}_comment": comment} if comment else {}
        if isinstance(correction, Mapping):
            correction = next((v for v in correction.values() if isinstance(v, str)), None)
        found |= {"edit": correction} if isinstance(correction, str) and correction else {}
    return found


def _values(sources: list[Mapping[str, Any]], names: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    return ((name, source[name]) for source in sources for name in names if source.get(name) is not None)


def _plain(value: Any) -> str | None:
    """A name as text: numbers too, and an object's id."""
    if isinstance(value, Mapping):
        value = next((value[key] for key in ("id", "user_id", "name") if value.get(key) is not None), None)
    return str(value) if isinstance(value, str | int | float) else None


def _latency(sources: list[Mapping[str, Any]], start: Any) -> tuple[float, str] | None:
    for name, value in _values(sources, _MILLISECONDS):
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value / 1000, name
    for name, value in _values(sources, _ENDS):
        began, ended = epoch(start), epoch(seconds(value))
        if isinstance(began, int | float) and isinstance(ended, int | float) and ended >= began:
            return round(ended - began, 6), name
    return None
