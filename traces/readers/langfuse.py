"""Langfuse: exports of traces with their observations, of observations, and of scores, from its API or its
pages.

A call is an observation of the type GENERATION. A trace's customer and session are those of all its calls;
what is scored of a whole trace is said of its last call. A trace without observations is a call if its input
and its output are. Source: Langfuse's public API (TraceWithFullDetails, ObservationsView, Score).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vertigym.traces.config import ImportConfig
from vertigym.traces.exchange import FAULTS, exchanges, why
from vertigym.traces.facts import scored
from vertigym.traces.log_format import Found, LogFormat, Row
from vertigym.traces.messages import decoded
from vertigym.traces.records import LateFeedback, NotACall, Unreadable

_KEPT = ("tags", "release", "environment", "promptName", "promptVersion", "modelParameters", "name")


def _camel(row: Row) -> dict[str, Any]:
    """The keys of the API; the SDK's own dumps have snake case."""
    return {re.sub(r"_([a-z])", lambda m: m[1].upper(), str(key)): value for key, value in row.items()}


def _trace(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    row = _camel(row)
    shared = {"customer": row.get("userId"), "session": row.get("sessionId"), "trace_id": row.get("id")}
    shared |= {key: row[key] for key in ("release", "tags", "environment") if row.get(key)}
    shared["feedback"] = scored(_scores(row.get("scores"))) or None
    listed = decoded(row.get("observations"))
    observations = [_camel(one) for one in listed or () if isinstance(one, Mapping)]
    if not observations:
        yield from _call(row, shared, name, config)
        return
    observations.sort(key=lambda one: str(one.get("startTime")))
    generations = [one for one in observations if one.get("type") == "GENERATION"]
    for one in observations:
        if one.get("type") != "GENERATION":
            yield NotACall(f"an observation of the type {one.get('type')}")
            continue
        part = shared if one is generations[-1] else {**shared, "feedback": None}
        try:
            yield from _call(one, part, name, config)
        except FAULTS as error:
            yield Unreadable(why(error))


def _observation(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    row = _camel(row)
    if row.get("type") != "GENERATION":
        yield NotACall(f"an observation of the type {row.get('type')}")
        return
    shared = {"customer": row.get("userId"), "session": row.get("sessionId"), "trace_id": row.get("traceId")}
    yield from _call(row, shared, name, config)


def _call(row: Row, shared: Mapping[str, Any], name: str, config: ImportConfig) -> Iterator[Found]:
    if row.get("level") == "ERROR":
        raise ValueError(f"the call ended in an error: {row.get('statusMessage')}")
    costs = decoded(row.get("costDetails"))
    around = {
        **shared,
        "id": row.get("id"),
        "time": row.get("startTime") or row.get("timestamp"),
        "model": row.get("model"),
        "version": row.get("version"),
        "latency_s": row.get("latency"),  # in seconds, says the API
        "endTime": row.get("endTime"),
        "cost": (costs or {}).get("total") or row.get("calculatedTotalCost") or row.get("totalCost"),
        "usage": decoded(row.get("usageDetails") or row.get("usage")),
        "metadata": decoded(row.get("metadata")),
        **{key: row[key] for key in _KEPT if row.get(key)},
    }
    known = {key: value for key, value in around.items() if value not in (None, "")}
    yield from exchanges(row.get("input"), row.get("output"), known, name, config)


def _scores(scores: Any) -> Iterator[tuple[Any, ...]]:
    for score in decoded(scores) or ():
        value = score.get("stringValue") or score.get("string_value") or score.get("value")
        kind = score.get("dataType") or score.get("data_type")
        yield (
            str(score.get("name")),
            bool(score["value"]) if kind == "BOOLEAN" else value,
            score.get("comment"),
            None,
        )


def _score(row: Row, name: str, config: ImportConfig) -> Iterator[Found]:
    named = _camel(row)
    feedback = scored(_scores([row]))
    if not feedback:
        raise ValueError("a score without a value")
    yield LateFeedback(str(named.get("observationId") or named["traceId"]), {"feedback": feedback})


def _is_trace(row: Row) -> bool:
    keys = set(_camel(row)) if "output" in row else set()
    return "observations" in keys or (
        {"userId", "sessionId", "input"} <= keys and not {"type", "traceId"} & keys
    )


def _is_observation(row: Row) -> bool:
    return str(row.get("type")).isupper() and bool({"traceId", "trace_id"} & set(row)) and "input" in row


def _is_score(row: Row) -> bool:
    return (
        bool({"traceId", "trace_id"} & set(row))
        and bool({"dataType", "data_type"} & set(row))
        and "value" in row
    )


FORMATS = (
    LogFormat(_is_trace, _trace, "Langfuse traces"),
    LogFormat(_is_observation, _observation, "Langfuse observations"),
    LogFormat(_is_score, _score, "Langfuse scores"),
)
