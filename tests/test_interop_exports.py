"""Exported environments: recorded episodes score the same when another program's own runner plays them."""

import json
import os
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from vertigym.core.errors import InputError
from vertigym.core.types import Prompt
from vertigym.envs import registry
from vertigym.envs.tool_calls import is_call
from vertigym.interop.exporting import export_environment
from vertigym.interop.formats import load_results
from vertigym.interop.played_episode import PlayedEpisode, openings
from vertigym.policies.scripted import Scripted

from .conftest import CommandLine
from .recorded_episodes import (
    Recording,
    dumped,
    record,
    scores_by_nemo_gym,
    scores_by_openenv,
    write_environments,
)
from .served import serving
from .test_cli import one_line

LIMITS = {"decision": 100, "agent": 40, "code": 4, "math": 50, "trace": 40, "flaky": 30}
NAMES = list(LIMITS)
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder from which the environments of this test are found, in this process and in others."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(home))
        yield home


@pytest.fixture(scope="module")
def recordings(home: Path) -> dict[str, Recording]:
    return {name: record(env, LIMITS[name]) for name, env in write_environments(home).items()}


def run(home: Path, *arguments: object, **variables: str) -> None:
    paths = [str(home), *sorted(str(folder) for folder in home.glob("*_package"))]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])} | variables
    done = subprocess.run([*map(str, arguments)], env=env, capture_output=True, text=True, cwd=home)
    assert done.returncode == 0, done.stderr[-3000:]


def test_the_recordings_hold_every_kind_of_verdict(recordings: dict[str, Recording]) -> None:
    scores = [score for one in recordings.values() for score in one.scores.values()]
    assert len(scores) >= 240
    assert {None, 0.0, 1.0} <= set(scores)
    assert max(number for _, number, _ in recordings["agent"].replies) >= 2


@pytest.mark.parametrize("name", [*NAMES, "agent, native calls"])
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
    assert any(row.parts for row in report.rows) or name in ("flaky", "math")


@pytest.mark.parametrize("name", ["decision", "flaky", "agent"])
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


@pytest.mark.parametrize("name", ["decision", "flaky", "agent"])
def test_trl_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, recordings: dict[str, Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", exc_type=ImportError)
    from .trl_player import scores_by_trl

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    recording = recordings[name]
    found = scores_by_trl(registry.make(recording.env), recording.replies, len(recording.scores), tmp_path)
    talked = {task for task, said in recording.said.items() if not all(map(is_call, said[:-1]))}
    assert bool(talked) == (name == "agent")
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


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("play", [scores_by_openenv, scores_by_nemo_gym])
def test_a_server_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, play: Callable[[Recording], dict[str, float | None]], recordings: dict[str, Recording]
) -> None:
    assert play(recordings[name]) == recordings[name].scores


@pytest.mark.parametrize("name", ["decision", "math", "trace"])
def test_a_vendored_package_gives_the_same_scores_where_vertigym_is_not_installed(
    name: str, home: Path, recordings: dict[str, Recording]
) -> None:
    package, recording = home / f"{name}_vendored", recordings[name]
    module = export_environment(recording.env, "openenv", package, vendored=True)
    (package / "recorded.json").write_text(dumped(recording))
    site = sysconfig.get_path("purelib")
    script = HERE / "without_vertigym.py"
    run(home, sys.executable, "-I", "-S", script, site, package, module, package / "recorded.json")
    metadata = (package / "pyproject.toml").read_text()
    assert "vertigym>=" not in metadata
    assert "pydantic>=" in metadata


def test_what_does_not_score_the_same_when_vendored_is_refused(home: Path) -> None:
    with pytest.raises(InputError, match="only folders and built-in environments"):
        export_environment("flaky_judge", "openenv", home / "refused", vendored=True)
    assert not (home / "refused").exists()


def test_harbor_scores_what_lies_in_the_answer_file(
    home: Path, recordings: dict[str, Recording], tmp_path: Path
) -> None:
    recording, out, site = recordings["trace"], home / "harbor_tasks", sysconfig.get_path("purelib")
    export_environment(recording.env, "harbor", out, tasks=3)
    tasks = sorted(out.glob("*-eval-*"))
    assert len(tasks) == 3
    for folder in tasks:
        asked = tomllib.loads((folder / "task.toml").read_text())
        assert "/app/answer.txt" in (folder / "instruction.md").read_text()
        solved = subprocess.run(
            ["sh", "-c", (folder / "solution" / "solve.sh").read_text().replace("/app", str(tmp_path))]
        )
        assert solved.returncode == 0
        env = os.environ | {"VERTIGYM_ANSWER": str(tmp_path / "answer.txt"), "VERTIGYM_LOGS": str(tmp_path)}
        alone = f"import runpy, sys; sys.path.append({site!r}); runpy.run_path({str(folder / 'tests' / 'score.py')!r})"
        subprocess.run([sys.executable, "-I", "-S", "-c", alone], env=env, check=True)
        assert json.loads((tmp_path / "reward.json").read_text())["reward"] == 1.0
        assert asked["metadata"]["split"] == "eval"
    with pytest.raises(InputError, match="several turns"):
        export_environment(recordings["agent"].env, "harbor", home / "none")


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
    assert "known: harbor, inspect, nemo-gym, openenv, trl, verifiers" in one_line(command(*line, "x"))
    assert "did you mean" in one_line(
        command("env", "export", "vertigym/Retruns-v0", "-o", "out", "--to", "inspect")
    )
    assert not (tmp_path / "out").exists()
    assert command(*line, "inspect").code == 0
    assert "out exists" in one_line(command(*line, "inspect"))
    with pytest.raises(InputError, match="level"):
        export_environment("vertigym/Arithmetic-v0?level=99", "inspect", tmp_path / "other")
