"""Exported environments: recorded episodes score the same when another program's own runner plays them."""

import json
import os
import shutil
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
from vertigym.envs import registry
from vertigym.interop.exporting import export_environment
from vertigym.interop.played_episode import PlayedEpisode, openings

from .conftest import CommandLine
from .neighbours import (
    last_place,
    scores_by_inspect,
    scores_by_installed_inspect,
    scores_by_openenv_client,
    scores_by_vendored,
    scores_by_verifiers,
)
from .recorded_episodes import (
    Recording,
    record,
    scores_by_nemo_gym,
    scores_by_openenv,
    scores_in_trl,
    write_environments,
)
from .test_cli import one_line

LIMITS = {"decision": 100, "agent": 40, "code": 8, "math": 50, "trace": 40, "flaky": 30}
NAMES = list(LIMITS)


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
    found = scores_by_inspect(recording, home, *["native"] * ("native" in name))
    assert found == recording.scores


@pytest.mark.parametrize(
    ("name", "task"), [("decision", "vertigym/Returns-v0"), ("trace", "vertigym/desk/Intent-v0")]
)
def test_inspect_finds_every_environment_by_the_entry_point(
    name: str, task: str, home: Path, recordings: dict[str, Recording]
) -> None:
    pytest.importorskip("inspect_ai", exc_type=ImportError)
    assert scores_by_installed_inspect(recordings[name], home, task) == recordings[name].scores


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("harness", ["verifiers_chat", "null"])
def test_verifiers_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, harness: str, home: Path, recordings: dict[str, Recording]
) -> None:
    vf_eval = os.environ.get("VF_EVAL", "") or shutil.which("vf-eval", path=str(Path(sys.executable).parent))
    if not vf_eval:
        pytest.skip("verifiers is not installed, and VF_EVAL names no vf-eval")
    recording, episodes = recordings[name], 3 if harness == "null" else 30
    found = scores_by_verifiers(recording, home, vf_eval, harness, episodes)
    assert found == dict(list(recording.scores.items())[:episodes])


@pytest.mark.parametrize("name", NAMES)
def test_openenvs_own_client_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, home: Path, recordings: dict[str, Recording]
) -> None:
    python = os.environ.get("OPENENV_PYTHON", sys.executable if find_spec("openenv") else "")
    if not python:
        pytest.skip("openenv is not installed, and OPENENV_PYTHON names no Python that has it")
    assert scores_by_openenv_client(recordings[name], home, python) == recordings[name].scores


@pytest.mark.parametrize("name", ["decision", "flaky", "agent", "code"])
def test_trl_gives_recorded_episodes_the_scores_that_we_gave(
    name: str, recordings: dict[str, Recording], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("trl", exc_type=ImportError)
    from .trl_player import scores_by_trl

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    recording = recordings[name]
    found = scores_by_trl(registry.make(recording.env), recording.replies, last_place(recording), tmp_path)
    expected = scores_in_trl(recording)
    assert {task: found[task] for task in expected} == expected
    assert (expected != recording.scores) == (name == "agent")


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
    assert scores_by_vendored(recordings[name], home) == recordings[name].scores


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
