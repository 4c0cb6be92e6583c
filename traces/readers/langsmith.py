"""LangSmith: exported runs and feedback. A call is a run of the type llm.

A run's `session_id` is its project; the conversation is in the metadata (`thread_id`, `session_id` or
`conversation_id`). Source: the schemas Run and Feedback of the SDK.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import exchanges
from vertigym.traces.facts import facts, scored
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import decoded
from vertigym.traces.records import LateFeedback, NotACall

_TOKENS = ("prompt_tokens", "completion_tokens", "total_tokens")


def _run(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    if row["run_type"] != "llm":
        yield NotACall(f"a run of the type {row['run_type']}")
        return
    if row.get("error"):
        raise ValueError(f"the run ended in an error: {row['error']}")
    extra = decoded(row.get("extra"))
    extra = extra if isinstance(extra, Mapping) else {}
    metadata, settings = (decoded(extra.get(key)) or {} for key in ("metadata", "invocation_params"))
    said, _ = facts(metadata)
    stats = decoded(row.get("feedback_stats")) or {}
    around = {
        "id": str(row["id"]),
        "time": row.get("start_time"),
        "end_time": row.get("end_time"),
        "model": said.get("model") or settings.get("model") or settings.get("model_name"),
        "customer": said.get("customer"),
        "session": said.get("session"),
        "cost": row.get("total_cost"),
        "usage": {key: row[key] for key in _TOKENS if row.get(key) is not None} or None,
        "feedback": scored((key, told.get("avg"), None, None) for key, told in stats.items()) or None,
        "trace_id": str(row["trace_id"]) if row.get("trace_id") else None,
        "tags": row.get("tags") or None,
        "metadata": metadata or None,
        "tools": settings.get("tools"),
    }
    known = {key: value for key, value in around.items() if value is not None}
    yield from exchanges(_first(row.get("inputs")), decoded(row.get("outputs")), known, name, config)


def _first(inputs: Any) -> Any:
    """The inputs of a run; prompts of text models come in a list."""
    inputs = decoded(inputs)
    prompts = inputs.get("prompts") if isinstance(inputs, Mapping) else None
    if not isinstance(prompts, list) or not prompts:
        return inputs
    if len(prompts) > 1:
        raise ValueError(
            f"a batch of {len(prompts)} prompts in one run: which answer belongs to which is not read"
        )
    return prompts[0]


def _feedback(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    value = row.get("score") if row.get("score") is not None else row.get("value")
    feedback = scored([(str(row["key"]), value, row.get("comment"), row.get("correction"))])
    if not feedback:
        raise ValueError(f"feedback {row['key']!r} says nothing: no score, value, comment or correction")
    yield LateFeedback(str(row["run_id"]), {"feedback": feedback})


FORMATS = (
    LogFormat(lambda row: "run_type" in row and "inputs" in row, _run, "LangSmith runs"),
    LogFormat(lambda row: "run_id" in row and "key" in row, _feedback, "LangSmith feedback"),
)
