"""`vertigym serve` and its callers: who hangs up, who comes through a proxy, who sends wrong keys."""

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest
import torch

from vertigym.core.errors import ConfigError
from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.policies import tiny
from vertigym.policies.scripted import echo
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.serving.admission import _client, check_address, trusted_networks
from vertigym.serving.app import ServerLimits
from vertigym.serving.batcher import Batcher
from vertigym.serving.recorder import Recorder
from vertigym.traces.config import ImportConfig
from vertigym.traces.importer import import_traces

from .served import KEY, Gathering, ask, client, post, recorded, serving, until

S = Sampling()
TWO = ServerLimits(per_minute=2)


@contextmanager
def hanging(port: int, body: object) -> Iterator[socket.socket]:
    """A connection that has asked; leaving hangs up."""
    sent = json.dumps(body).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(sent)}\r\n"
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + sent)
        yield connection


class Stepwise:
    """Writes a token at a time until told to stop, as an engine that asks between tokens does."""

    def __init__(self) -> None:
        self.writing = threading.Event()
        self.asked: list[str] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [self._one(prompt) for prompt in prompts]

    def _one(self, prompt: Prompt) -> Completion:
        text = prompt.messages[-1]["content"]
        self.asked.append(text)
        if text != "endless":
            return Completion(text, completion_tokens=1)
        assert prompt.cancelled
        if prompt.on_text:
            prompt.on_text("half")
        self.writing.set()
        until(prompt.cancelled)
        return Completion("half a rep", completion_tokens=3)


@pytest.mark.parametrize("stream", [False, True])
def test_a_caller_who_hangs_up_ends_the_generation_and_the_record_says_so(stream: bool, tmp_path: Path) -> None:
    policy, file = Stepwise(), tmp_path / "t.jsonl"
    with serving(policy, file) as port:
        with hanging(port, ask("endless", stream=stream)) as connection:
            policy.writing.wait(30)
            assert not stream or connection.recv(4096), "the first piece has come"
        assert post(port, "/v1/chat/completions", ask("next"))[0] == 200
        until(lambda: len(recorded(file)) == 2)
        gone, answered = recorded(file)
        assert (gone["completion"], gone["delivered"]) == ("half a rep", False)
        assert "delivered" not in answered
        assert post(port, "/feedback", {"id": gone["id"], "thumb": "up"})[0] == 404
        assert post(port, "/feedback", {"id": answered["id"], "thumb": "up"})[0] == 200
    recorder = Recorder(file)
    assert recorder.known() == {answered["id"]}
    recorder.close()


def test_a_request_whose_caller_hangs_up_while_it_waits_is_dropped_and_leaves_its_place() -> None:
    policy = Gathering()
    batcher = Batcher(policy, waiting=1)

    async def calls() -> list[str]:
        def asked(text: str, hung_up: "asyncio.Future[None] | None" = None) -> "asyncio.Task[Completion]":
            return asyncio.create_task(batcher.ask(Prompt([{"role": "user", "content": text}]), S, hung_up))

        first = asked("first")
        await asyncio.to_thread(policy.began.wait, 30)
        gone = []
        for _ in range(3):
            hung_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            gone.append(asked("gone", hung_up))
            await asyncio.sleep(0)
            hung_up.set_result(None)
            assert (await gone[-1]).text == ""
        last = asked("last")
        await asyncio.sleep(0)
        policy.go.set()
        return [(await one).text for one in (first, last)]

    assert asyncio.run(calls()) == ["first", "last"]
    batcher.close()
    assert [size for size, _ in policy.batches] == [1, 1]


def test_the_import_leaves_undelivered_calls_out_and_counts_them(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    whole = {"messages": [{"role": "user", "content": "where is it"}], "completion": "shipping"}
    file.write_text(json.dumps(whole) + "\n" + json.dumps(whole | {"completion": "shi", "delivered": False}))
    config = ImportConfig.model_validate({"split": {"eval": 0, "test": 0}})
    report = import_traces([file], tmp_path / "traces", config)
    assert [row["completion"] for row in recorded(tmp_path / "traces" / "train.jsonl")] == ["shipping"]
    assert "a call whose caller hung up" in report.model_dump_json()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    size = tiny.TinySize(hidden=32, layers=2, heads=4, key_heads=2, ffn=48, context=64, init_std=0.3)
    tiny.build(["approve or reject the return of 40 items"] * 3, folder, size=size)
    return TransformersEngine.load(folder)


def test_the_transformers_engine_stops_a_cancelled_row_and_no_other(engine: TransformersEngine) -> None:
    def row(ids: list[int], cancelled_after: int = 1000) -> Prompt:
        asked = iter(range(2000))
        return Prompt((), token_ids=ids, cancelled=lambda: next(asked) >= cancelled_after)

    sampling = Sampling(temperature=0, max_tokens=12)
    whole = [engine.generate([row(ids)], sampling)[0] for ids in ([5, 6, 7], [9, 8])]
    assert all(len(completion.token_ids) > 4 for completion in whole), "the model must write on by itself"
    stopped, other = engine.generate([row([5, 6, 7], cancelled_after=3), row([9, 8])], sampling)
    assert list(stopped.token_ids) == list(whole[0].token_ids)[:4]
    assert other.token_ids == whole[1].token_ids


def asks_as(port: int, *forwarded: str, key: str = KEY) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    if forwarded:
        headers["X-Forwarded-For"] = ", ".join(forwarded)
    return post(port, "/v1/chat/completions", ask("q"), headers)[0]


def test_forwarded_addresses_do_not_count_unless_a_proxy_was_named(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key=KEY, limits=TWO) as port:
        assert [asks_as(port, f"10.0.0.{n}") for n in range(3)] == [200, 200, 429]


def test_behind_a_named_proxy_the_last_address_that_is_no_proxy_counts(tmp_path: Path) -> None:
    proxies = ["127.0.0.1", "10.9.0.0/16"]
    with serving(echo(), tmp_path / "t.jsonl", key=KEY, limits=TWO, proxies=proxies) as port:
        assert [asks_as(port, f"1.1.1.{n}", "2.2.2.2", "10.9.3.4") for n in range(3)] == [200, 200, 429]
        assert asks_as(port, "2.2.2.2", "3.3.3.3") == 200, "what a caller writes in front changes nothing"


def test_another_proxy_than_the_named_is_a_caller(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key=KEY, limits=TWO, proxies=["10.9.0.1"]) as port:
        assert [asks_as(port, f"1.1.1.{n}") for n in range(3)] == [200, 200, 429]


def test_an_ipv6_caller_is_a_network_and_text_that_is_no_address_one_caller() -> None:
    assert _client("2001:db8:1:2::1") == _client("2001:db8:1:2:ffff::9") != _client("2001:db8:1:3::1")
    assert _client("::ffff:1.2.3.4") == _client("1.2.3.4") != _client("1.2.3.5")
    assert _client("x" * 60_000) == _client("unknown") == ""


@pytest.mark.parametrize("proxy", ["*", "0.0.0.0/0", "::/0", "proxy.example", "10.0.0.1:80", ""])
def test_a_proxy_is_named_by_address(proxy: str) -> None:
    with pytest.raises(ConfigError, match="give its IP address or network"):
        trusted_networks([proxy])


def test_a_proxy_is_known_on_an_ipv6_socket_as_well() -> None:
    assert trusted_networks(["10.0.0.7", "2001:db8::/32"]) == [
        "10.0.0.7/32",
        "::ffff:10.0.0.7/128",
        "2001:db8::/32",
    ]


def test_a_proxy_brings_others_so_it_needs_a_key() -> None:
    with pytest.raises(ConfigError, match="through a proxy, and there is no key"):
        check_address("127.0.0.1", "", ["127.0.0.1"])
    check_address("127.0.0.1", KEY, ["127.0.0.1"])


def test_wrong_keys_are_slowed_by_address_and_the_right_one_with_them(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key=KEY, proxies=["127.0.0.1"]) as port:
        for path in ("/v1/chat/completions", "/feedback") * 5:
            status, answer = post(port, path, {}, {"X-Forwarded-For": "6.6.6.6", "Authorization": "Bearer no"})
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
        assert asks_as(port, "6.6.6.6", key="another-guess") == 429
        assert asks_as(port, "6.6.6.6") == 429, "a guess that is not checked tells nothing"
        assert asks_as(port, "7.7.7.7") == 200
        with client(port, "wrong") as api, pytest.raises(openai.AuthenticationError) as refused:
            api.models.list()
        assert refused.value.response.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    ("header", "status"),
    [
        (f"bearer {KEY}", 200),
        (f"BEARER  {KEY}", 200),
        (f"Basic {KEY}", 401),
        (KEY, 401),
        ("Bearer", 401),
        ("Bearer \xe9\xff", 401),
    ],
)
def test_the_scheme_is_bearer_in_any_case(header: str, status: int, tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key=KEY) as port:
        assert post(port, "/v1/chat/completions", ask("q"), {"Authorization": header})[0] == status


def test_a_key_may_hold_any_character(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key="schlüssel-für-alle") as port:
        sent = "Bearer schlüssel-für-alle".encode().decode("latin-1")
        assert post(port, "/v1/chat/completions", ask("q"), {"Authorization": sent})[0] == 200
