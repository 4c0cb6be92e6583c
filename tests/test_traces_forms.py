"""Forms of logs and training data that no SDK writes, what is in a message, and what is refused rather than
guessed."""

import json
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError
from vertigym.traces.config import ImportConfig
from vertigym.traces.formats import BUILT_IN, LogFormat, read_row
from vertigym.traces.messages import chat
from vertigym.traces.records import LateFeedback, NotACall, Trace

from .trace_rows import CHATML, one, read, why

ASKED = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Where is it?"}]
SAID = {"role": "assistant", "content": "shipping"}


def otlp_logs(*records: dict[str, Any]) -> dict[str, Any]:
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": list(records)}]}]}


def record(name: str, **body: Any) -> dict[str, Any]:
    values = [{"key": k, "value": {"stringValue": v} if isinstance(v, str) else v} for k, v in body.items()]
    return {
        "eventName": name,
        "spanId": "s",
        "timeUnixNano": "1767225600000000000",
        "body": {"kvlistValue": {"values": values}},
    }


MESSAGE = {"kvlistValue": {"values": [{"key": "content", "value": {"stringValue": "shipping"}}]}}
HUMAN = [{"from": "human", "value": "Where is it?"}, {"from": "gpt", "value": "shipping"}]
FORMS: dict[str, tuple[str, Any]] = {
    "ShareGPT": ("ShareGPT", {"conversations": HUMAN, "system": "Sort."}),
    "ShareGPT with its own system turn": ("ShareGPT", {"conversations": [{"from": "system", "value": "Sort."}, *HUMAN]}),
    "Alpaca": ("Alpaca", {"instruction": "Where is it?", "input": "", "output": "shipping", "system": "Sort."}),
    "ChatML": ("ChatML", {"text": CHATML}),
    "TRL: conversational prompt and completion": ("TRL prompt and completion", {"prompt": ASKED, "completion": [SAID]}),
    "Anthropic's fine-tuning": ("conversations", {"system": "Sort.", "messages": [ASKED[1], SAID]}),
    "a bare list": ("conversations", [*ASKED, SAID]),
    "Vercel's messages": (
        "conversations",
        {"messages": [
            {"role": "system", "content": "Sort."},
            {"id": "1", "role": "user", "content": "", "parts": [{"type": "text", "text": "Where is it?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "ship"}, {"type": "text", "text": "ping"}]},
        ]},
    ),
    "Bedrock": (
        "Bedrock Converse",
        {
            "request": {"modelId": "large", "system": [{"text": "Sort."}], "messages": [{"role": "user", "content": [{"text": "Where is it?"}]}]},
            "response": {"output": {"message": {"role": "assistant", "content": [{"text": "shipping"}]}}, "stopReason": "end_turn", "metrics": {"latencyMs": 500}},
        },
    ),
    "Bedrock's log of invocations": (
        "Anthropic messages",
        {
            "schemaType": "ModelInvocationLog", "modelId": "large", "timestamp": "2026-01-01T00:00:00Z", "requestId": "q",
            "input": {"inputContentType": "application/json", "inputBodyJson": {"system": "Sort.", "max_tokens": 9, "messages": [ASKED[1]]}},
            "output": {"outputBodyJson": {"id": "r", "type": "message", "role": "assistant", "content": [{"type": "text", "text": "shipping"}], "stop_reason": "end_turn"}},
        },
    ),
    "a CSV of Langfuse": (
        "Langfuse observations",
        {"id": "o", "traceId": "t", "type": "GENERATION", "input": json.dumps(ASKED), "output": json.dumps(SAID), "latency": "0.5"},
    ),
    "cells of JSON": ("conversations", {"messages": json.dumps([*ASKED, SAID], indent=1), "user": "acme"}),
    "OTLP log records": (
        "OpenTelemetry",
        otlp_logs(record("gen_ai.system.message", content="Sort."), record("gen_ai.user.message", content="Where is it?"), record("gen_ai.choice", message=MESSAGE)),
    ),
    "a span of the Vercel AI SDK": (
        "OpenTelemetry",
        {"context": {"span_id": "s"}, "attributes": {"ai.operationId": "ai.generateText.doGenerate", "ai.prompt.messages": json.dumps(ASKED), "ai.response.text": "shipping"}},
    ),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_the_same_exchange_in_every_form(form: str) -> None:
    name, row = FORMS[form]
    ((known, trace),) = read_row(row, "x", parse(ImportConfig, {}, source="test"))
    assert isinstance(trace, Trace), trace
    assert known == name
    assert [dict(message) for message in trace.messages] == ASKED
    assert trace.completion == "shipping"


def test_a_page_of_an_api_is_its_rows() -> None:
    stored = {"object": "chat.completion", "id": "c", "messages": ASKED, "choices": [{"message": SAID}]}
    page = {"object": "list", "data": [stored, {**stored, "id": "d"}], "has_more": False}
    assert [trace.id for trace in read(page)] == ["c", "d"]


def test_preferences_are_a_call_with_a_thumb_up_and_one_with_a_thumb_down() -> None:
    bad = {"role": "assistant", "content": "no idea"}
    forms = (
        {"prompt": ASKED, "chosen": [SAID], "rejected": [bad]},
        {"chosen": [*ASKED, SAID], "rejected": [*ASKED, bad]},
        {"prompt": "Where is it?", "chosen": "shipping", "rejected": "no idea"},
        {"conversations": HUMAN[:1], "chosen": HUMAN[1], "rejected": {"from": "gpt", "value": "no idea"}},
    )
    for row in forms:
        good, worse = read(row)
        said = [(t.id, t.completion, t.feedback.thumb, t.question) for t in (good, worse)]
        assert said == [
            ("log-1", "shipping", "up", "Where is it?"),
            ("log-1#rejected", "no idea", "down", "Where is it?"),
        ]
    assert one({"prompt": "a", "completion": "b", "label": False}).feedback.thumb == "down"  # type: ignore[union-attr]


def test_turns_that_weigh_nothing_are_context_only() -> None:
    row = {
        "messages": [
            *ASKED,
            {**SAID, "weight": 0},
            {"role": "user", "content": "And now?"},
            {**SAID, "weight": 1},
        ]
    }
    trace = one(row)
    assert trace.messages[2].get("weight") == 0
    assert (trace.question, trace.meta["weight"]) == ("And now?", 1)
    assert read({"messages": [*ASKED, {**SAID, "weight": 0}]}) == [
        NotACall("a conversation whose answers all have the weight 0")
    ]


def test_tools_and_thinking_survive_in_every_vendors_parts() -> None:
    turns: dict[str, dict[str, Any]] = {
        "legacy": {"role": "assistant", "content": None, "function_call": {"name": "find", "arguments": '{"a":1}'}},
        "Bedrock": {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t", "name": "find", "input": {"a": 1}}}]},
        "Vercel": {"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "t", "toolName": "find", "input": {"a": 1}}]},
        "ShareGPT": {"from": "function_call", "value": '{"name": "find", "arguments": {"a": 1}}'},
        "LangChain, twice": {"type": "ai", "content": [{"type": "tool_use", "id": "t", "name": "find", "input": {"a": 1}}], "tool_calls": [{"name": "find", "args": {"a": 1}, "id": "t"}]},
    }  # fmt: skip
    for form, turn in turns.items():
        (made,) = chat([turn])
        (found,) = made["tool_calls"]
        assert (found["id"] in ("t", ""), found["type"], found["function"]["name"]) == (
            True,
            "function",
            "find",
        ), form
        assert json.loads(found["function"]["arguments"]) == {"a": 1}
    results: dict[str, dict[str, Any]] = {
        "ShareGPT": {"from": "observation", "value": "9"},
        "Vercel": {
            "role": "tool",
            "content": [
                {
                    "type": "tool-result",
                    "toolCallId": "t",
                    "toolName": "find",
                    "output": {"type": "text", "value": "9"},
                }
            ],
        },
        "Bedrock": {"role": "user", "content": [{"toolResult": {"toolUseId": "t", "content": [{"json": 9}]}}]},
    }
    for turn in results.values():
        (made,) = chat([turn])
        assert (made["role"], made["content"]) == ("tool", "9")
    (thought,) = chat([{"role": "assistant", "content": "x", "reasoning_content": "Hm."}])
    assert thought["reasoning_content"] == "Hm."


BAD = [
    ({"role": "user"}, "messages[0]: a message without content; its keys are role"),
    ({"role": "user", "content": None, "blob": 1}, "without content; its keys are role, content, blob"),
    ({"role": "user", "content": []}, "without content"),
    ({"role": "user", "content": [{"type": "image", "source": {}}]}, "a part of type 'image'"),
    ({"role": "user", "parts": [{"inlineData": {"data": "x"}}]}, "unknown kind: its keys are inlineData"),
    ({"role": "user", "content": "a", "parts": [{"text": "b"}]}, "two contents that differ"),
    ({"role": "assistant", "tool_calls": [{"id": "t"}]}, "without the tool's name"),
    ({"role": "user", "content": 7}, "this is a number"),
    ({"content": "x"}, "a message with the role None"),
    ("hello", "this is text"),
]  # fmt: skip


@pytest.mark.parametrize(("bad", "reason"), BAD)
def test_a_message_without_known_content_is_refused_with_its_place(bad: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=r"^messages\[0\]: ") as error:
        chat([bad])
    assert reason in str(error.value)
    assert "messages[2]" in why({"messages": [*ASKED, bad, SAID]})


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (
            {"messages": ASKED, "completion": "a", "prompt": "b", "chosen": "c", "rejected": "d"},
            "can be read as",
        ),
        ({"messages": ASKED, "conversations": HUMAN, "instruction": "a", "output": "b"}, "Alpaca"),
        (
            {"request": {"messages": ASKED, "input": "x"}, "response": {"choices": [{"message": SAID}]}},
            "several chats: messages, input",
        ),
        (
            {
                "request": {"messages": ASKED},
                "response": [{"object": "chat.completion.chunk", "choices": [{"delta": {"content": "a"}}]}],
            },
            "cut off",
        ),
        (
            {"request": {"messages": ASKED}, "response": {"type": "message", "content": []}},
            "the response has no content",
        ),
        (
            {"request": {"contents": [{"parts": [{"text": "a"}]}]}, "response": {"candidates": []}},
            "no candidates",
        ),
        (
            {
                "request": {"messages": ASKED},
                "response": {"object": "response", "output": [{"type": "web_search_call"}]},
            },
            "web_search_call",
        ),
        (
            {"run_type": "llm", "id": "r", "inputs": {"messages": [ASKED]}, "outputs": None, "error": "full"},
            "the run ended in an error: full",
        ),
        (
            {
                "run_type": "llm",
                "id": "r",
                "inputs": {"prompts": ["a", "b"]},
                "outputs": {"generations": [[{"text": "c"}], [{"text": "d"}]]},
            },
            "a batch of 2 prompts",
        ),
        ({"prompt": "a", "completion": None}, "no messages went in"),
        ({"chosen": "a", "rejected": "b"}, "without a prompt"),
        (SAID, "a single message is not a call"),
        ({"text": CHATML + " and more"}, "text outside of"),
    ],
)
def test_what_has_two_readings_or_none_is_refused(row: Any, reason: str) -> None:
    assert reason in why(row)


def test_a_form_that_is_named_settles_it() -> None:
    row = {"messages": [*ASKED, SAID], "conversations": HUMAN, "instruction": "Which?", "output": "b"}
    assert one(row, format="Alpaca").question == "Which?"
    with pytest.raises(ConfigError, match="no such form of logs; known: "):
        read({**row}, format="Alpacca")


def test_a_row_that_two_forms_claim_is_refused_whatever_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    greedy = LogFormat(lambda row: "messages" in row, BUILT_IN[0].read, "greedy")
    for order in ((*BUILT_IN, greedy), (greedy, *BUILT_IN)):
        monkeypatch.setattr("vertigym.traces.formats.BUILT_IN", order)
        assert "say which one is meant" in why({"messages": [*ASKED, SAID]})


# -- who and what


@pytest.mark.parametrize(
    ("row", "customer", "session"),
    [
        (
            {"request": {"messages": ASKED, "user": "u7"}, "response": {"choices": [{"message": SAID}]}},
            "u7",
            "",
        ),
        (
            {
                "request": {"messages": ASKED, "metadata": {"user_id": "u7", "thread_id": "s"}},
                "response": {"choices": [{"message": SAID}]},
            },
            "u7",
            "s",
        ),
        ({"messages": [*ASKED, SAID], "user": {"id": 7}, "conversation_id": "s"}, "7", "s"),
        ({"messages": [*ASKED, SAID], "customer": "c", "user": "agent"}, "c", ""),
    ],
)
def test_the_customer_and_the_session_are_found(row: Any, customer: str, session: str) -> None:
    trace = one(row)
    assert (trace.customer, trace.session) == (customer, session)


def test_latency_cost_and_thumbs_are_found_and_what_has_no_unit_is_not() -> None:
    trace = one(
        {
            "messages": [*ASKED, SAID],
            "latency_ms": 250,
            "total_cost": 0.5,
            "thumbs": "👎",
            "latency": 3,
            "rating": 1,
        }
    )
    assert (trace.latency_s, trace.cost) == (0.25, 0.5)
    assert trace.feedback is not None
    assert (trace.feedback.thumb, trace.meta) == ("down", {"latency": 3, "rating": 1})
    timed = one(
        {"messages": [*ASKED, SAID], "start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:02Z"}
    )
    assert timed.latency_s == 2


def test_a_runs_session_id_in_langsmith_is_its_project() -> None:
    run = {
        "run_type": "llm",
        "id": "r",
        "session_id": "project",
        "inputs": {"messages": ASKED},
        "outputs": {"message": SAID},
    }
    assert one(run).session == ""
    assert one({**run, "extra": {"metadata": {"session_id": "s"}}}).session == "s"


def test_two_output_messages_are_two_calls() -> None:
    attributes = {
        "gen_ai.operation.name": "chat",
        "gen_ai.input.messages": ASKED,
        "gen_ai.output.messages": [SAID, {**SAID, "content": "other"}],
    }
    first, second = read({"context": {"span_id": "s"}, "attributes": attributes})
    assert [(t.id, t.completion) for t in (first, second)] == [("s", "shipping"), ("s#1", "other")]


def test_a_mapped_cell_may_hold_a_request_or_json_that_is_text() -> None:
    columns = {"input": "in", "completion": "out", "customer": "request.user"}
    row = {
        "in": json.dumps(ASKED, indent=2),
        "out": json.dumps({"choices": [{"message": SAID}]}),
        "request": '{"user": "u7"}',
    }
    trace = one(row, columns=columns)
    assert ([dict(m) for m in trace.messages], trace.completion, trace.customer) == (ASKED, "shipping", "u7")
    plain = one({"in": '{"order": 7}', "out": '["a"]'}, columns={"input": "in", "completion": "out"})
    assert (plain.question, plain.completion) == ('{"order": 7}', '["a"]')


def test_phoenix_annotations_are_feedback() -> None:
    row = {
        "span_id": "s",
        "name": "user_feedback",
        "annotator_kind": "HUMAN",
        "result": {"label": "thumbs_up", "score": None, "explanation": "fine"},
    }
    (late,) = read(row)
    assert late == LateFeedback(
        "s", {"feedback": {"user_feedback": "thumbs_up", "thumb": "up", "user_feedback_comment": "fine"}}
    )


# -- files
