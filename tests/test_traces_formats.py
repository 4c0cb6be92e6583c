"""Other people's logs become Traces: each format, and what happens to rows that are none."""

import gzip
import json
from pathlib import Path
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.core.errors import DataError
from vertigym.traces.formats import GROUP, _installed
from vertigym.traces.reading import log_files, rows
from vertigym.traces.records import HalfCall, LateFeedback, NotACall, Trace, Unreadable

from .installed import install
from .trace_rows import one, read

CHAT = [{"role": "system", "content": "Sort."}, {"role": "user", "content": "Where is it?"}]


def otlp(attributes: dict[str, Any], events: list[tuple[str, dict[str, Any]]] = []) -> dict[str, Any]:  # noqa: B006
    def pairs(values: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"key": k, "value": _any(v)} for k, v in values.items()]

    span = {
        "spanId": "s1",
        "startTimeUnixNano": "1767225600000000000",
        "endTimeUnixNano": "1767225600250000000",
        "attributes": pairs(attributes),
        "events": [{"name": name, "attributes": pairs(inside)} for name, inside in events],
    }
    return {"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}


def _any(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, list):
        return {"arrayValue": {"values": [_any(item) for item in value]}}
    return {"kvlistValue": {"values": [{"key": k, "value": _any(v)} for k, v in value.items()]}}


def test_an_installed_package_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = """
        from vertigym.traces.formats import LogFormat
        from vertigym.traces.records import Trace, Unreadable

        def read(row, name, config):
            if not row["said"]:
                yield Unreadable("nothing was said")
                return
            asked, answer = row["said"]
            yield Trace(id=name, messages=({"role": "user", "content": asked},), completion=answer)

        said = LogFormat(lambda row: "said" in row, read)
        """
    install(tmp_path, monkeypatch, "acme_said", source, GROUP, said="said")
    _installed.cache_clear()
    try:
        assert one({"said": ["Where is it?", "shipping"]}).completion == "shipping"
        assert read({"said": []}) == [Unreadable("nothing was said")]
        assert read({"said": 3}) == [
            Unreadable("a shape nobody expects here (TypeError: cannot unpack non-iterable int object)")
        ]
        assert one({"messages": CHAT, "completion": "shipping"}).completion == "shipping"
    finally:
        _installed.cache_clear()


SYSTEM, USER, OUT = (
    [{"type": "text", "content": "Sort."}],
    [{"role": "user", "parts": [{"type": "text", "content": "Where is it?"}]}],
    [{"role": "assistant", "parts": [{"type": "text", "content": "shipping"}], "finish_reason": "stop"}],
)
ON = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "large"}
SAME_CALL: dict[str, dict[str, Any]] = {
    "pair": {
        "request": {"model": "large", "messages": CHAT},
        "response": {
            "created": 1767225600,
            "choices": [{"message": {"role": "assistant", "content": "shipping"}}],
        },
    },
    "pair as text": {
        "request": json.dumps({"model": "large", "messages": CHAT}),
        "response": json.dumps(
            {"created": 1767225600, "choices": [{"message": {"role": "assistant", "content": "shipping"}}]}
        ),
    },
    "bodies": {
        "request": {"body": {"model": "large", "messages": CHAT}},
        "response": {
            "status_code": 200,
            "body": {"created": 1767225600, "choices": [{"message": {"content": "shipping"}}]},
        },
    },
    "stored completion": {
        "object": "chat.completion",
        "model": "large",
        "created": 1767225600,
        "messages": CHAT,
        "choices": [{"message": {"content": "shipping"}}],
    },
    "conversation": {
        "messages": [*CHAT, {"role": "assistant", "content": "shipping"}],
        "timestamp": "2026-01-01T00:00:00Z",
        "model": "large",
    },
    "parts": {
        "messages": [
            {"role": "developer", "content": "Sort."},
            {"role": "user", "content": [{"type": "text", "text": "Where is it?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "shipping"}]},
        ],
        "time": 1767225600000,  # milliseconds
        "model": "large",
    },
    "trace": {"messages": CHAT, "completion": "shipping", "time": 1767225600, "model": "large"},
    "spans: JSON in attributes": otlp(
        {
            **ON,
            "gen_ai.system_instructions": json.dumps(SYSTEM),
            "gen_ai.input.messages": json.dumps(USER),
            "gen_ai.output.messages": json.dumps(OUT),
        }
    ),
    "spans: structured attributes": otlp(
        {
            **ON,
            "gen_ai.system_instructions": SYSTEM,
            "gen_ai.input.messages": USER,
            "gen_ai.output.messages": OUT,
        }
    ),
    "spans: an event a message": otlp(
        ON,
        [
            ("gen_ai.system.message", {"content": "Sort."}),
            ("gen_ai.user.message", {"content": "Where is it?"}),
            ("gen_ai.choice", {"index": 0, "message": {"role": "assistant", "content": "shipping"}}),
        ],
    ),
    "spans: JSON in events": otlp(
        ON,
        [
            ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps(CHAT)}),
            (
                "gen_ai.content.completion",
                {"gen_ai.completion": '[{"role": "assistant", "content": "shipping"}]'},
            ),
        ],
    ),
    "spans: flat attributes": otlp(
        {
            "gen_ai.request.model": "large",
            "llm.request.type": "chat",
            "gen_ai.prompt.0.role": "system",
            "gen_ai.prompt.0.content": "Sort.",
            "gen_ai.prompt.1.role": "user",
            "gen_ai.prompt.1.content": "Where is it?",
            "gen_ai.completion.0.role": "assistant",
            "gen_ai.completion.0.content": "shipping",
        }
    ),
}


@pytest.mark.parametrize("form", SAME_CALL)
def test_the_same_call_is_read_from_every_format(form: str) -> None:
    trace = one(SAME_CALL[form])
    assert [dict(message) for message in trace.messages] == CHAT
    assert (trace.completion, trace.time, trace.model) == ("shipping", 1767225600.0, "large")


def test_every_answer_of_a_conversation_is_a_call_with_what_came_before() -> None:
    said = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = {"id": "x", "label": "good", "messages": [{"role": r, "content": c} for r, c in said]}
    first, second = read(row)
    assert [(t.id, t.completion, len(t.messages), t.session, t.label) for t in (first, second)] == [
        ("x#1", "b", 1, "x", None),  # what is said of a conversation is said of its end
        ("x#3", "d", 3, "x", "good"),
    ]
    assert [t.completion for t in read(row, turns="last")] == ["d"]


def test_every_choice_of_a_response_is_a_call() -> None:
    choices = [{"message": {"content": "a"}}, {"message": {"content": "b"}}, {"delta": {}}]
    first, second, third = read({"request": {"messages": CHAT}, "response": {"id": "r", "choices": choices}})
    assert [(t.id, t.completion) for t in (first, second)] == [("r", "a"), ("r#1", "b")]
    assert isinstance(third, Unreadable)


def test_tool_calls_are_kept() -> None:
    tool = {"id": "t", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    chat = [
        *CHAT,
        {"role": "assistant", "content": None, "tool_calls": [tool]},
        {"role": "tool", "content": "9", "tool_call_id": "t"},
    ]
    trace = one({"request": {"messages": chat}, "response": {"choices": [{"message": {"tool_calls": [tool]}}]}})
    assert trace.messages[2]["tool_calls"] == [tool] == trace.meta["tool_calls"]
    assert trace.messages[3]["tool_call_id"] == "t"
    assert trace.completion == ""


def test_what_the_log_says_of_a_call_is_kept() -> None:
    row = {
        **SAME_CALL["pair"],
        "customer": "acme",
        "label": 7,
        "feedback": {"thumb": "up"},
        "documents": ["Parcels take a day."],
        "metadata": {"queue": "mail"},
        "region": "eu",
    }
    trace = one(row)
    assert (trace.customer, trace.label, trace.documents[0].id) == ("acme", "7", "d1")
    assert trace.feedback is not None
    assert trace.feedback.thumb == "up"
    assert trace.meta == {"queue": "mail", "region": "eu"}


def test_feedback_lines_name_their_call() -> None:
    assert read({"id": "c1", "time": 1.0, "feedback": {"thumb": "down"}, "outcome": "reopened"}) == [
        LateFeedback("c1", {"feedback": {"thumb": "down"}, "outcome": "reopened"})
    ]
    assert read({"id": 7, "feedback": {"stars": 5}, "label": 3}) == [
        LateFeedback("7", {"feedback": {"stars": 5}, "label": "3"})
    ]
    for wrong in ({"feedback": "up"}, {"feedback": {"thumb": "sideways"}}, {"feedback": {}, "label": [1]}):
        (bad,) = read({"id": "c1", **wrong})
        assert isinstance(bad, Unreadable)


def test_columns_map_any_row() -> None:
    row = {
        "q": "Where?",
        "out": {"text": "there"},
        "ts": "2026-01-01",
        "up": True,
        "who": {"org": "acme"},
        "x": 1,
    }
    columns = {"input": "q", "completion": "out.text", "time": "ts", "thumb": "up", "customer": "who.org"}
    trace = one(row, columns=columns)
    assert (trace.question, trace.completion, trace.time, trace.customer) == (
        "Where?",
        "there",
        1767225600.0,
        "acme",
    )
    assert trace.feedback is not None
    assert trace.feedback.thumb == "up"
    assert trace.meta == {"x": 1}


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([1], "this is a list"),
        ({"level": "info"}, "no format is known with the keys level"),
        ({"request": {"messages": CHAT}}, "both a request and a response"),
        ({"request": {"messages": CHAT}, "response": {"error": {"message": "full"}}}, "is an error: full"),
        ({"request": {"messages": CHAT}, "response": {"choices": []}}, "no choices"),
        ({"request": {"messages": CHAT}, "response": {"choices": [{"delta": {}}]}}, "chunk of a stream"),
        ({"request": {"messages": []}, "response": {"choices": [{"message": {"content": "x"}}]}}, "no messages"),
        ({"request": {"messages": CHAT}, "response": {"choices": [{"message": {"content": ""}}]}}, "neither text nor"),
        ({"request": "{", "response": "{}"}, "text that is not JSON"),
        ({"messages": CHAT}, "no assistant message"),
        ({"messages": "hello"}, "a list of chat messages"),
        ({"messages": [{"role": "pirate", "content": "x"}, {"role": "assistant", "content": "y"}]}, "role 'pirate'"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, {"role": "assistant", "content": "y"}]}, "image_url"),
        ({"messages": CHAT, "completion": "x", "time": "yesterday"}, "neither ISO 8601"),
        ({"messages": CHAT, "completion": "x", "feedback": {"thumb": "sideways"}}, "feedback.thumb"),
        (otlp(ON), "was the capture of message content switched on"),
    ],
)  # fmt: skip
def test_what_is_no_call_has_a_reason(row: Any, why: str) -> None:
    (bad,) = read(row)
    assert isinstance(bad, Unreadable)
    assert why in bad.reason


def test_one_bad_span_does_not_take_the_others_with_it() -> None:
    export = otlp(ON)
    good = SAME_CALL["spans: flat attributes"]["resourceSpans"][0]["scopeSpans"][0]["spans"]
    export["resourceSpans"][0]["scopeSpans"][0]["spans"] += [*good, {"attributes": {"http.route": "/"}}]
    assert [type(found) for found in read(export)] == [Unreadable, Trace, NotACall]


KEYS = (
    "request response messages choices message role content completion id feedback body resourceSpans scopeSpans "
    "spans attributes key value documents time tool_calls prompt chosen rejected conversations from run_type run_id inputs "
    "outputs traceId type input output observations custom_id params result parts candidates contents data text system "
    "instruction context metadata user label tools scores usage generations lc kwargs function name arguments"
).split()
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(["user", "assistant", "tool_use", "GENERATION", "llm", "message", "[{}]", "data: {}"])
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_no_row_is_fatal(row: Any) -> None:
    found = read(row)
    assert all(isinstance(item, Trace | Unreadable | NotACall | LateFeedback | HalfCall) for item in found)


# -- files


def items(file: Path) -> list[tuple[int, Any]]:
    return [(number, row.reason if isinstance(row, Unreadable) else row) for number, row, _ in rows(file)]


def test_lines_keep_their_numbers_and_bad_ones_their_reason(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n\xff\xfe\n{"a": NaN}\n[2]\n{"b')
    found = items(file)
    assert [number for number, _ in found] == [1, 3, 4, 5, 6, 7]
    assert (found[0][1], found[4][1]) == ({"a": 1}, [2])
    assert all("not JSON" in found[i][1] for i in (1, 2, 3, 5))


def test_archives_documents_and_tables_are_read(tmp_path: Path) -> None:
    expected = [{"q": "Where, is\nit?", "n": "1"}, {"q": "x", "n": "2"}]
    (tmp_path / "a.jsonl.gz").write_bytes(
        gzip.compress("".join(json.dumps(r) + "\n" for r in expected).encode())
    )
    (tmp_path / "b.json").write_text(json.dumps(expected, indent=1))
    (tmp_path / "c.csv").write_text('\ufeffq,n\n"Where, is\nit?",1\nx,2\nx,2,3\n', encoding="utf-8")
    (tmp_path / "d.tsv").write_text("q\tn\nx\t2\n")
    table = "SELECT 'x' AS q, DATE '2026-01-01' AS t, [1, 2] AS l"
    duckdb.execute(f"COPY ({table}) TO '{tmp_path / 'e.parquet'}'")
    assert [row for _, row in items(tmp_path / "a.jsonl.gz")] == expected
    assert [row for _, row in items(tmp_path / "b.json")] == expected
    assert items(tmp_path / "c.csv") == [
        (3, expected[0]),
        (4, expected[1]),
        (5, "3 fields where the header has 2"),
    ]
    assert items(tmp_path / "d.tsv") == [(2, {"q": "x", "n": "2"})]
    ((_, row),) = items(tmp_path / "e.parquet")
    assert (row["q"], str(row["t"]), row["l"]) == ("x", "2026-01-01", [1, 2])
    trace = one(row, columns={"input": "q", "completion": "q", "time": "t"})
    assert trace.time == 1767225600.0
    assert "l" in json.loads(trace.line())["meta"]


def test_a_damaged_archive_gives_what_came_before(tmp_path: Path) -> None:
    packed = gzip.compress(b"".join(b'{"a": %d}\n' % i for i in range(20000)))
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-2000])
    found = items(tmp_path / "a.jsonl.gz")
    assert len(found) > 100
    assert "cannot be read further" in found[-1][1]


def test_folders_and_unknown_files(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").touch()
    (tmp_path / "a.csv").touch()
    (tmp_path / "notes.txt").touch()
    assert [file.name for file in log_files([tmp_path])] == ["a.csv", "b.jsonl"]
    with pytest.raises(DataError, match="what is this"):
        items(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no such file"):
        log_files([tmp_path / "c.jsonl"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no logs in this folder"):
        log_files([tmp_path / "empty"])
    (tmp_path / "x.parquet").write_text("no")
    with pytest.raises(DataError, match="not a Parquet file"):
        items(tmp_path / "x.parquet")
