"""The chat API against OpenAI's: what it accepts, what is refused by name, and errors, which are JSON."""

import json
import socket
from pathlib import Path
from typing import Any

import openai
import pytest

from vertigym.policies.scripted import Scripted, echo
from vertigym.serving.app import ServerLimits

from .served import KEY, ask, client, post, recorded, serving

NULL = (
    *("frequency_penalty", "logit_bias", "logprobs", "max_completion_tokens", "max_tokens", "metadata", "n"),
    *("presence_penalty", "response_format", "seed", "service_tier", "stop", "store", "stream", "tools"),
    *("reasoning_effort", "stream_options", "temperature", "tool_choice", "top_logprobs", "top_p", "user"),
)
TOOL = {"type": "function", "function": {"name": "find", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serving(echo(), tmp_path_factory.mktemp("api") / "t.jsonl") as found:
        yield found


@pytest.mark.parametrize(
    "more",
    [
        *({name: None} for name in NULL),
        {"tools": [], "tool_choice": "none", "functions": [], "parallel_tool_calls": True},
        {"stop": []},
        {"response_format": {"type": "text"}, "modalities": ["text"]},
        {"frequency_penalty": 0, "presence_penalty": 0.0, "logit_bias": {}, "n": 1},
        {"logprobs": False, "top_logprobs": 0},
        {"store": True, "service_tier": "auto", "safety_identifier": "u", "prompt_cache_key": "k"},
        {"extra_body": {"top_k": -1, "min_p": 0, "repetition_penalty": 1.0}},
    ],
    ids=str,
)
def test_what_asks_for_nothing_is_accepted(port: int, more: dict[str, Any]) -> None:
    with client(port) as api:
        assert api.chat.completions.create(**ask("q"), **more).choices[0].message.content == "q"


@pytest.mark.parametrize(
    "more",
    [
        {"logit_bias": {"50256": -100}},
        {"frequency_penalty": 0.5},
        {"presence_penalty": -1},
        {"functions": [{"name": "f"}]},
        {"function_call": {"name": "f"}},
        {"strict": True, "tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
        {"tool_choice": "required", "tools": [TOOL]},
        {"tool_choice": {"type": "function", "function": {"name": "find"}}, "tools": [TOOL]},
        {"logprobs": True},
        {"response_format": {"type": "json_object"}},
        {"reasoning_effort": "high"},
        {"modalities": ["text", "audio"]},
        {"extra_body": {"top_k": 5}},
        {"extra_body": {"min_p": 0.1}},
        {"extra_body": {"repetition_penalty": 1.1}},
        {"extra_body": {"guided_json": {}}},
        {"extra_body": {"best_of": 3}},
        {"extra_body": {"temprature": 0.7}},
    ],
    ids=str,
)
def test_what_is_not_done_is_refused_by_name(port: int, more: dict[str, Any]) -> None:
    name, *_ = more.get("extra_body", more)
    more.pop("strict", None)
    with client(port) as api, pytest.raises(openai.BadRequestError) as refused:
        api.chat.completions.create(**ask("q"), **more)
    assert name in refused.value.message
    assert (refused.value.param, refused.value.code) == (name, "unsupported_parameter")


@pytest.mark.parametrize(
    ("message", "on_record"),
    [
        ({"role": "developer", "content": "q"}, {"role": "system", "content": "q"}),
        (
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {"role": "assistant", "tool_calls": [CALL]},
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
        ),
        (
            {"role": "assistant", "content": "a", "tool_calls": None, "refusal": None, "annotations": []},
            {"role": "assistant", "content": "a"},
        ),
        ({"role": "user", "content": "", "name": None}, {"role": "user", "content": ""}),
        (
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": "ab"},
        ),
    ],
    ids=str,
)
def test_messages_in_every_form_of_openai_are_read(
    message: dict[str, Any], on_record: dict[str, Any], tmp_path: Path
) -> None:
    with serving(echo(), tmp_path / "t.jsonl") as port, client(port) as api:
        chat: Any = [{"role": "user", "content": "x"}, message, {"role": "user", "content": "y"}]
        api.chat.completions.create(model="m", messages=chat)
    assert recorded(tmp_path / "t.jsonl")[0]["messages"][1] == on_record


def test_a_reply_can_be_sent_back_as_the_client_holds_it(port: int) -> None:
    with client(port) as api:
        said = api.chat.completions.create(**ask("q")).choices[0].message
        chat: Any = [{"role": "user", "content": "q"}, said, {"role": "user", "content": "and"}]
        assert api.chat.completions.create(model="m", messages=chat).choices[0].message.content == "and"
        chat[1] = said.model_dump()
        assert api.chat.completions.create(model="m", messages=chat).choices[0].message.content == "and"


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": None},
        {"role": "user"},
        {"role": "function", "name": "f", "content": "1"},
        {"role": "assistant", "content": "a", "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "assistant", "content": "a", "audio": {"id": "a1"}},
        {"role": "user", "content": [{"type": "text", "text": None}]},
        {"role": "user", "content": [{"type": "input_audio"}]},
        {"role": "user", "content": ["a"]},
        {"role": "user", "content": 1},
        "q",
    ],
    ids=str,
)
def test_a_message_that_cannot_be_read_whole_is_refused(port: int, message: Any) -> None:
    status, answer = post(port, "/v1/chat/completions", {"model": "m", "messages": [message]})
    assert (status, answer["error"]["param"]) == (400, "messages")


CALLS = 'Two:\n<tool_call>{"name": "find", "arguments": {"a": "\\u00e9"}}</tool_call>'
CALLS += '<tool_call>{"name": "g"}</tool_call>'


def create(api: Any, **request: Any) -> Any:
    """What the client gives, past its own types: it is the server that is asked here."""
    return api.chat.completions.create(**request)


def test_tool_calls_come_as_tool_calls_and_can_be_sent_back(port: int) -> None:
    with client(port) as api:
        answered = create(api, **ask(CALLS), tools=[TOOL]).choices[0]
        message = answered.message
        called = [(one.function.name, one.function.arguments) for one in message.tool_calls or ()]
        assert (answered.finish_reason, message.content) == ("tool_calls", "Two:")
        assert called == [("find", '{"a": "é"}'), ("g", "{}")]
        results = [{"role": "tool", "tool_call_id": one.id, "content": "r"} for one in message.tool_calls or ()]
        again = create(api, model="m", messages=[message, *results], tools=[TOOL])
        assert (again.choices[0].message.content, again.choices[0].finish_reason) == ("r", "stop")
        pieces = list(create(api, **ask(CALLS), tools=[TOOL], stream=True))
        parts: Any = [one for piece in pieces for one in piece.choices[0].delta.tool_calls or ()]
        assert [(one.index, one.function.name) for one in parts] == [(0, "find"), (1, "g")]
        assert pieces[-1].choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>{}</tool_call>",
        '<tool_call>{"name": 1}</tool_call>',
        '<tool_call>{"name": "f", "arguments": "x"}</tool_call>',
        '<tool_call>{"name": "f", "arguments": {"a": NaN}}</tool_call>',
        '<tool_call>{"name": "f"}</tool_call><tool_call>{"name": "f"',
        "<tool_call>" * 5000,
        "<tool_call>" + "[" * 5000 + "</tool_call>",
        "no call",
    ],
    ids=lambda text: text[:60],
)
def test_what_is_no_whole_call_is_text(text: str, port: int) -> None:
    with client(port) as api:
        message = create(api, **ask(text), tools=[TOOL]).choices[0].message
        assert (message.content, message.tool_calls) == (text, None)


def test_a_call_is_text_where_no_tool_was_offered(port: int) -> None:
    with client(port) as api:
        for more in ({}, {"tools": [TOOL], "tool_choice": "none"}):
            message = create(api, **ask(CALLS), **more).choices[0].message
            assert (message.content, message.tool_calls) == (CALLS, None)


@pytest.mark.parametrize("tool", [{"type": "custom", "custom": {"name": "f"}}, {"type": "function"}, {}, 1])
def test_a_tool_that_is_no_function_is_refused(tool: Any, port: int) -> None:
    status, answer = post(port, "/v1/chat/completions", ask("q", tools=[tool]))
    assert (status, answer["error"]["param"]) == (400, "tools")


def test_a_stream_ends_with_its_usage_where_that_is_asked_for(port: int) -> None:
    with client(port) as api:
        *said, last = api.chat.completions.create(
            **ask("two words"), stream=True, stream_options={"include_usage": True}
        )
        assert "".join(piece.choices[0].delta.content or "" for piece in said) == "two words"
        assert [piece.usage for piece in said] == [None] * len(said)
        assert (last.choices, last.usage and last.usage.completion_tokens) == ([], 2)
        without = list(api.chat.completions.create(**ask("q"), stream=True))
        assert all(piece.choices for piece in without)
        with pytest.raises(openai.BadRequestError, match="only allowed with stream"):
            api.chat.completions.create(**ask("q"), stream_options={"include_usage": True})


def raw(port: int, request: bytes) -> tuple[bytes, bytes]:
    """Head and body of the response to what is sent by hand; the server must close the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall(request)
        answer = b""
        while got := connection.recv(65536):
            answer += got
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(
    ("line", "status"),
    [
        ("GET /nothing", 404),
        ("POST /v1/completions", 404),
        ("GET /v1/chat/completions", 405),
        ("DELETE /feedback", 405),
        ("POST /health", 405),
    ],
)
def test_every_error_is_json(line: str, status: int, port: int) -> None:
    head, body = raw(port, f"{line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    assert head.startswith(b"HTTP/1.1 %d" % status)
    assert line.split()[1] in json.loads(body)["error"]["message"]


@pytest.mark.parametrize("path", ["/health", "/v1/models"])
@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1@evil.example", "[::1"])
def test_a_wrong_host_is_an_error_in_json(path: str, host: str, port: int) -> None:
    head, body = raw(port, f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert head.startswith(b"HTTP/1.1 400")
    assert "Host" in json.loads(body)["error"]["message"]


@pytest.mark.filterwarnings("ignore")
def test_a_fault_of_the_server_is_an_error_in_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(echo(), tmp_path / "t.jsonl") as port:
        monkeypatch.setattr("vertigym.serving.model_calls.reply_of", lambda *_: 1 / 0)
        status, answer = post(port, "/v1/chat/completions", ask("q"))
    assert (status, answer["error"]["type"]) == (500, "server_error")


def nested(levels: int) -> bytes:
    return b'{"model": "m", "messages": [{"role": "user", "content": "q"}], "metadata": {"a": %s%s}}' % (
        b"[" * levels,
        b"]" * levels,
    )


def numbered(name: str, number: str) -> bytes:
    return b'{"model": "m", "messages": [{"role": "user", "content": "q"}], "%s": %s}' % (
        name.encode(),
        number.encode(),
    )


@pytest.mark.parametrize(
    "body",
    [
        nested(120),
        nested(400_000),
        numbered("seed", "9" * 5000),
        numbered("seed", "1e400"),
        numbered("temperature", "NaN"),
        numbered("temperature", "1e309"),
        numbered("metadata", '{"a": Infinity}'),
        numbered("metadata", '{"a": 1e999}'),
        numbered("metadata", '{"a": %s}' % ("9" * 5000)),
        numbered("documents", '[{"id": "a", "text": "b", "rank": NaN}]'),
        numbered("user", '"' + "u" * 201 + '"'),
        numbered("user", r'"\ud800"'),
        b"null",
        b"",
    ],
    ids=lambda body: str(body[-60:]),
)
def test_depth_and_numbers_are_bounded(body: bytes, port: int) -> None:
    status, answer = post(port, "/v1/chat/completions", body)
    assert status == 400, answer
    assert len(answer["error"]["message"]) < 300


def test_feedback_is_bounded_as_well(port: int) -> None:
    for stars in ("1e999", "NaN", "9" * 5000, "[" * 120 + "]" * 120):
        body = b'{"id": "x", "stars": %s}' % stars.encode()
        assert post(port, "/feedback", body)[0] == 400


HEAD = "Host: localhost\r\nContent-Type: application/json\r\n"


def test_a_body_that_does_not_arrive_is_cut_off(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", limits=ServerLimits(body_s=0.2)) as port:
        request = f"POST /v1/chat/completions HTTP/1.1\r\n{HEAD}Content-Length: 100\r\n\r\n{{"
        head, body = raw(port, request.encode())
    assert head.startswith(b"HTTP/1.1 408")
    assert "not whole within 0.2 s" in json.loads(body)["error"]["message"]


@pytest.mark.parametrize(
    ("line", "key", "status"),
    [
        ("POST /v1/chat/completions", "", b"413"),
        ("POST /v1/chat/completions", KEY, b"401"),
        ("POST /nothing", "", b"404"),
        ("GET /health", "", b"200"),
    ],
)
def test_an_endless_body_is_cut_off(line: str, key: str, status: bytes, tmp_path: Path) -> None:
    chunk = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    answer = b""
    with (
        serving(echo(), tmp_path / "t.jsonl", key=key) as port,
        socket.create_connection(("127.0.0.1", port), timeout=60) as connection,
    ):
        connection.sendall(f"{line} HTTP/1.1\r\n{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode())
        try:
            for _ in range(1000):
                connection.sendall(chunk)
            raise AssertionError("a gigabyte was taken")
        except OSError:
            pass
        try:
            answer = connection.recv(65536)
        except OSError:
            return  # the response was lost with the connection
    assert answer.startswith(b"HTTP/1.1 " + status)


def test_half_a_surrogate_pair_in_a_reply_is_recorded_and_sent(tmp_path: Path) -> None:
    with serving(Scripted(lambda _: "a\ud800"), tmp_path / "t.jsonl") as port:
        status, answer = post(port, "/v1/chat/completions", ask("q"))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "a\ud800")
        assert post(port, "/v1/chat/completions", ask("q", stream=True))[0] == 200
    assert [row["completion"] for row in recorded(tmp_path / "t.jsonl")] == ["a\ud800"] * 2
