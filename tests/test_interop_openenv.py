"""OpenEnv's wire: what is wrong is said, sessions are counted, pages of elsewhere are refused; its own client."""

import json
import os
import socket
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from vertigym.core.types import Task
from vertigym.envs import SingleTurnEnv, TaskSet, registry
from vertigym.interop.exporting import export_environment
from vertigym.interop.openenv_server import OpenEnvServer
from vertigym.rewards.rubric import Rubric

from .conftest import CommandLine
from .neighbours import run, write_metadata
from .served import listening
from .test_cli import one_line

NAME = "vertigym/Arithmetic-v0"
WS = "ws://localhost/ws"


@pytest.fixture
def client() -> Iterator[TestClient]:
    server = OpenEnvServer(registry.make(NAME), NAME, sessions=2)
    with TestClient(server.app(), base_url="http://localhost") as client:
        yield client


def ask(session: Any, kind: str, **data: Any) -> dict[str, Any]:
    session.send_json({"type": kind, "data": data})
    found: dict[str, Any] = session.receive_json()
    return found


def test_an_episode_is_opened_by_place_and_by_seed(client: TestClient) -> None:
    ids = registry.make(NAME).tasks.ids("eval")
    with client.websocket_connect(WS) as session:
        opened = ask(session, "reset", split="eval", index=3, episode_id="mine")
        assert opened["data"]["observation"]["task"] == ids[3]
        assert ask(session, "state")["data"] == {"episode_id": "mine", "step_count": 0}
        drawn = [ask(session, "reset", seed=seed)["data"]["observation"]["task"] for seed in (1, 1, 2, 3, 4)]
    assert drawn[0] == drawn[1]
    assert len(set(drawn)) > 2


@pytest.mark.parametrize(
    ("kind", "data", "said"),
    [
        ("step", {"message": "x"}, "no episode is under way"),
        ("reset", {"index": 10**9}, "tasks, and index 1000000000 is none of them"),
        ("reset", {"task": "none"}, "none"),
        ("reset", {"split": "dev"}, "split"),
        ("reset", {"tsak": "a"}, "tsak"),
        ("rest", {}, "type"),
    ],
)
def test_what_is_wrong_is_said_and_the_session_goes_on(
    kind: str, data: dict[str, Any], said: str, client: TestClient
) -> None:
    with client.websocket_connect(WS) as session:
        answer = ask(session, kind, **data)
        assert answer["type"] == "error"
        assert said in answer["data"]["message"]
        session.send_text("{")
        assert session.receive_json()["data"]["code"] == "VALIDATION_ERROR"
        assert ask(session, "reset")["type"] == "observation"


def test_one_client_too_many_is_told_so(client: TestClient) -> None:
    with client.websocket_connect(WS) as first, client.websocket_connect(WS) as second:
        assert ask(first, "reset")["type"] == ask(second, "reset")["type"] == "observation"
        with client.websocket_connect(WS) as third:
            assert third.receive_json()["data"]["code"] == "CAPACITY_REACHED"
    with client.websocket_connect(WS) as fourth:
        assert ask(fourth, "reset")["type"] == "observation"


@pytest.mark.parametrize("headers", [{"host": "evil.test"}, {"origin": "http://evil.test"}])
def test_pages_of_elsewhere_are_refused(headers: dict[str, str], client: TestClient) -> None:
    assert client.post("/reset", headers=headers).status_code == 403
    with pytest.raises(WebSocketDisconnect), client.websocket_connect(WS, headers=headers):
        pass


def test_over_http_an_episode_is_opened_and_not_played(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "healthy"}
    assert "message" in client.get("/schema").json()["action"]["properties"]
    assert client.get("/tasks").json()["eval"]
    assert client.get("/metadata").json()["name"] == NAME
    assert client.post("/reset", json={"split": "eval", "index": 0}).json()["observation"]["messages"]
    assert "index" in client.post("/reset", json={"index": -1}).json()["detail"]
    assert "/ws" in client.post("/step", json={"action": {}}).json()["detail"]


def test_an_unknown_environment_and_a_taken_port_are_one_line(command: CommandLine) -> None:
    assert "did you mean" in one_line(command("env", "serve", "vertigym/Arithmetik-v0"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        assert "cannot listen" in one_line(command("env", "serve", NAME, "--port", port))


GRADED = ("oracle_max", "floor_gap", "no_solution_leakage", "verifier_determinism")


def graded(tmp_path: Path, package: Path, *url: str) -> dict[str, tuple[str, list[str]]]:
    """What OpenEnv's registry of graders makes of a package."""
    python = os.environ.get("OPENENV_PYTHON", sys.executable if find_spec("openenv") else "")
    if not python:
        pytest.skip("openenv is not installed, and OPENENV_PYTHON names no Python that has it")
    (tmp_path / "metadata").mkdir()
    write_metadata(tmp_path / "metadata")
    script = Path(__file__).with_name("openenv_grading.py")
    return dict(json.loads(run(tmp_path, tmp_path / "metadata", python, script, package, *url)))


@pytest.mark.slow
def test_our_check_grades_an_exported_package(tmp_path: Path) -> None:
    export_environment(NAME, "openenv", tmp_path / "package")
    found = graded(tmp_path, tmp_path / "package")
    assert {one: status for one, (status, _) in found.items()} == {
        **{f"semantic.{name}": "pass" for name in GRADED},
        "runtime.seed_control": "pass",
        "static.manifest": "pass",
    }
    assert "100 of 100 tasks" in found["semantic.oracle_max"][1][0]


@pytest.mark.slow
def test_a_server_that_pays_for_nothing_fails_the_floor(tmp_path: Path) -> None:
    yaml = "name: pays\nvalidation:\n  reward: {range: [0, 1], floor_margin: 0.4}\n"
    yaml += "  resources: {cpu: 1, memory_mb: 64, disk_mb: 64, episode_timeout_s: 60}\n"
    yaml += "  capabilities: {verifier: {kind: reward_channel}}\n  types: {tags: [toy]}\n"
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "openenv.yaml").write_text(yaml)
    tasks = [Task(id=f"t{i}", prompt=f"say {i}", answer=str(i)) for i in range(30)]
    paying = SingleTurnEnv(TaskSet(tasks), Rubric(lambda: 1.0))
    with listening(OpenEnvServer(paying, "toy/Pays-v0").app()) as url:
        found = graded(tmp_path, tmp_path / "package", url)
    assert found["semantic.floor_gap"][0] == "fail"
    assert found["semantic.oracle_max"][0] == "skip"
