"""Forms of logs and training data that no SDK writes, what is in a message, and what is refused rather than
guessed."""

import gzip
import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, DataError, MissingDependencyError
from vertigym.tests.trace_vendors import FOLDER
from vertigym.traces.config import ImportConfig
from vertigym.traces.formats import BUILT_IN, LogFormat, calls, read_row
from vertigym.traces.importer import import_traces
from vertigym.traces.messages import chat
from vertigym.traces.reading import log_files, rows
from vertigym.traces.records import LateFeedback, NotACall, Trace, Unreadable, read_traces

ASKED = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Where is it?"}]
SAID = {"role": "assistant", "content": "shipping"}


def read(row: Any, **settings: Any) -> list[Any]:
    return list(calls(row, "log-1", parse(ImportConfig, settings, source="test")))


def one(row: Any, **settings: Any) -> Trace:
    (trace,) = read(row, **settings)
    assert isinstance(trace, Trace), trace
    return trace


def why(row: Any, **settings: Any) -> str:
    (bad,) = read(row, **settings)
    assert isinstance(bad, Unreadable), bad
    return bad.reason


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
CHATML = "<|im_start|>system\nSort.<|im_end|>\n<|im_start|>user\nWhere is it?<|im_end|>\n<|im_start|>assistant\nshipping<|im_end|>\n"
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


def zstd(data: bytes) -> bytes:
    try:
        import zstandard
    except ImportError:
        pytest.skip("needs zstandard")
    return bytes(zstandard.ZstdCompressor().compress(data))


def test_a_file_is_known_by_its_content(tmp_path: Path) -> None:
    row = {"messages": [*ASKED, SAID]}
    lines = "".join(json.dumps(row) + "\n" for _ in range(3))
    pretty = "\n".join(json.dumps(row, indent=2) for _ in range(3))
    files = {
        "a.log": lines.encode(), "b.gz": gzip.compress(lines.encode()), "c.txt": json.dumps([row] * 3, indent=2).encode(),
        "d.jsonl": json.dumps([row] * 3, indent=1).encode(), "e.json": pretty.encode(), "f.jsonl": pretty.encode(),
        "h.jsonl": json.dumps([row] * 3).encode(), "i.json": b"\xef\xbb\xbf" + json.dumps([row] * 3).encode(),
    }  # fmt: skip
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert [found for _, found, _ in rows(tmp_path / name)] == [row] * 3, name
    (tmp_path / "one.json").write_text(json.dumps(row["messages"], indent=1))
    assert [found for _, found, _ in rows(tmp_path / "one.json")] == [row["messages"]]
    (tmp_path / "t.txt").write_text(CHATML + "<|endoftext|>" + CHATML)
    assert [one(found).completion for _, found, _ in rows(tmp_path / "t.txt")] == ["shipping", "shipping"]
    (tmp_path / "s.csv").write_text("q;a\nx, y;z\n")
    assert [found for _, found, _ in rows(tmp_path / "s.csv")] == [{"q": "x, y", "a": "z"}]


def test_zstd_is_read_and_a_damaged_one_gives_what_came_before(tmp_path: Path) -> None:
    packed = zstd("".join(json.dumps({"a": random.Random(i).random()}) + "\n" for i in range(200_000)).encode())
    (tmp_path / "a.jsonl.zst").write_bytes(packed)
    assert sum(1 for _ in rows(tmp_path / "a.jsonl.zst")) == 200_000
    (tmp_path / "b.jsonl.zst").write_bytes(
        packed[: len(packed) // 2] + b"\0\0\0\0" + packed[len(packed) // 2 :]
    )
    found = list(rows(tmp_path / "b.jsonl.zst"))
    assert len(found) > 1000
    assert "cannot be read further" in found[-1][1].reason


def test_zstd_without_its_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\x28\xb5\x2f\xfd....")
    monkeypatch.setitem(__import__("sys").modules, "zstandard", None)
    with pytest.raises(MissingDependencyError, match="zstandard"):
        list(rows(tmp_path / "a.jsonl"))


def test_folders_are_searched_to_the_bottom_and_patterns_are_understood(tmp_path: Path) -> None:
    (tmp_path / "2026" / "01").mkdir(parents=True)
    for name in ("2026/01/a.jsonl.gz", "2026/b.jsonl", "c.csv.zst", "notes.md"):
        (tmp_path / name).touch()
    names = ["2026/01/a.jsonl.gz", "2026/b.jsonl", "c.csv.zst"]
    assert [str(file.relative_to(tmp_path)) for file in log_files([tmp_path])] == names
    assert [file.name for file in log_files([tmp_path / "2026" / "**" / "*.jsonl*", tmp_path / "2026"])] == [
        "a.jsonl.gz",
        "b.jsonl",
    ]
    with pytest.raises(DataError, match="no file has such a name"):
        log_files([tmp_path / "*.parquet"])


def run(files: list[Path], out: Path, **settings: Any) -> Any:
    return import_traces(files, out, parse(ImportConfig, settings, source="test"))


def test_a_batch_is_joined_over_its_two_files(tmp_path: Path) -> None:
    asked, told = (
        [json.loads(line) for line in (FOLDER / f"{name}_batch.jsonl").read_text().splitlines()]
        for name in ("openai", "anthropic")
    )
    (tmp_path / "in.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (asked[0], {**told[0], "custom_id": "b2"}, {**asked[0], "custom_id": "b3"})
        )
    )
    (tmp_path / "out.jsonl").write_text(
        "".join(
            json.dumps(row) + "\n"
            for row in (
                {**told[1], "custom_id": "b2"},
                asked[1],
                {**asked[1], "custom_id": "b4"},
                {**asked[1], "custom_id": "b3", "response": None, "error": {"message": "too late"}},
            )
        )
    )
    report = run(
        [tmp_path], tmp_path / "out", split={"eval": 0, "test": 0}, duplicates={"near": 0, "exact": False}
    )
    traces = list(read_traces(tmp_path / "out" / "train.jsonl"))
    assert [(trace.id, trace.completion) for trace in traces] == [("b1", "shipping"), ("b2", "shipping")]
    reasons = {
        json.loads(line)["reason"] for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()
    }
    assert reasons == {
        "half of a call of a batch: its request is not here (b4)",
        "the response is an error: too late",
    }
    first, second = report.files.values()
    assert (first.rows, first.skipped, first.calls, first.rejected) == (3, 3, 0, 0)
    assert (second.rows, second.skipped, second.calls, second.rejected) == (4, 0, 2, 2)


def test_a_batch_with_two_answers_to_one_key_is_refused(tmp_path: Path) -> None:
    asked, told = (json.loads(line) for line in (FOLDER / "openai_batch.jsonl").read_text().splitlines())
    other = {**told, "response": {"body": {"choices": [{"message": {"content": "other"}}]}}}
    (tmp_path / "a.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in (asked, told, other, {"messages": [*ASKED, SAID]}))
    )
    report = run([tmp_path / "a.jsonl"], tmp_path / "out")
    assert report.rejected == {
        "half of a call of a batch: several lines of a batch with one key, which differ": 3
    }


def test_the_report_names_the_form_of_each_file_and_what_its_rows_say(tmp_path: Path) -> None:
    report = run(
        [FOLDER / "gemini.jsonl", FOLDER / "langfuse.jsonl"],
        tmp_path / "out",
        duplicates={"near": 0, "exact": False},
    )
    assert [source.forms for source in report.files.values()] == [
        {"Gemini": 3},
        {"Langfuse traces": 1, "Langfuse observations": 1, "Langfuse scores": 1},
    ]
    assert {key: report.said[key] for key in ("customer", "session", "feedback", "cost", "outcome")} == {
        "customer": 5,
        "session": 5,
        "feedback": 2,
        "cost": 2,
        "outcome": 0,
    }


def test_a_split_by_what_no_call_says_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": [*ASKED, SAID]}) + "\n")
    for by in ("customer", "session", "cluster", "time"):
        with pytest.raises(DataError, match=f"split by {by}: no call says its {by}"):
            run([tmp_path / "a.jsonl"], tmp_path / "out", split={"by": by})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("by", ["input", "session", "customer", "cluster", "time"])
def test_a_session_is_never_torn(by: str, tmp_path: Path) -> None:
    dice = random.Random(5)
    lines = [
        {"messages": [{"role": "user", "content": f"{dice.random()} {dice.random()}"}], "completion": "a", "session": f"s{i // 3}",
         "customer": f"c{i // 9}", "cluster": f"t{i // 12}", "time": i + (40 if i % 3 else 0)}
        for i in range(300)
    ]  # fmt: skip
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    run([tmp_path / "a.jsonl"], tmp_path / "out", split={"by": by}, duplicates={"near": 0})
    parts = {
        split: list(read_traces(tmp_path / "out" / f"{split}.jsonl")) for split in ("train", "eval", "test")
    }
    assert all(parts.values())
    sides = [{trace.session for trace in part} for part in parts.values()]
    assert len(set.union(*sides)) == sum(map(len, sides))
    if by == "time":
        newest = max(trace.time or 0 for trace in parts["train"])
        ends = [max(t.time or 0 for t in parts["test"] if t.session == s) for s in sides[2]]
        assert newest < min(ends)


def mutilated(data: bytes, dice: random.Random) -> bytes:
    """One of the ways in which files get broken."""
    at, to = sorted(dice.randrange(len(data)) for _ in range(2))
    ways = (
        lambda: data[:at],
        lambda: data[:at] + data[to:],
        lambda: data[:at] + bytes(dice.randrange(256) for _ in range(9)) + data[at:],
        lambda: data.replace(dice.choice([b'"role"', b'"content"', b'"text"', b":", b"[", b"null"]), dice.choice([b'"x"', b"", b"7", b"{"]), dice.randrange(1, 4)),
        lambda: data[:at] + data[at:to][::-1] + data[to:],
        lambda: data.replace(b"\n", dice.choice([b"\n\n", b"\r\n", b"\0\n", b" "])),
    )  # fmt: skip
    return dice.choice(ways)()


def test_two_hundred_mutilated_files_are_read_or_refused_and_the_counts_add_up(tmp_path: Path) -> None:
    good = json.dumps({"messages": [*ASKED, SAID]}).encode() + b"\n"
    sources = [file.read_bytes() for file in sorted(FOLDER.glob("*.jsonl"))]
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "good.jsonl").write_bytes(good)
    dice = random.Random(11)
    for number in range(200):
        (tmp_path / "logs" / f"{number:03}.jsonl").write_bytes(
            mutilated(sources[number % len(sources)] * 2, dice)
        )
    report = run(
        [tmp_path / "logs"],
        tmp_path / "out",
        duplicates={"near": 0, "exact": False},
        split={"eval": 0, "test": 0},
    )
    steps = report.steps
    assert all(before.rows_out == after.rows_in for before, after in pairwise(steps))
    total = {
        key: sum(getattr(source, key) for source in report.files.values())
        for key in ("rows", "calls", "rejected", "skipped", "feedback")
    }
    assert steps[0].rows_in == total["calls"] + total["rejected"]
    assert (
        total["rejected"]
        == sum(report.rejected.values())
        == len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    )
    assert total["skipped"] == sum(report.skipped.values())
    assert total["calls"] == steps[0].rows_out
    for source in report.files.values():
        assert source.calls + source.rejected + source.skipped + source.feedback >= source.rows
    for trace in read_traces(tmp_path / "out" / "train.jsonl"):
        assert all(
            m["content"] or m.get("tool_calls") or m.get("reasoning_content")
            for m in trace.messages
            if m["role"] == "user"
        )
        assert trace.completion or trace.meta["tool_calls"]
