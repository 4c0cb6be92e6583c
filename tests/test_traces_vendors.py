"""Logs made by the vendors' own types (tests/trace_vendors.py) are read back equal, whichever form they
have."""

import importlib
import json
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.tests.trace_exchange import ANSWER, ARGUMENTS, QUESTION, RESULT, SCHEMA, SYSTEM, THOUGHT
from vertigym.tests.trace_vendors import FOLDER, FORMS
from vertigym.traces.config import ImportConfig
from vertigym.traces.formats import BUILT_IN, read_row
from vertigym.traces.records import HalfCall, LateFeedback, NotACall, Trace

CONFIG = parse(ImportConfig, {}, source="test")
FORM_OF = {
    "openai_chat": "OpenAI chat completions",
    "openai_stream": "OpenAI chat completions",
    "openai_stored": "OpenAI chat completions",
    "openai_responses": "OpenAI Responses",
    "anthropic_messages": "Anthropic messages",
    "anthropic_stream": "Anthropic messages",
    "gemini": "Gemini",
    "langchain": "conversations",
    "opentelemetry": "OpenTelemetry",
}
THINKS = {
    "openai_responses",
    "anthropic_messages",
    "anthropic_stream",
    "anthropic_batch",
    "gemini",
    "opentelemetry",
}


def rows_of(form: str) -> list[Any]:
    return [json.loads(line) for line in (FOLDER / f"{form}.jsonl").read_text().splitlines()]


def traces_of(form: str) -> list[tuple[str, Trace]]:
    """The last calls in a form's file; halves of a batch are put together."""
    found = [item for number, row in enumerate(rows_of(form)) for item in read_row(row, f"x{number}", CONFIG)]
    halves = {item.side: item.body for _, item in found if isinstance(item, HalfCall)}
    found += list(read_row(halves, "b1", CONFIG)) if halves else []
    others = [item for _, item in found if not isinstance(item, Trace | HalfCall | LateFeedback)]
    assert not [item for item in others if not isinstance(item, NotACall)], others
    return [(name, item) for name, item in found if isinstance(item, Trace) and len(item.messages) == 4]


@pytest.mark.parametrize("form", FORMS)
def test_what_a_vendors_types_write_is_read_back_equal(form: str) -> None:
    traces = traces_of(form)
    assert traces
    for name, trace in traces:
        assert FORM_OF.get(form, name) == name
        system, asked, called, result = (json.loads(json.dumps(m)) for m in trace.messages)
        assert (system, asked) == (
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": QUESTION},
        )
        (call,) = called["tool_calls"]
        assert (called["role"], call["id"], call["function"]["name"]) == ("assistant", "t1", "find")
        assert json.loads(call["function"]["arguments"]) == ARGUMENTS
        told = json.loads(result["content"])["output"] if form == "gemini" else result["content"]
        assert (result["role"], result["tool_call_id"], told) == ("tool", "t1", RESULT)
        assert trace.completion == ANSWER
        assert trace.meta.get("reasoning_content") == (THOUGHT if form in THINKS else None)
        assert (trace.model, trace.customer) == ("large", "acme")


@pytest.mark.parametrize("form", FORMS)
def test_who_what_when_and_the_tools_are_found_under_each_forms_names(form: str) -> None:
    for name, trace in traces_of(form):
        assert trace.session == ("s1" if "batch" not in form or "openai" in form else ""), name
        assert trace.time == (None if form == "anthropic_batch" else 1767225600.0), name
        if form not in ("langchain", "openai_stored"):
            (tool,) = trace.meta["tools"]
            assert tool == {
                "type": "function",
                "function": {"name": "find", "description": "An order", "parameters": SCHEMA},
            }
        if form in ("langfuse", "langsmith"):
            assert (trace.cost, trace.latency_s) == (0.25, 2.0)
        if form in ("opentelemetry", "openinference"):
            assert trace.latency_s == 2.0


def test_usage_and_feedback_are_read() -> None:
    usage: dict[str, Any] = {form: trace.meta.get("usage") for form in FORMS for _, trace in traces_of(form)}
    assert usage["openai_chat"]["prompt_tokens"] == usage["langsmith"]["prompt_tokens"] == 9
    assert usage["anthropic_messages"]["input_tokens"] == usage["opentelemetry"]["input_tokens"] == 9
    assert (usage["langfuse"]["input"], usage["openinference"]["prompt"]) == (9, 9)
    said = [item for form in FORMS for row in rows_of(form) for _, item in read_row(row, "x", CONFIG)]
    late = [item for item in said if isinstance(item, LateFeedback)]
    assert [item.changes["feedback"]["thumb"] for item in late] == ["up", "up"]
    first = traces_of("langfuse")[0][1]
    assert first.feedback is not None
    assert (first.feedback.thumb, first.version) == ("up", "v7")


def test_every_row_has_one_form_only() -> None:
    for form in FORMS:
        for row in rows_of(form):
            assert len([known.name for known in BUILT_IN if known.matches(row)]) == 1, form


@pytest.mark.parametrize("form", FORMS)
def test_the_files_are_what_the_sdk_writes_today(form: str) -> None:
    package, rows = FORMS[form]
    try:
        importlib.import_module(package)
        made = rows()
    except ImportError:
        pytest.skip(f"needs {package}")
    assert json.loads(json.dumps(made)) == rows_of(form)
