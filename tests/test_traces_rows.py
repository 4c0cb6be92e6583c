"""Trace rows: what is read, what is refused, and that writing and reading are inverse."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from vertigym.core.errors import DataError
from vertigym.traces.records import Document, Feedback, Trace, read_traces

CALL: dict[str, Any] = {
    "id": "c1",
    "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Where is it?"}],
    "completion": "shipping",
}


def test_a_row_survives_writing_and_reading(tmp_path: Path) -> None:
    trace = Trace(
        **CALL,
        time=1767225600.5,
        model="intent",
        version="step-000050",
        label="returns",
        outcome="reopened",
        customer="acme",
        session="chat-9",
        cluster="mail",
        latency_s=0.2,
        cost=0.001,
        feedback=Feedback.model_validate({"thumb": "down", "edit": "returns", "agent": "Kim"}),
        documents=(Document(id="d1", text="Parcels take 2 days — mostly."),),
        meta={"region": "eu"},
    )
    file = tmp_path / "traces.jsonl"
    file.write_text(trace.line() + "\n" + Trace(**CALL).line(), encoding="utf-8")
    assert list(read_traces(file)) == [trace, Trace(**CALL)]
    assert Trace(**CALL).line().count("\n") == 1
    assert set(trace.model_dump(exclude_defaults=True)) == set(Trace.model_fields)


@pytest.mark.parametrize("time", ["2026-01-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01", "1767225600"])
def test_dates_become_seconds(time: str) -> None:
    assert Trace(**CALL, time=time).time == 1767225600.0


def test_the_question_is_the_last_thing_the_user_said() -> None:
    assert Trace(**CALL).question == "Where is it?"
    assert Trace(**{**CALL, "messages": [{"role": "system", "content": "x"}]}).question == ""


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"messages": []}, "messages"),
        ({"id": ""}, "id"),
        ({"completion": None}, "completion"),
        ({"time": "yesterday"}, "ISO 8601"),
        ({"time": "nan"}, "time"),
        ({"feedback": {"thumb": "sideways"}}, "feedback.thumb"),
        ({"lable": "x"}, "lable"),
    ],
)
def test_what_is_not_a_trace_is_refused_with_file_line_and_field(
    change: dict[str, Any], named: str, tmp_path: Path
) -> None:
    with pytest.raises(ValidationError):
        Trace.model_validate({**CALL, **change})
    file = tmp_path / "bad.jsonl"
    file.write_text(json.dumps(CALL) + "\n" + json.dumps({**CALL, **change}) + "\n")
    with pytest.raises(DataError, match=f"bad.jsonl:2: .*{named}"):
        list(read_traces(file))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        list(read_traces(tmp_path / "none.jsonl"))
