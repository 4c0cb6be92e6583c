"""Whole runs over a server of vLLM, a fake one: killed, hung, resumed, unordered, of another model."""

import json
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.errors import EngineError, RunError
from vertigym.core.files import read_jsonl
from vertigym.core.types import Message, Score, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import GeneratedTasks
from vertigym.policies.vllm_engine import VLLMEngine
from vertigym.policies.vllm_pool import VLLMServerPool
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

from .fake_vllm import QUICK, FakeVLLM, tiny_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_folder(tmp_path_factory.mktemp("models"))


@pytest.fixture
def fake(folder: Path) -> Iterator[FakeVLLM]:
    server = FakeVLLM(folder).start()
    yield server
    server.stop()


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
