"""An endpoint that answers 429, 500, nonsense, slowly, or never: nothing is lost or scored as wrong."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import ConfigError, EngineError
from vertigym.core.types import Prompt, Sampling, StopReason, Task
from vertigym.envs import SingleTurnEnv, TaskSet
from vertigym.envs.tool_calls import tool_call
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.endpoint import EndpointPolicy
from vertigym.policies.load import load_policy
from vertigym.rewards.rubric import Rubric
from vertigym.rollouts.rollout import Episode, rollout

Answer = Callable[[str, int], tuple[int, Any]]


def reply(text: str, finish: str = "stop") -> dict[str, Any]:
    return {
        "id": "1", "object": "chat.completion", "created": 0, "model": "m",
        "choices": [{"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9},
    }  # fmt: skip


class Server:
    """A chat endpoint on a free port; `answer(question, tries)` gives status and body."""

    def __init__(self, answer: Answer) -> None:
        self.tries: Counter[str] = Counter()
        self.requests: list[dict[str, Any]] = []
        self.starts: list[float] = []
        lock = threading.Lock()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                question = body["messages"][-1]["content"]
                with lock:
                    server.starts.append(time.monotonic())
                    server.requests.append(body)
                    server.tries[question] += 1
                    count = server.tries[question]
                status, content = answer(question, count)
                data = content if isinstance(content, bytes) else json.dumps(content).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Type", "application/json")
                    self.send_header("Retry-After", "0")
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except (BrokenPipeError, ConnectionResetError):  # the client gave up waiting
                    pass

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    servers: list[Server] = []

    def start(answer: Answer) -> Server:
        servers.append(Server(answer))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def ask(policy: EndpointPolicy, *questions: str) -> list[Any]:
    prompts = [Prompt([{"role": "user", "content": q}], seed=i) for i, q in enumerate(questions)]
    return policy.generate(prompts, Sampling(temperature=0.5, max_tokens=9))


def test_it_asks_and_reads_as_the_protocol_says(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda question, _: (200, reply(question.upper(), "length" if question == "b" else "stop")))
    first, second = ask(EndpointPolicy("m", server.url), "a", "b")
    assert (first.text, first.stop_reason, second.stop_reason) == ("A", StopReason.STOP, StopReason.LENGTH)
    assert (first.prompt_tokens, first.completion_tokens) == (7, 2)
    assert first.latency_s > 0
    sent = next(r for r in server.requests if r["messages"][-1]["content"] == "b")
    assert (sent["model"], sent["temperature"], sent["max_tokens"], sent["seed"]) == ("m", 0.5, 9, 1)


def test_tool_calls_become_text_that_environments_read(serve: Callable[[Answer], Server]) -> None:
    answer = reply("I look.", "tool_calls")
    function = {"name": "get", "arguments": '{"case": "R1"}'}
    answer["choices"][0]["message"]["tool_calls"] = [{"id": "1", "type": "function", "function": function}]
    server = serve(lambda question, tries: (200, answer))
    (completion,) = ask(EndpointPolicy("m", server.url), "?")
    assert completion.text.startswith("I look.<tool_call>")
    assert tool_call(completion.text) == ("get", {"case": "R1"})


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again(serve: Callable[[Answer], Server], status: int) -> None:
    def flaky(question: str, tries: int) -> tuple[int, Any]:
        return (status, {"error": {"message": "busy"}}) if tries < 3 else (200, reply("ok"))

    server = serve(flaky)
    assert [c.text for c in ask(EndpointPolicy("m", server.url, retries=3), "a", "b", "c")] == ["ok"] * 3
    assert set(server.tries.values()) == {3}


def bad(question: str, _: int) -> tuple[int, Any]:
    match question:
        case "never":
            time.sleep(3)
        case "nonsense":
            return 200, b"<html>gateway</html>"
        case "empty":
            return 200, {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": []}
        case "filtered":
            return 200, reply("", "content_filter")
        case "broken":
            return 500, {"error": {"message": "oh no"}}
        case "refused":
            return 400, {"error": {"message": "context too long"}}
    return 200, reply(question)


def test_what_does_not_pass_is_an_error_that_names_its_cause(serve: Callable[[Answer], Server]) -> None:
    server = serve(bad)
    policy = EndpointPolicy("m", server.url, retries=1, timeout_s=0.5)
    found = dict(
        zip(
            ["never", "nonsense", "empty", "filtered", "broken", "refused", "good"],
            ask(policy, "never", "nonsense", "empty", "filtered", "broken", "refused", "good"),
            strict=True,
        )
    )
    assert found.pop("good").text == "good"
    assert {c.stop_reason for c in found.values()} == {StopReason.ERROR}
    assert "no answer in time" in found["never"].error
    assert "not a chat completion" in found["nonsense"].error
    assert "not a chat completion" in found["empty"].error
    assert "content_filter" in found["filtered"].error
    assert "status 500" in found["broken"].error
    assert "status 400" in found["refused"].error


def test_failures_are_not_scored_and_the_others_are(serve: Callable[[Answer], Server]) -> None:
    server = serve(bad)
    policy = EndpointPolicy("m", server.url, retries=0, timeout_s=0.5)
    names = ["good", "nonsense", "right", "never"]
    tasks = TaskSet([Task(id=name, prompt=name, answer=name) for name in names])
    env = SingleTurnEnv(tasks, Rubric(lambda completion, answer: completion == answer))
    played = rollout(policy, env, [Episode(name) for name in names], Sampling())
    assert [t.score.value for t in played] == [1.0, None, 1.0, None]


def test_a_resumed_eval_asks_again_only_for_what_failed(
    serve: Callable[[Answer], Server], tmp_path: Path
) -> None:
    sick = True

    def answer(question: str, _: int) -> tuple[int, Any]:
        return (500, {"error": {"message": "down"}}) if sick and "grocery" in question else (200, reply("{}"))

    server = serve(answer)
    (tmp_path / "suite.toml").write_text(
        'name = "r"\n[[env]]\nid = "vertigym/Returns-v0"\nsplit = "eval"\ntasks = 40\n'
    )
    suite, policy = load_suite(tmp_path / "suite.toml"), EndpointPolicy("m", server.url, retries=0)
    first = run_suite(suite, policy, out=tmp_path / "out")
    assert 0 < first.unscored < 40
    assert all("status 500" in reason for reason in first.reasons)
    sick, before = False, Counter(server.tries)
    second = run_suite(suite, policy, out=tmp_path / "out", resume=True)
    assert second.unscored == 0
    asked_again = server.tries - before
    assert sum(asked_again.values()) == first.unscored
    assert all("grocery" in question for question in asked_again)


def test_an_endpoint_that_is_not_there_ends_the_eval(serve: Callable[[Answer], Server]) -> None:
    server = serve(bad)
    server.close()
    with pytest.raises(EngineError, match=r"endpoint http://127.*unreachable"):
        ask(EndpointPolicy("m", server.url, retries=0), "a", "b")


def test_requests_are_paced(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda *_: (200, reply("ok")))
    ask(EndpointPolicy("m", server.url, requests_per_minute=600), *"abcdef")
    starts = sorted(server.starts)
    assert starts[-1] - starts[0] >= 0.45, "six starts, a tenth of a second apart"


def test_its_name_on_the_command_line(serve: Callable[[Answer], Server]) -> None:
    server = serve(lambda *_: (200, reply("ok")))
    policy = load_policy(f"openai:some/model@{server.url}")
    assert isinstance(policy, EndpointPolicy)
    assert (policy.model, policy.base_url) == ("some/model", server.url)
    for wrong in ("openai:model", "openai:@http://x", "openai:m@ftp://x"):
        with pytest.raises(ConfigError):
            load_policy(wrong)
