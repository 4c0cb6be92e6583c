"""vLLM's server backend against a fake one with every fault, and against several."""

import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.core.errors import ConfigError, EngineError
from vertigym.core.types import Completion, Prompt, Sampling, StopReason
from vertigym.policies import vllm_subprocess
from vertigym.policies.lora import merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.policies.vllm_client import save_weights
from vertigym.policies.vllm_engine import VLLMEngine, open_vllm
from vertigym.policies.vllm_subprocess import VLLMSubprocess

from .fake_vllm import QUICK, FakeVLLM, tiny_folder

PROMPTS = [Prompt((), token_ids=[5 + i % 7, 9, 8], seed=i) for i in range(24)]
SAMPLING = Sampling(max_tokens=6, temperature=0.8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeVLLM]:
    server = FakeVLLM(folder).start()
    yield server
    server.stop()


Open = Callable[..., VLLMEngine]


@pytest.fixture
def connect(folder: Path, fake: FakeVLLM) -> Iterator[Open]:
    """An engine on the fake server, following a model whose weights are not the folder's."""
    opened: list[VLLMEngine] = []

    def open_one(**limits: Any) -> VLLMEngine:
        model, _ = load_model(folder)
        torch.manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        config = VLLMConfig(**{**QUICK, "url": fake.url, **limits})
        engine = open_vllm(folder, config, dtype="float32", weights=lambda: merged_state(model))
        engine.model = model  # type: ignore[attr-defined]
        opened.append(engine)
        return engine

    yield open_one
    for engine in opened:
        engine.close()


def expected(engine: VLLMEngine) -> list[tuple[int, ...]]:
    """What the followed model writes."""
    model = engine.model  # type: ignore[attr-defined]
    alone = TransformersEngine(model, engine.tokenizer)
    return [tuple(alone.generate([prompt], SAMPLING)[0].token_ids) for prompt in PROMPTS]


def limit(engine: VLLMEngine, **limits: float) -> None:
    """Other limits, once it is open."""
    backend: Any = engine.backend
    for one in (backend, *backend.servers):
        one.config = one.config.model_copy(update=limits)


def tokens(written: list[Completion]) -> list[tuple[int, ...]]:
    return [tuple(one.token_ids) for one in written]


def test_tokens_log_probs_and_versions_come_through(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    before = engine.generate(PROMPTS, SAMPLING)
    assert {one.policy_version for one in before} == {0}
    assert tokens(before) == expected(engine), "a server that is given is handed our weights at once"
    with torch.no_grad():
        for parameter in engine.model.parameters():  # type: ignore[attr-defined]
            parameter.add_(0.1 * torch.randn_like(parameter))
    engine.refresh(7)
    written = engine.generate(PROMPTS, SAMPLING)
    assert tokens(written) == expected(engine) != tokens(before)
    assert {one.policy_version for one in written} == {7}
    assert all(len(one.logprobs) == len(one.token_ids) for one in written)
    assert fake.label.endswith("-7")


def test_a_server_killed_in_mid_batch_loses_and_doubles_nothing(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    engine.refresh(1)
    undisturbed = fake.asked

    def dying(path: str, count: int) -> str:
        if path.startswith("/inference") and count == undisturbed + 9:
            threading.Timer(0.3, fake.start).start()  # it comes back with the weights it started with
            return "die"
        return ""

    fake.fault = dying
    written = engine.generate(PROMPTS, SAMPLING)
    assert tokens(written) == expected(engine)
    assert {one.stop_reason for one in written} <= {StopReason.STOP, StopReason.LENGTH}
    assert fake.label.endswith("-1"), "the new process was given our weights"


def test_a_server_that_is_not_up_yet_is_waited_for(connect: Open, fake: FakeVLLM) -> None:
    fake.stop()
    threading.Timer(0.5, fake.start).start()
    assert len(connect().generate(PROMPTS[:2], SAMPLING)) == 2


def test_a_server_that_never_comes_up_ends_the_run_with_one_line(connect: Open, fake: FakeVLLM) -> None:
    fake.stop()
    with pytest.raises(
        EngineError, match=r"was not up within 0.5 s \(rollout.vllm.start_s\).*refused"
    ) as raised:
        connect(start_s=0.5)
    assert "\n" not in str(raised.value)


def test_a_request_that_never_returns_ends_the_run_within_its_limit(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    limit(engine, request_s=0.3, retries=1)
    fake.fault = lambda path, count: "hang" if path.startswith("/inference") else ""
    with pytest.raises(EngineError, match=r"24 of 24 requests were lost 2 times over .*no answer in time"):
        engine.generate(PROMPTS, SAMPLING)


def test_a_sync_that_never_returns_says_what_was_waited_for(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    limit(engine, sync_s=0.3, retries=0)
    fake.fault = lambda path, count: "hang" if path == "/collective_rpc" else ""
    with pytest.raises(EngineError, match=r"did not take over weights 3 \(limit rollout.vllm.sync_s = 0.3\)"):
        engine.refresh(3)


def test_failures_of_the_server_are_tried_again_and_then_told(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    first = fake.asked
    fake.fault = lambda path, count: (
        "500" if path.startswith("/inference") and count in (first, first + 6) else ""
    )
    engine.refresh(1)
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    fake.fault = lambda path, count: "500" if path.startswith("/inference") else ""
    with pytest.raises(EngineError, match=r"requests were lost 3 times over .*status 500: CUDA out of memory"):
        engine.generate(PROMPTS, SAMPLING)


def test_a_request_that_is_refused_for_its_own_fault_fails_alone(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    first = fake.asked
    fake.fault = lambda path, count: "400" if path.startswith("/inference") and count == first else ""
    written = engine.generate(PROMPTS, SAMPLING)
    assert [one.stop_reason for one in written].count(StopReason.ERROR) == 1


def test_what_another_run_has_put_there_is_not_taken(connect: Open, fake: FakeVLLM) -> None:
    engine = connect()
    engine.refresh(1)
    first = fake.asked

    def usurped(path: str, count: int) -> str:
        if path.startswith("/inference") and count == first + 5:
            fake.label = "somebody-3"
        return ""

    fake.fault = usurped
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert fake.label.endswith("-1")


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("context", r"context of 64 tokens, the model has 256: start it with --max-model-len 256"),
        ("raw", r"log-probs without the temperature; start vLLM 0.32 or later .*processed_logprobs"),
        ("403", r"status 403.*--enable-scale-out"),
    ],
)
def test_a_server_that_training_cannot_use_is_refused(
    what: str, message: str, connect: Open, fake: FakeVLLM
) -> None:
    fake.context = 64 if what == "context" else fake.context
    fake.raw = what == "raw"
    fake.fault = lambda path, count: "403" if what == "403" and path.startswith("/inference") else ""
    with pytest.raises(ConfigError, match=message):
        connect()


def test_the_output_head_is_handed_over_even_where_it_is_the_embedding(folder: Path, tmp_path: Path) -> None:
    model, _ = load_model(folder)
    assert model.lm_head.weight is model.model.embed_tokens.weight, "a model folder would leave it out"
    save_weights(merged_state(model), tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert saved.keys() == model.state_dict().keys() >= {"lm_head.weight"}


# Several servers.


def test_a_server_outlives_the_thread_that_asked_for_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_subprocess, "require_vllm", lambda _: None)
    process = VLLMSubprocess(folder, VLLMConfig(mode="server"), dtype="float32", context=256)
    process._command = ["sleep", "60"]
    asking = threading.Thread(target=process.ensure_running)
    asking.start()
    asking.join()
    with pytest.raises(subprocess.TimeoutExpired):
        process._process.wait(0.3)  # type: ignore[union-attr]
    process.stop()


@pytest.fixture
def second(folder: Path) -> Iterator[FakeVLLM]:
    server = FakeVLLM(folder).start()
    yield server
    server.stop()


def both(connect: Open, fake: FakeVLLM, second: FakeVLLM, **limits: Any) -> tuple[VLLMEngine, list[str]]:
    notes: list[str] = []
    engine = connect(url=(fake.url, second.url), **limits)
    engine.backend._on_note = notes.append  # type: ignore[attr-defined]
    engine.refresh(1)
    return engine, notes


def test_a_batch_is_spread_over_servers_and_each_has_the_weights(
    connect: Open, fake: FakeVLLM, second: FakeVLLM
) -> None:
    engine, notes = both(connect, fake, second)
    before = len(fake.answered), len(second.answered)
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert (len(fake.answered) - before[0], len(second.answered) - before[1]) == (12, 12)
    assert fake.label == second.label != "default"
    assert not notes


def test_what_a_killed_server_has_lost_another_writes_until_it_is_back(
    connect: Open, fake: FakeVLLM, second: FakeVLLM
) -> None:
    engine, notes = both(connect, fake, second)
    first, before = second.asked, len(fake.answered)
    second.fault = lambda path, count: "die" if path.startswith("/inference") and count == first + 5 else ""
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert len(fake.answered) - before > 12, "it has done the other's part"
    (note,) = notes
    assert note.startswith(f"1 of 2 vLLM servers are up ({second.url}: ")
    engine.refresh(2)
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    second.fault = lambda path, count: ""
    second.start()
    answered = len(second.answered)
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert len(second.answered) - answered == 12
    assert second.label == fake.label, "it was handed the weights of the others"
    assert notes[1] == "2 of 2 vLLM servers are up"


def test_a_server_that_hangs_is_left_alone_until_it_is_restarted(
    connect: Open, fake: FakeVLLM, second: FakeVLLM
) -> None:
    engine, notes = both(connect, fake, second)
    limit(engine, request_s=4.0)
    second.fault = lambda path, count: "hang" if path.startswith("/inference") else ""
    assert tokens(engine.generate(PROMPTS[:8], SAMPLING)) == expected(engine)[:8]
    limit(engine, request_s=30.0)
    asked = second.asked
    engine.refresh(2)
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert second.asked == asked
    second.fault = lambda path, count: ""
    second.stop()
    second.start()
    assert tokens(engine.generate(PROMPTS, SAMPLING)) == expected(engine)
    assert second.asked > asked
    assert [note[:6] for note in notes] == ["1 of 2", "2 of 2"]


def test_where_no_server_is_left_all_are_named(connect: Open, fake: FakeVLLM, second: FakeVLLM) -> None:
    engine, _ = both(connect, fake, second)
    limit(engine, start_s=0.5)
    fake.stop()
    second.stop()
    with pytest.raises(
        EngineError, match=rf"vLLM servers {fake.url}, {second.url} was not up within 0.5 s .*refused"
    ):
        engine.generate(PROMPTS, SAMPLING)
