"""vLLM's server backend against a fake one with every fault, and what config and trainer make of vLLM."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, EngineError, MissingDependencyError, RunError
from vertigym.core.files import read_jsonl
from vertigym.core.types import Completion, Message, Prompt, Sampling, Score, StopReason, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import GeneratedTasks
from vertigym.learner.config import OptimizerConfig
from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies import tiny, vllm_in_process, vllm_subprocess
from vertigym.policies.engine import GenerationRequest, GenerationResult
from vertigym.policies.lora import merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_backend import VLLMConfig, sampling_parameters
from vertigym.policies.vllm_client import save_weights
from vertigym.policies.vllm_engine import VLLMEngine, open_vllm
from vertigym.policies.vllm_pool import VLLMServerPool
from vertigym.policies.vllm_subprocess import VLLMSubprocess
from vertigym.trainer import logprob_mismatch
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .fake_vllm import FakeVLLM

TEXTS = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3
SIZE = tiny.TinySize(hidden=32, layers=2, heads=2, key_heads=1, ffn=48, context=256, init_std=0.3)
PROMPTS = [Prompt((), token_ids=[5 + i % 7, 9, 8], seed=i) for i in range(24)]
SAMPLING = Sampling(max_tokens=6, temperature=0.8)
QUICK = {"mode": "server", "start_s": 30.0, "sync_s": 30.0, "request_s": 30.0, "retries": 2, "sequences": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    tiny.build(TEXTS, path, size=SIZE)
    return path


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


# A whole run.


class OneWord(Env):
    """Answers that begin with an early token of the vocabulary score."""

    max_turns = 1

    def __init__(self) -> None:
        super().__init__(GeneratedTasks(_task, {"train": 8}))

    def begin(self, task: Task) -> list[Message]:
        """The task."""
        return task.messages()

    def respond(self, action: str) -> Turn:
        """The verdict: how many letters it wrote, folded to 0 … 1."""
        return Turn(score=Score(len(action) % 7 / 6))


def _task(split: str, number: int) -> Task:
    return Task(id=f"{split}-{number}", prompt=f"the return of {number} items")


def run_config(output: Path, model: Path, fake: FakeVLLM, **limits: Any) -> RunConfig:
    table = {
        "name": "run",
        "env": "test/OneWord-v0",
        "model": str(model),
        "algorithm": "grpo",
        "steps": 3,
        "output": str(output),
        "optimizer": {"lr": 1e-3},
        "checkpoint": {"every": 1},
        "rollout": {
            "engine": "vllm",
            "vllm": {**QUICK, "url": fake.url, "probe_every": 1, **limits},
            "tasks": 4,
            "group_size": 4,
            "max_tokens": 6,
        },
    }
    return parse(RunConfig, table, source="test")


@pytest.fixture
def one_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(envs, "make", lambda _: OneWord())


@pytest.mark.usefixtures("one_word")
def test_a_run_whose_server_died_hung_and_was_resumed_ends_in_the_same_weights(
    tmp_path: Path, folder: Path, fake: FakeVLLM
) -> None:
    plain = train(run_config(tmp_path / "plain", folder, fake))
    rows = plain.run.metrics()
    assert all(row["probe_mean"] < 1e-4 and row["correction"] == pytest.approx(1, abs=1e-3) for row in rows)
    config = run_config(tmp_path / "struck", folder, fake, request_s=3.0, retries=1)
    first = fake.asked

    def faults(path: str, count: int) -> str:
        if not path.startswith("/inference"):
            return ""
        if count == first + 12:
            threading.Timer(0.2, fake.start).start()
            return "die"
        return "hang" if count > first + 40 else ""

    fake.fault = faults
    with pytest.raises(EngineError, match="the run can be resumed"):
        train(config)
    fake.fault = lambda path, count: ""
    fake.release.set()
    struck = train(config, resume=True)
    one, other = (load_file(run.last / "model.safetensors") for run in (plain, struck))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.usefixtures("one_word")
def test_an_unordered_run_trains_on_completions_within_the_bound_each_under_its_own_version(
    tmp_path: Path, folder: Path, fake: FakeVLLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[set[str], int, str]] = []
    write, generate = VLLMServerPool.generate, VLLMEngine.generate

    def labelled(self: Any, requests: Any) -> Any:
        written = write(self, requests)
        seen.append(({threading.current_thread().name}, -1, fake.label))
        return written

    def versioned(self: Any, *arguments: Any) -> Any:
        completions = generate(self, *arguments)
        mine = [i for i, (names, version, _) in enumerate(seen) if threading.current_thread().name in names]
        (version,) = {one.policy_version for one in completions}
        seen[mine[-1]] = (seen[mine[-1]][0], version, seen[mine[-1]][2])
        return completions

    monkeypatch.setattr(VLLMServerPool, "generate", labelled)
    monkeypatch.setattr(VLLMEngine, "generate", versioned)
    config = run_config(tmp_path, folder, fake)
    rows = config.rollout.model_copy(
        update={"staleness": 2, "deterministic": False, "save_every": 1, "batch": 4}
    )
    outcome = train(config.model_copy(update={"rollout": rows, "steps": 6}))
    for step, file in enumerate(sorted((outcome.run.folder / "rollouts").iterdir())):
        found = {step - row["policy_version"] for row in read_jsonl(file)}
        assert found <= set(range(min(step, 2) + 1))
    assert {"sampling"} in [names for names, _, _ in seen]
    assert all(label.endswith(f"-{version}") for _, version, label in seen), "as the server itself has it"


@pytest.mark.usefixtures("one_word")
def test_a_server_with_another_model_ends_the_run_before_it_learns(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    about = json.loads((other / "config.json").read_text())
    about["rope_parameters"]["rope_theta"] = 3.0  # the same shapes, so our weights fit
    (other / "config.json").write_text(json.dumps(about))
    fake = FakeVLLM(other).start()
    with pytest.raises(RunError, match=r"step 0: the engine's log-probs differ .*it runs another model"):
        train(run_config(tmp_path / "runs", folder, fake))
    fake.stop()


# The contract, config and trust, without any server.


class Recording:
    """A backend that writes what it is told to."""

    def __init__(self, *written: GenerationResult) -> None:
        self.written, self.requests = list(written), [GenerationRequest([], 0, 0, 0, 0, [])]

    def generate(self, requests: Any) -> list[GenerationResult]:
        self.requests = list(requests)
        return self.written[: len(self.requests)]

    def load(self, weights: Any, version: int) -> None: ...

    def close(self) -> None: ...


def test_vllm_is_told_everything_and_nothing_it_could_add(folder: Path) -> None:
    tokenizer = load_model(folder)[1]
    backend = Recording(
        GenerationResult([7, 2], [-0.1, -0.2]),
        GenerationResult([7], [float("nan")]),
        GenerationResult([7], [-9999.0]),
    )
    engine = VLLMEngine(backend, tokenizer, stop=[2], context=10)
    rows = [Prompt((), token_ids=[5] * 8, seed=3), Prompt((), token_ids=[5] * 10)]
    good, full = engine.generate(rows, Sampling(max_tokens=6, temperature=0.5))
    (request,) = backend.requests
    assert sampling_parameters(request) == {
        "temperature": 0.5, "top_p": 1.0, "max_tokens": 2, "seed": 3, "logprobs": 0, "detokenize": False,
        "stop_token_ids": [2, tokenizer.eos_token_id],
    }  # fmt: skip
    assert good.stop_reason is StopReason.STOP
    assert full.stop_reason is StopReason.LENGTH
    backend.written = backend.written[1:]
    broken = engine.generate([rows[0], rows[0]], Sampling(max_tokens=2))
    assert [one.stop_reason for one in broken] == [StopReason.ERROR] * 2
    with pytest.raises(ConfigError, match="temperature 3: vLLM offers at most 2"):
        engine.generate(rows, Sampling(temperature=3))


def test_vllm_is_told_which_tokens_nobody_can_read(folder: Path) -> None:
    tokenizer = load_model(folder)[1]
    backend, size = Recording(GenerationResult([7], [-0.1])), len(tokenizer)
    engine = VLLMEngine(backend, tokenizer, stop=[2], context=10, vocabulary=size + 2)
    engine.generate([Prompt((), token_ids=[5])], Sampling(max_tokens=1))
    assert sampling_parameters(backend.requests[0])["logit_bias"] == {size: -100.0, size + 1: -100.0}


def test_the_correction_is_on_for_vllm_unless_said_otherwise() -> None:
    base: dict[str, Any] = {"name": "a", "env": "e", "model": "m", "algorithm": "grpo", "steps": 1}

    def policy(rollout: dict[str, Any], **given: Any) -> tuple[str, str]:
        found = parse(RunConfig, base | {"rollout": rollout, "policy": given}, source="test").policy
        return found.ratio_to, found.correction

    assert policy({}) == ("sampler", "none")
    assert policy({"engine": "vllm"}) == ("trainer", "token")
    assert policy({"engine": "vllm"}, correction="none") == ("sampler", "none")
    assert policy({"engine": "vllm"}, loss="dppo_tv") == ("sampler", "none")
    with pytest.raises(ConfigError, match=r"unknown key 'rollout\.top_k'"):
        parse(RunConfig, base | {"rollout": {"engine": "vllm", "top_k": 20}}, source="test")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"url": "http://a"}, 'mode = "server"'),
        ({"url": "a:1", "mode": "server"}, "http://"),
        ({"url": ["http://a", "b"], "mode": "server"}, "http://"),
        ({"url": ["http://a", "http://a"], "mode": "server"}, "twice"),
        ({"servers": 2}, "how many to start"),
        ({"servers": 2, "mode": "server", "url": "http://a"}, "how many to start"),
        ({"exchange": "/tmp"}, 'mode = "server"'),
        ({"mode": "process"}, 'mode = "in_process"'),
    ],
)
def test_settings_that_contradict_each_other_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(VLLMConfig, given, source="test")


def test_without_vllm_the_extra_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_in_process, "find_spec", lambda _: None)
    for mode in ("in_process", "server"):
        with pytest.raises(MissingDependencyError, match=r"pip install 'vertigym\[vllm\]'"):
            open_vllm(folder, VLLMConfig(mode=mode))


def test_the_probe_measures_warns_and_stops(folder: Path) -> None:
    model, _ = load_model(folder)
    learner = Learner(model, OptimizerConfig(), total_steps=1)
    sample = TrainingSample([5, 6, 7, 8], [0, 0, 1, 1])
    (truth,) = learner.score([sample])
    sample.columns.sampler_logp = [truth[0] + 0.1, truth[1] - 0.3]
    found = logprob_mismatch.measure_mismatch(learner, [sample], 0, stop=0.5)
    assert found == pytest.approx({"probe_mean": 0.2, "probe_max": 0.3}, abs=1e-5)
    assert "differ from the trainer's by 0.2" in logprob_mismatch.mismatch_warning(found, VLLMConfig())
    assert not logprob_mismatch.mismatch_warning({"probe_mean": 0.01, "probe_max": 0.1}, VLLMConfig())
    for wrong in (5.0, float("nan")):
        sample.columns.sampler_logp = [wrong, wrong]
        with pytest.raises(RunError, match="step 4: the engine's log-probs differ"):
            logprob_mismatch.measure_mismatch(learner, [sample], 4, stop=0.5)
