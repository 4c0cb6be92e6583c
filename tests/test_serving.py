"""`vertigym serve` over real HTTP: the official client, feedback, keys, limits."""

import asyncio
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import openai
import pytest

from vertigym.core.errors import ConfigError, EngineError, InputError
from vertigym.core.types import Completion, Decoding, Policy, Prompt, Sampling, StopReason
from vertigym.policies.scripted import Scripted, echo
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.serving import service
from vertigym.serving.admission import RateLimiter, check_address
from vertigym.serving.app import ServerLimits
from vertigym.serving.batcher import Batcher
from vertigym.serving.service import default_name, serve, version_of, with_engine
from vertigym.traces.records import Trace

from .programs import engine_of_few_words
from .served import KEY, Gathering, ask, client, post, recorded, serving, until

ENGINES = ("auto", "transformers")


def test_the_official_client_is_answered_and_every_call_recorded(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "t.jsonl"
    with serving(echo(), file) as port, client(port) as api:
        assert [model.id for model in api.models.list()] == ["m"]
        reply = api.chat.completions.create(
            model="m",
            messages=[{"role": "system", "content": "s"}, {"role": "user", "content": "héllo\n\U0001f600"}],
            user="acme",
            metadata={"team": "x"},
            extra_body={"documents": [{"id": "p1", "text": "the text"}]},
        )
        assert reply.choices[0].message.content == "héllo\n\U0001f600"
        assert (reply.choices[0].finish_reason, reply.system_fingerprint) == ("stop", "v1")
        assert reply.usage is not None
        assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens > 0
        streamed = api.chat.completions.create(**ask("again"), stream=True)
        pieces = list(streamed)
        assert "".join(piece.choices[0].delta.content or "" for piece in pieces) == "again"
        assert pieces[-1].choices[0].finish_reason == "stop"
    first, second = (Trace.model_validate(row) for row in recorded(file))
    assert (first.id, first.completion, first.model, first.version) == (
        reply.id,
        "héllo\n\U0001f600",
        "m",
        "v1",
    )
    assert (first.customer, first.meta["team"], first.documents[0].id) == ("acme", "x", "p1")
    assert first.time is not None
    assert abs(first.time - time.time()) < 600
    assert second.id == pieces[0].id
    assert file.stat().st_mode & 0o077 == 0, "only its owner may read what customers wrote"


def test_feedback_is_recorded_for_calls_on_record_only(tmp_path: Path) -> None:
    file = tmp_path / "t.jsonl"
    with serving(echo(), file) as port:
        _, reply = post(port, "/v1/chat/completions", ask("q"))
        said = {"id": reply["id"], "thumb": "down", "edit": "better", "outcome": "reopened", "stars": 2}
        assert post(port, "/feedback", said) == (200, {"id": reply["id"], "recorded": True})
        assert post(port, "/feedback", {"id": "other", "thumb": "up"})[0] == 404
        assert post(port, "/feedback", {"id": reply["id"]})[0] == 400
        assert post(port, "/feedback", {"id": reply["id"], "thumb": "sideways"})[0] == 400
    row = recorded(file)[1]
    assert row["feedback"] == {"thumb": "down", "edit": "better", "stars": 2}
    assert (row["id"], row["outcome"], "label" in row) == (reply["id"], "reopened", False)
    with serving(echo(), file) as port:  # a new server knows the old one's calls
        assert post(port, "/feedback", {"id": reply["id"], "resolved": True})[0] == 200


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (ask("q") | {"model": "gpt"}, 404, "no model 'gpt' here: this is 'm'"),
        ({"model": "m", "messages": []}, 400, "messages: List should have at least 1 item"),
        (ask("q", n=0), 400, "n: Input should be greater than or equal to 1"),
        (ask("q", stop=["x", ""]), 400, "stop"),
        (ask("q", temperature=-1), 400, "temperature"),
        ({"model": "m", "messages": [{"role": "boss", "content": "q"}]}, 400, "role"),
        (b"{not json", 400, "Invalid JSON"),
        (b"[" * 100_000, 400, ""),
        (b"\xff\xfe", 400, ""),
        (b"x" * 2_000_000, 413, "larger than 1,000,000 bytes"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(body: Any, status: int, says: str, tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl") as port:
        got, answer = post(port, "/v1/chat/completions", body)
    assert got == status
    assert says in answer["error"]["message"]
    assert not recorded(tmp_path / "t.jsonl")


def test_content_in_parts_is_read_as_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    with serving(echo(), tmp_path / "t.jsonl") as port:
        body = {"model": "m", "messages": [{"role": "user", "content": parts}]}
        assert post(port, "/v1/chat/completions", body)[1]["choices"][0]["message"]["content"] == "ab"
        body["messages"][0]["content"] = [{"type": "image_url", "image_url": {"url": "x"}}]  # type: ignore[index]
        assert post(port, "/v1/chat/completions", body)[0] == 400


def test_without_a_key_web_pages_cannot_reach_it(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl") as port:
        assert post(port, "/v1/chat/completions", ask("q"), {"Host": "evil.example"})[0] == 400
        assert post(port, "/v1/chat/completions", ask("q"), {"Content-Type": "text/plain"})[0] == 415
    assert not recorded(tmp_path / "t.jsonl")


def test_a_key_is_asked_for(tmp_path: Path) -> None:
    with serving(echo(), tmp_path / "t.jsonl", key=KEY) as port:
        assert post(port, "/v1/chat/completions", ask("q"))[0] == 401
        assert post(port, "/feedback", {"id": "x", "thumb": "up"}, {"Authorization": "Bearer wrong"})[0] == 401
        with client(port, KEY) as api:
            assert api.chat.completions.create(**ask("q")).choices[0].message.content == "q"
        with client(port, "wrong") as api, pytest.raises(openai.AuthenticationError):
            api.models.list()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.com"])
def test_others_reach_a_server_only_with_a_key(host: str) -> None:
    with pytest.raises(ConfigError, match="can be reached by others, and there is no key"):
        check_address(host, "")
    check_address(host, KEY)
    with pytest.raises(ConfigError, match="shorter than 16 characters"):
        check_address(host, "short")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.3.2.1", "::1", "localhost"])
def test_this_machine_needs_no_key(host: str) -> None:
    check_address(host, "")


def test_a_client_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    now = [0.0]
    pace = RateLimiter(60, clock=lambda: now[0])
    assert [pace.wait("a") for _ in range(61)] == [0] * 60 + [2]
    assert pace.wait("b") == 0
    now[0] = 1.5
    assert [pace.wait("a"), pace.wait("a")] == [0, 1]
    assert RateLimiter(0).wait("a") == 0
    with serving(echo(), tmp_path / "t.jsonl", limits=ServerLimits(per_minute=2)) as port:
        statuses = [post(port, "/v1/chat/completions", ask("q"))[0] for _ in range(3)]
        assert statuses == [200, 200, 429]
        with client(port) as api, pytest.raises(openai.RateLimitError):
            api.chat.completions.create(**ask("q"))


def test_waiting_requests_share_batches_and_each_gets_its_own_answer() -> None:
    policy = Gathering()
    batcher = Batcher(policy, most=8)

    async def twenty() -> list[str]:
        prompts = [Prompt([{"role": "user", "content": str(n)}]) for n in range(20)]
        kinds = [Sampling(max_tokens=20), Sampling(max_tokens=50)]
        asked = [asyncio.create_task(batcher.ask(one, kinds[n % 2])) for n, one in enumerate(prompts)]
        await asyncio.sleep(0)  # all are waiting now
        policy.go.set()
        return [(await one).text for one in asked]

    assert asyncio.run(twenty()) == [str(n) for n in range(20)]
    batcher.close()
    assert sum(size for size, _ in policy.batches) == 20
    assert 4 <= len(policy.batches) <= 6
    assert max(size for size, _ in policy.batches) == 8
    assert {most for _, most in policy.batches} == {20, 50}


class Picky:
    """Cannot take one kind of message, as a chat template can fail on some."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        if any("bad" in prompt.messages[-1]["content"] for prompt in prompts):
            raise TypeError("can only concatenate str")
        return [Completion(prompt.messages[-1]["content"], completion_tokens=1) for prompt in prompts]


def test_a_request_the_engine_chokes_on_harms_no_other_of_its_batch() -> None:
    batcher = Batcher(Picky(), most=8)

    async def three() -> list[Any]:
        prompts = [Prompt([{"role": "user", "content": text}]) for text in ("a", "bad", "b")]
        return await asyncio.gather(*(batcher.ask(p, Sampling()) for p in prompts), return_exceptions=True)

    first, wrong, last = asyncio.run(three())
    batcher.close()
    assert (first.text, last.text) == ("a", "b")
    assert isinstance(wrong, EngineError)
    assert "can only concatenate str" in str(wrong)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> TransformersEngine:
    return engine_of_few_words(tmp_path_factory.mktemp("m"), "say that was long", hidden=32, ffn=32)


def said(length: int, seed: int = 0, **more: Any) -> Prompt:
    return Prompt(
        (), token_ids=[5 + i * i % 250 for i in range(30)], seed=seed, decoding=Decoding(length), **more
    )


def test_a_request_joins_the_batch_that_is_decoded_and_changes_no_bit_of_it(engine: TransformersEngine) -> None:
    engine = copy(engine)
    engine._stop = []  # nothing ends a reply but its length
    sampling = Sampling(max_tokens=400)
    first, second = said(400), said(3, seed=1)
    alone = [asyncio.run(asked_alone(engine, one, sampling)) for one in (first, second)]
    batcher, ended = Batcher(engine), list[int]()

    async def both() -> list[Completion]:
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def heard(_: str) -> None:
            loop.call_soon_threadsafe(begun.set)

        slow = replace(first, on_text=heard)
        one = asyncio.create_task(batcher.ask(slow, sampling))
        await begun.wait()
        other = asyncio.create_task(batcher.ask(second, sampling))
        one.add_done_callback(lambda _: ended.append(0))
        other.add_done_callback(lambda _: ended.append(1))
        return [await one, await other]

    together = asyncio.run(both())
    batcher.close()
    assert ended == [1, 0], "the short one does not wait for the long one"
    assert [(c.token_ids, c.logprobs) for c in together] == [(c.token_ids, c.logprobs) for c in alone]


async def asked_alone(engine: TransformersEngine, prompt: Prompt, sampling: Sampling) -> Completion:
    batcher = Batcher(engine)
    answer = await batcher.ask(prompt, sampling)
    batcher.close()
    return answer


def test_a_request_at_fault_harms_no_other_of_a_running_batch(engine: TransformersEngine) -> None:
    batcher = Batcher(engine)

    async def three() -> list[Any]:
        wrong = replace(said(5), decoding=Decoding(5, grammar="no grammar at all"))
        begun, loop = asyncio.Event(), asyncio.get_running_loop()

        def heard(_: str) -> None:
            loop.call_soon_threadsafe(begun.set)

        first = asyncio.create_task(batcher.ask(said(300, on_text=heard), Sampling(max_tokens=300)))
        await begun.wait()
        asked = [first, *(batcher.ask(one, Sampling(max_tokens=300)) for one in (wrong, said(6)))]
        return await asyncio.gather(*asked, return_exceptions=True)

    first, wrong, last = asyncio.run(three())
    batcher.close()
    assert isinstance(wrong, InputError)
    assert last.completion_tokens <= 6
    assert first.token_ids[: last.completion_tokens] == last.token_ids


def test_no_reply_is_longer_than_the_server_allows(tmp_path: Path) -> None:
    policy = Gathering()
    policy.go.set()
    with serving(policy, tmp_path / "t.jsonl", limits=ServerLimits(max_tokens=50)) as port:
        for asked in ({"max_tokens": 900}, {"max_completion_tokens": 20}, {}):
            assert post(port, "/v1/chat/completions", ask("q", **asked))[0] == 200
    assert [most for _, most in policy.batches] == [50, 20, 50]


def test_too_many_waiting_requests_are_turned_away(tmp_path: Path) -> None:
    policy = Gathering()
    limits = ServerLimits(waiting=2)
    with serving(policy, tmp_path / "t.jsonl", limits=limits) as port, ThreadPoolExecutor(12) as pool:
        asked = [pool.submit(post, port, "/v1/chat/completions", ask(str(n))) for n in range(12)]
        until(lambda: any(one.done() for one in asked))
        policy.go.set()
        statuses = [one.result()[0] for one in asked]
    assert set(statuses) == {200, 503}
    assert len(recorded(tmp_path / "t.jsonl")) == statuses.count(200)


def failing(prompts: Prompt) -> str:
    raise OSError("gone")


class Broken:
    """Its engine fails as a whole."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        raise EngineError("out of memory")


class Crowded:
    """Has no room for the prompt."""

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
        return [Completion("", StopReason.LENGTH) for _ in prompts]


@pytest.mark.parametrize(
    ("policy", "status", "says"),
    [(Scripted(failing), 503, "OSError: gone"), (Broken(), 503, "out of memory"), (Crowded(), 400, "context")],
)
def test_a_failure_is_an_error_and_no_trace(policy: Policy, status: int, says: str, tmp_path: Path) -> None:
    with serving(policy, tmp_path / "t.jsonl") as port:
        for _ in range(2):  # the server outlives it
            got, answer = post(port, "/v1/chat/completions", ask("q"))
            assert got == status
            assert says in answer["error"]["message"]
    assert not recorded(tmp_path / "t.jsonl")


def test_a_reachable_host_without_a_key_does_not_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VERTIGYM_SERVE_KEY", raising=False)
    with pytest.raises(ConfigError, match="no key: set VERTIGYM_SERVE_KEY"):
        serve("scripted:echo", tmp_path / "t.jsonl", host="0.0.0.0", port=0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ConfigError, match="cannot listen on"):
        serve("scripted:echo", tmp_path / "t.jsonl", port=taken.getsockname()[1])
    assert not (tmp_path / "t.jsonl").exists()


def test_a_folder_is_decoded_by_vllm_where_that_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tmp_path)
    monkeypatch.setattr(service, "find_spec", lambda name: None)
    assert [with_engine(folder, engine) for engine in ENGINES] == [folder, folder]
    assert with_engine(folder, "vllm") == f"vllm:{folder}"
    monkeypatch.setattr(service, "find_spec", lambda name: object())
    assert [with_engine(folder, engine) for engine in ENGINES] == [f"vllm:{folder}", folder]
    assert with_engine("openai:m@http://x/v1", "auto") == "openai:m@http://x/v1"
    assert default_name(f"vllm:{folder}") == default_name(folder)


def test_a_version_names_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "intent" / "checkpoints" / "step-000050"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"1")
    before = version_of(folder)
    (folder / "model.safetensors").write_bytes(b"2")
    assert before.startswith("step-000050-")
    assert before != version_of(folder)
    assert default_name(str(folder)) == "intent"
    assert default_name("openai:big@http://x/v1") == "big"
    assert default_name("org/small@0123abcd") == default_name("vllm:org/small@0123abcd") == "org/small"
