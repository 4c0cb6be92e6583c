"""Exported environments: recorded episodes score the same when another program's own runner plays them."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from vertigym.core.errors import InputError
from vertigym.core.seeds import derive, generator
from vertigym.core.types import Prompt, Sampling, Split
from vertigym.envs import registry
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.decision.builtin import RETURNS, folder_of
from vertigym.envs.tool_calls import is_call
from vertigym.interop.exporting import export_environment
from vertigym.interop.formats import load_results
from vertigym.interop.openenv_server import OpenEnvServer
from vertigym.interop.played_episode import PlayedEpisode, openings
from vertigym.policies.scripted import Scripted, expert
from vertigym.rollouts.rollout import Episode, rollout

from .conftest import CommandLine
from .served import serving
from .test_cli import one_line

SIZES: dict[Split, int] = {"train": 8, "eval": 40, "test": 8}
FLAKY = """
from vertigym.core.types import Task
from vertigym.envs import SingleTurnEnv, TaskSet
from vertigym.rewards.rubric import Rubric


def load_environment() -> SingleTurnEnv:
    def judged(completion: str, answer: str) -> float:
        if int(answer) % 3 == 0:
            raise RuntimeError("the judge is away")
        return float(completion == answer)

    tasks = [Task(id=f"t{i}", prompt=f"say {i}", answer=str(i), split="eval", cluster=f"c{i % 7}") for i in range(30)]
    return SingleTurnEnv(TaskSet(tasks), Rubric(judged))
"""


@dataclass
class Recording:
    """Episodes of an environment as our own runner played them: by task, scores and what was said; what to say when."""

    env: str
    scores: dict[str, float | None]
    said: dict[str, list[str]]
    replies: list[tuple[str, int, str]]


def record(env_id: str, limit: int) -> Recording:
    """The expert's episodes, some with one reply spoilt. A seed is that of a first sample of an eval."""
    env = registry.make(env_id)
    best = expert()

    def write(prompt: Prompt) -> str:
        spoilt = generator("spoilt", prompt.seed).random() < 0.2
        (reply,) = best.generate([prompt], Sampling())
        return "nonsense" if spoilt else reply.text

    ids = list(env.tasks.ids("eval"))[:limit]
    name = registry.spec(env_id).id
    episodes = [Episode(env.tasks.get(task), derive(0, "eval", name, task, 0)) for task in ids]
    played = rollout(Scripted(write), env, episodes, Sampling())
    found = Recording(env_id, {}, {}, [])
    first: dict[str, str] = {}
    for one in played:
        asked = next(message["content"] for message in one.messages if message["role"] == "user")
        said = [message["content"] for message in one.messages if message["role"] == "assistant"]
        assert first.setdefault(asked, one.task_id) == one.task_id, "a reply is found by the first question"
        found.scores[one.task_id], found.said[one.task_id] = one.score.value, said
        found.replies += [(asked, number, text) for number, text in enumerate(said)]
    return found


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder from which the environments of this test are found, in this process and in others."""
    home = tmp_path_factory.mktemp("home")
    (home / "flaky_judge.py").write_text(FLAKY)
    import_agent(folder_of(RETURNS) / "decision.json", "shop/Desk-v0", home / "desk", sizes=SIZES)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        yield home


@pytest.fixture(scope="module")
def recordings(home: Path) -> dict[str, Recording]:
    """A decision, sums, a verifier that fails at times, and a desk of several turns and tools."""
    limits = {
        "vertigym/Returns-v0": 120,
        "vertigym/Arithmetic-v0": 60,
        "flaky_judge": 30,
        str(home / "desk"): 40,
    }
    return {Path(env_id).name: record(env_id, limit) for env_id, limit in limits.items()}


def run(home: Path, *arguments: object, **variables: str) -> None:
    paths = [str(home), *sorted(str(folder) for folder in home.glob("*_package"))]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])} | variables
    done = subprocess.run([*map(str, arguments)], env=env, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_recordings_hold_every_kind_of_verdict(recordings: dict[str, Recording]) -> None:
    scores = [score for one in recordings.values() for score in one.scores.values()]
    assert len(scores) >= 240
    assert {None, 0.0, 1.0} <= set(scores)
    assert max(number for _, number, _ in recordings["desk"].replies) >= 2


@pytest.mark.parametrize("name", ["Returns-v0", "Arithmetic-v0", "flaky_judge", "desk", "desk, native calls"])
def test_inspect_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, home: Path, recordings: dict[str, Recording]
) -> None:
    pytest.importorskip("inspect_ai", exc_type=ImportError)
    recording = recordings[name.partition(",")[0]]
    package = home / f"{name.replace(' ', '').replace(',', '-')}_package"
    module = export_environment(recording.env, "inspect", package)
    task = (package / module / "__init__.py").read_text().partition("@task\ndef ")[2].partition("(")[0]
    replies, logs = package / "replies.json", package / "logs"
    replies.write_text(json.dumps(recording.replies))
    player = Path(__file__).with_name("inspect_player.py")
    native = ["native"] if "native" in name else []
    run(home, sys.executable, player, module, task, len(recording.scores), replies, logs, *native)
    report = load_results(logs)
    assert {row.task: row.scores[0] for row in report.rows} == recording.scores
    assert report.unscored == sum(score is None for score in recording.scores.values())
    assert any(row.parts for row in report.rows) or name == "flaky_judge"


@pytest.mark.parametrize("name", ["Returns-v0", "flaky_judge", "desk"])
def test_verifiers_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, home: Path, recordings: dict[str, Recording], tmp_path: Path
) -> None:
    if not find_spec("verifiers"):
        pytest.skip("verifiers is not installed")
    recording, episodes = recordings[name], int(os.environ.get("VERIFIERS_EPISODES", "6"))
    module = export_environment(recording.env, "verifiers", home / f"{name}_vf_package")
    said = {(asked, number): text for asked, number, text in recording.replies}

    def write(prompt: Prompt) -> str:
        asked = next(message["content"] for message in prompt.messages if message["role"] == "user")
        return said[asked, sum(message["role"] == "assistant" for message in prompt.messages)]

    with serving(Scripted(write), tmp_path / "calls.jsonl") as port:
        run(
            home, Path(sys.executable).with_name("vf-eval"), module, "--env.player.harness.id", "null",
            "--env.player.runtime.type", "subprocess", "-m", "m", "--client.base-url", f"http://127.0.0.1:{port}/v1",
            "--client.api-key-var", "KEY", "--no-push", "--no-rich", "-n", episodes, "-c", 8, "-o", tmp_path / "out",
            "--env.taskset.split", "eval", KEY="none",
        )  # fmt: skip
    (traces,) = (tmp_path / "out").glob("*/traces.jsonl")
    report = load_results(traces)
    expected = dict(list(recording.scores.items())[:episodes])
    assert {row.task: row.scores[0] for row in report.rows} == expected


@pytest.mark.parametrize("name", ["Returns-v0", "flaky_judge", "desk"])
def test_trl_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, recordings: dict[str, Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", exc_type=ImportError)
    from .trl_player import scores_by_trl

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    recording = recordings[name]
    found = scores_by_trl(registry.make(recording.env), recording.replies, len(recording.scores), tmp_path)
    talked = {task for task, said in recording.said.items() if not all(map(is_call, said[:-1]))}
    assert bool(talked) == (name == "desk")
    assert {task: found[task] for task in found if task not in talked} == {
        task: score for task, score in recording.scores.items() if task not in talked
    }
    for task in talked:  # in TRL a turn without a call is the last
        episode = PlayedEpisode(registry.make(recording.env), task)
        for text in recording.said[task]:
            episode.step(text)
            if not is_call(text):
                break
        assert found[task] == episode.end().value


@pytest.mark.parametrize("name", ["Returns-v0", "Arithmetic-v0", "flaky_judge", "desk"])
def test_openenv_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, recordings: dict[str, Recording]
) -> None:
    recording = recordings[name]
    server = OpenEnvServer(registry.make(recording.env), registry.spec(recording.env).id)
    found: dict[str, float | None] = {}
    with TestClient(server.app(), base_url="http://localhost").websocket_connect(
        "ws://localhost/ws"
    ) as session:
        for task, said in recording.said.items():
            session.send_json({"type": "reset", "data": {"task": task}})
            data = session.receive_json()["data"]
            assert data["observation"]["messages"]
            for text in said:
                assert not data["done"]
                session.send_json({"type": "step", "data": {"message": text}})
                data = session.receive_json()["data"]
            assert data["done"]
            assert bool(data["observation"]["unscored"]) == (data["reward"] is None)
            found[task] = data["reward"]
    assert found == recording.scores


def test_an_episode_asks_and_answers_as_the_environment_does(recordings: dict[str, Recording]) -> None:
    for recording in recordings.values():
        said = {(asked, number): text for asked, number, text in recording.replies}
        for episode in openings(recording.env, "eval", len(recording.scores)):
            asked = next(message["content"] for message in episode.messages if message["role"] == "user")
            number = 0
            while not episode.over:
                before = len(episode.messages)
                answer = episode.step(said[asked, number])
                assert episode.messages[before + 1 :] == answer
                number += 1
            assert episode.score
            assert episode.score.value == recording.scores[episode.task.id]


def test_an_environment_that_falls_over_is_not_scored() -> None:
    env = registry.make("vertigym/Returns-v0")

    def fall(*_: Any, **__: Any) -> Any:
        raise RuntimeError("disk full")

    for method in ("begin", "respond"):
        broken = env.fresh()
        setattr(broken, method, fall)
        episode = PlayedEpisode(broken, env.tasks.ids("eval")[0])
        if not episode.over:
            assert episode.step("{}") == []
        assert episode.score
        assert episode.score.value is None
        assert "disk full" in episode.score.evidence["reason"]


def test_what_cannot_be_exported_is_one_line(command: CommandLine, tmp_path: Path) -> None:
    line = ("env", "export", "vertigym/Returns-v0", "-o", "out", "--to")
    assert "known: inspect, verifiers" in one_line(command(*line, "trl"))
    assert "did you mean" in one_line(
        command("env", "export", "vertigym/Retruns-v0", "-o", "out", "--to", "inspect")
    )
    assert not (tmp_path / "out").exists()
    assert command(*line, "inspect").code == 0
    assert "out exists" in one_line(command(*line, "inspect"))
    with pytest.raises(InputError, match="level"):
        export_environment("vertigym/Arithmetic-v0?level=99", "inspect", tmp_path / "other")
