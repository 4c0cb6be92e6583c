"""Workers: whoever does a chunk, the result is the same; what is lost is done again, within bounds.

The workers here are threads; tests/test_rollouts_ray.py has real ones."""

import pickle
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import ConfigError, EngineError, InputError, MissingDependencyError
from vertigym.core.files import read_jsonl
from vertigym.core.manifest import seal
from vertigym.core.types import Prompt, Sampling
from vertigym.envs.decision.builtin import RETURNS
from vertigym.policies import tiny
from vertigym.policies.engine import Weights
from vertigym.policies.lora import merged_state
from vertigym.policies.model_folder import load_model
from vertigym.policies.registry import find_engine
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.policies.vllm_backend import VLLMConfig
from vertigym.rollouts import ray_backend
from vertigym.rollouts.distributed import DistributedEngine, WorkerLostError, WorkersConfig
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.rollouts.rollout_worker import RolloutWorker, WorkerSpec, skeleton
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

from .fake_vllm import FakeVLLM

ENV = RETURNS
SAMPLING = Sampling(max_tokens=8)
CONTEXT = 1024
Fault = Callable[[int, str, int], str]  # (worker, method, its number of calls so far) -> "", die, hang


_ONE = threading.Lock()  # loading models side by side is for processes, not threads


class Threaded:
    """A WorkerHandle on a thread. What goes in and out is pickled, as between processes."""

    def __init__(self, worker: Any, number: int, fault: Fault) -> None:
        self._worker, self._number, self._fault = worker, number, fault
        self._calls: Counter[str] = Counter()
        self.stopped = False

    def call(self, name: str, *arguments: Any) -> "Future[Any]":
        answer: Future[Any] = Future()
        self._calls[name] += 1
        threading.Thread(
            target=self._do, args=(answer, name, self._calls[name], arguments), daemon=True
        ).start()
        return answer

    def stop(self) -> None:
        self.stopped = True

    def _do(self, answer: "Future[Any]", name: str, count: int, arguments: Any) -> None:
        fault = self._fault(self._number, name, count)
        if self.stopped or fault == "die":
            answer.set_exception(WorkerLostError("its node has died"))
            return
        if fault == "hang":
            return
        torch.set_num_threads(1)
        try:
            with _ONE:
                result = getattr(self._worker, name)(*pickle.loads(pickle.dumps(arguments)))
            answer.set_result(pickle.loads(pickle.dumps(result)))
        except BaseException as error:
            answer.set_exception(error)


class Threads:
    """A WorkerBackend of threads."""

    def __init__(self, fault: Fault = lambda worker, method, count: "") -> None:
        self.fault = fault
        self.started: list[Threaded] = []
        self.closed = False

    def start(self, spec: WorkerSpec, number: int) -> Threaded:
        self.started.append(Threaded(RolloutWorker(spec, number), len(self.started), self.fault))
        return self.started[-1]

    def put(self, state: Mapping[str, torch.Tensor]) -> Weights:
        return partial(pickle.loads, pickle.dumps(dict(state)))

    def describe(self) -> str:
        return "there are no threads left"

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("models") / "tiny"
    texts = ['{"days": 12, "tier": "gold"}', "approve or reject the return of 40 items"] * 3
    tiny.build(texts, path, size=tiny.TinySize(hidden=32, layers=1, heads=2, key_heads=1, ffn=48, init_std=0.3))
    seal(path)  # as a checkpoint is: its manifest says nothing of the weights that the workers are sent
    return path


@pytest.fixture
def model(folder: Path) -> Any:
    return load_model(folder)[0]


def farm(folder: Path, model: Any, place: Threads, *, batch: int = 8, **limits: Any) -> DistributedEngine:
    spec = WorkerSpec(skeleton(folder), partial(envs.make, ENV), batch=batch)
    config = WorkersConfig(**{"count": 2, "start_s": 20.0, "chunk_s": 60.0, **limits})
    return DistributedEngine(place, spec, config, load_model(folder)[1], lambda: merged_state(model))


def episodes(count: int = 32) -> list[Episode]:
    ids = envs.make(ENV).tasks.ids("train")
    return [Episode(ids[i // 4], seed=i) for i in range(count)]


def told(trajectories: Sequence[Any]) -> list[Any]:
    """All that must be equal."""
    return [(t.task_id, t.seed, t.policy_version, t.segments, t.score) for t in trajectories]


@pytest.mark.parametrize("count", [1, 3])
def test_workers_play_what_the_engine_alone_plays(folder: Path, model: Any, count: int) -> None:
    alone = rollout(TransformersEngine.load(folder), envs.make(ENV), episodes(), SAMPLING, batch=8)
    place = Threads()
    workers = farm(folder, model, place, count=count)
    assert told(workers.play(episodes(), SAMPLING)) == told(alone)
    assert len(place.started) == count
    workers.close()
    assert all(worker.stopped for worker in place.started)
    assert place.closed


@pytest.mark.parametrize("what", ["die", "hang"])
def test_the_chunk_of_a_lost_worker_goes_to_another_and_nothing_is_doubled(
    folder: Path, model: Any, what: str
) -> None:
    place = Threads(
        lambda worker, method, count: what if method == "play" and (worker, count) == (0, 2) else ""
    )
    workers = farm(folder, model, place, chunk_s=2.0 if what == "hang" else 60.0, retries=99)
    alone = rollout(TransformersEngine.load(folder), envs.make(ENV), episodes(64), SAMPLING, batch=8)
    assert told(workers.play(episodes(64), SAMPLING)) == told(alone)
    assert len(place.started) >= 3
    assert place.started[0].stopped
    assert not place.started[-1].stopped
    assert told(workers.play(episodes(64), SAMPLING)) == told(alone), "the new worker is used"


def test_workers_follow_the_model_even_where_the_version_stays(folder: Path, model: Any) -> None:
    workers = farm(folder, model, Threads())
    prompts = [Prompt((), token_ids=[5, 6, 7], seed=i) for i in range(6)]
    for version in (3, 3):  # a roll-back keeps the number of the step
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(0.2)
        before = workers.generate(prompts, SAMPLING)
        workers.refresh(version)
        after = workers.generate(prompts, SAMPLING)
        expected = [TransformersEngine(model, workers.tokenizer).generate([p], SAMPLING)[0] for p in prompts]
        assert [c.token_ids for c in after] == [c.token_ids for c in expected]
        assert [c.logprobs for c in after] != [c.logprobs for c in before]
        assert {c.policy_version for c in after} == {version} == {workers.version}


def test_a_chunk_that_is_lost_too_often_ends_the_run_with_one_line(folder: Path, model: Any) -> None:
    place = Threads(lambda worker, method, count: "die" if method == "play" else "")
    workers = farm(folder, model, place, retries=2)
    with pytest.raises(EngineError, match=r"lost with 3 workers .*its node has died; the run can be resumed$"):
        workers.play(episodes(), SAMPLING)
    assert all(worker.stopped for worker in place.started)


def test_an_engine_that_fails_is_tried_elsewhere(
    folder: Path, model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate, calls = TransformersEngine.generate, [0]

    def failing(self: Any, *arguments: Any) -> Any:
        calls[0] += 1
        if calls[0] == 2:
            raise EngineError("out of memory")
        return generate(self, *arguments)

    alone = rollout(TransformersEngine.load(folder), envs.make(ENV), episodes(), SAMPLING, batch=8)
    monkeypatch.setattr(TransformersEngine, "generate", failing)
    notes: list[str] = []
    workers = farm(folder, model, Threads())
    workers._pool._on_note = notes.append
    assert told(workers.play(episodes(), SAMPLING)) == told(alone)
    (note,) = notes
    assert "was lost (out of memory): another takes its place" in note


def test_where_no_worker_comes_the_place_says_what_there_is(folder: Path, model: Any) -> None:
    workers = farm(folder, model, Threads(lambda worker, method, count: "hang"), start_s=0.3)
    with pytest.raises(EngineError, match=r"no worker came up within 0.3 s .*there are no threads left"):
        workers.play(episodes(4), SAMPLING)


def test_a_worker_that_never_starts_is_done_without(folder: Path, model: Any) -> None:
    place = Threads(lambda worker, method, count: "die" if method == "ready" and worker != 1 else "")
    workers = farm(folder, model, place, retries=1)
    alone = rollout(TransformersEngine.load(folder), envs.make(ENV), episodes(), SAMPLING, batch=8)
    assert told(workers.play(episodes(), SAMPLING)) == told(alone)
    nobody = farm(folder, model, Threads(lambda worker, method, count: "die"), retries=1)
    with pytest.raises(EngineError, match="no worker is left: its node has died"):
        nobody.play(episodes(), SAMPLING)


def test_bad_input_is_not_tried_again(folder: Path, model: Any) -> None:
    place = Threads()
    workers = farm(folder, model, place)
    with pytest.raises(InputError, match=r"worker \d: unknown task 'no-such-task'"):
        workers.play([Episode("no-such-task")], SAMPLING)
    assert len(place.started) == 2


# A whole run.


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[Threads]:
    place = Threads()
    monkeypatch.setattr(ray_backend, "RayBackend", lambda address, config: place)
    yield place
    assert place.closed or not place.started


def run(output: Path, **rollouts: Any) -> RunOutcome:
    table: dict[str, Any] = {
        "name": "run", "env": ENV, "model": "tiny", "algorithm": "grpo", "steps": 3, "threads": 1,
        "tiny": {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}, "output": str(output),
        "rollout": {"tasks": 8, "group_size": 2, "max_tokens": 8, "save_every": 1, "batch": 4, **rollouts},
        "policy": {"advantage": "reinforce++", "entropy": 0.5}, "optimizer": {"lr": 1e-2},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="test"))


def same(one: RunOutcome, other: RunOutcome) -> bool:
    ours, theirs = (load_file(outcome.last / "model.safetensors") for outcome in (one, other))
    saved = [
        [
            {**row, "latency_s": 0}
            for file in sorted((outcome.run.folder / "rollouts").iterdir())
            for row in read_jsonl(file)
        ]
        for outcome in (one, other)
    ]
    return all(torch.equal(ours[name], theirs[name]) for name in ours) and saved[0] == saved[1]


@pytest.mark.parametrize("staleness", [0, 1])
def test_a_run_with_workers_one_of_which_dies_ends_in_the_weights_of_a_run_without(
    tmp_path: Path, threads: Threads, staleness: int
) -> None:
    plain = run(tmp_path / "plain", staleness=staleness)
    assert not threads.started
    threads.fault = lambda worker, method, count: "die" if (worker, method, count) == (1, "play", 3) else ""
    farmed = run(tmp_path / "farmed", staleness=staleness, workers="ray://auto", ray={"count": 3})
    assert len(threads.started) == 4
    assert same(plain, farmed)
    assert not same(plain, run(tmp_path / "other", staleness=1 - staleness))


def test_unordered_workers_stay_within_the_bound(tmp_path: Path, threads: Threads) -> None:
    done = run(tmp_path, staleness=2, deterministic=False, workers="ray://auto", ray={"count": 2}, save_every=1)
    assert len(threads.started) == 2
    for step, file in enumerate(sorted((done.run.folder / "rollouts").iterdir())):
        ages = [step - row["policy_version"] for row in read_jsonl(file)]
        assert len(ages) == 16
        assert all(0 <= age <= min(step, 2) for age in ages)


def test_workers_with_vllm_servers_of_their_own_play_as_the_engine_does(folder: Path, model: Any) -> None:
    servers = [FakeVLLM(folder, context=CONTEXT).start() for _ in range(2)]
    vllm = VLLMConfig(mode="server", url=tuple(server.url for server in servers), start_s=20.0)
    spec = WorkerSpec(skeleton(folder), partial(envs.make, ENV), engine="vllm", config=vllm, batch=8, count=2)
    workers = DistributedEngine(
        Threads(), spec, WorkersConfig(count=2), load_model(folder)[1], lambda: merged_state(model)
    )
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.1)
    workers.refresh(5)
    got = workers.play(episodes(), SAMPLING)
    alone = rollout(TransformersEngine(model, workers.tokenizer), envs.make(ENV), episodes(), SAMPLING, batch=8)
    for one, other in zip(got, alone, strict=True):
        assert one.segments[0].token_ids == other.segments[0].token_ids
        assert one.policy_version == 5
    assert all(server.answered and server.label.endswith("-5") for server in servers)
    assert servers[0].label != servers[1].label, "each is its worker's alone"
    workers.close()
    for server in servers:
        server.stop()


@pytest.mark.parametrize("address", ["auto", "ray://", "ray://host", "http://host:1"])
def test_an_address_that_is_none_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"is no address of workers: \"ray://auto\""):
        run(tmp_path, workers=address)


def test_workers_have_vllm_servers_to_themselves(tmp_path: Path) -> None:
    vllm = {"mode": "server", "url": ["http://a", "http://b", "http://c"]}
    with pytest.raises(ConfigError, match=r"url names 3, rollout.ray.count is 4"):
        run(tmp_path, workers="ray://auto", engine="vllm", vllm=vllm, ray={"count": 4})
    config = VLLMConfig(**vllm)
    assert [find_engine("vllm").for_worker(config, n, 2).urls for n in (0, 1)] == [
        ("http://a", "http://c"),
        ("http://b",),
    ]


def test_without_ray_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'vertigym\[ray\]'"):
        run(tmp_path, workers="ray://auto")


def test_weights_lie_in_memory_alike_whatever_file_they_come_from(folder: Path, tmp_path: Path) -> None:
    """Sums round by it: an engine on another file of the same weights must write the same bits."""
    model, tokenizer = load_model(folder)
    for length in (8, 24):
        copy = tmp_path / str(length)
        model.save_pretrained(copy)
        tokenizer.save_pretrained(copy)
        save_file(
            load_file(copy / "model.safetensors"),
            copy / "model.safetensors",
            {"format": "pt", "x": "x" * length},
        )
        assert {weight.data_ptr() % 64 for weight in load_model(copy)[0].parameters()} == {0}
