"""Environments with the tools of an MCP server: what is called is answered, what fails is told to whom it
concerns."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from vertigym import envs
from vertigym.core.errors import ConfigError
from vertigym.core.files import write_jsonl
from vertigym.core.types import Trajectory
from vertigym.envs.tool_calls import write_call

from .programs import Recording, play

pytest.importorskip("mcp")

SERVER = """
import os, sys, time
from mcp.server import MCPServer

server, counted = MCPServer("desk"), []

@server.tool()
def add(a: int, b: int) -> int:
    "The sum."
    counted.append(a)
    return a + b

@server.tool()
def calls() -> str:
    return f"{len(counted)} in {os.environ.get('PLACE')}"

@server.tool()
def fail(how: str) -> str:
    if how == "die":
        os._exit(1)
    if how == "hang":
        time.sleep(60)
    raise RuntimeError("no such customer")

server.run("streamable-http", port=int(sys.argv[1])) if sys.argv[1:] else server.run()
"""


def desk(folder: Path, **keys: Any) -> str:
    """The id of an environment with the server above."""
    folder.mkdir(exist_ok=True)
    (folder / "server.py").write_text(SERVER)
    write_jsonl(folder / "train.jsonl", [{"id": f"t{n}", "question": "?", "answer": "5"} for n in range(3)])
    table = {
        "id": "test/Desk-v0", "kind": "mcp", "files": {"train": "train.jsonl"}, "reward": {"name": "exact"},
        "timeout_s": 30.0, **({"command": [sys.executable, "{folder}/server.py"]} if "url" not in keys else {}),
        **keys,
    }  # fmt: skip
    (folder / "env.toml").write_text(tomli_w.dumps(table))
    return f"{folder}?trust=true"


def told(played: Trajectory) -> list[str]:
    return [str(message["content"]) for message in played.messages if message["role"] == "tool"]


def test_tools_are_described_called_and_counted(tmp_path: Path) -> None:
    policy = Recording(write_call("add", a=2, b=3), write_call("calls"), "5")
    (played,) = play(desk(tmp_path / "e", environment={"PLACE": "here"}, system="Add."), policy)
    assert (played.score.value, played.score.parts["calls"]) == (1.0, 2.0)
    assert told(played) == ["5", "1 in here"]
    assert policy.prompts[0].messages[0] == {"role": "system", "content": "Add."}
    described = {tool["function"]["name"]: tool["function"] for tool in policy.prompts[0].tools}
    assert described.keys() == {"add", "calls", "fail"}
    assert described["add"]["description"] == "The sum."
    assert described["add"]["parameters"]["required"] == ["a", "b"]


def test_each_episode_has_a_server_of_its_own(tmp_path: Path) -> None:
    env = envs.make(desk(tmp_path / "e"))
    replies = [write_call("add", a=2, b=3)] * 3 + [write_call("calls")] * 3
    assert [told(one)[-1] for one in play(env, Recording(*replies), 3)] == ["1 in None"] * 3


def test_later_servers_start_with_the_first_call_and_have_the_same_tools(tmp_path: Path) -> None:
    env = envs.make(desk(tmp_path / "e"))
    first, lost, changed = write_call("add", a=2, b=3), write_call("fail", how="die"), write_call("calls")
    assert [one.score.value for one in play(env, Recording(first, "5"))] == [1.0]
    (tmp_path / "e" / "server.py").rename(tmp_path / "e" / "away.py")
    assert [one.score.value for one in play(env, Recording("5"))] == [1.0], "no call, no server"
    (played,) = play(env, Recording(lost, "5"))
    assert played.score.value is None
    (tmp_path / "e" / "server.py").write_text(SERVER.replace('"The sum."', '"A sum."'))
    (played,) = play(env, Recording(changed, "5"))
    assert (played.score.value, "other tools" in str(played.score.evidence["reason"])) == (None, True)


def test_what_is_the_policys_fault_is_told_to_it(tmp_path: Path) -> None:
    wrong = [
        write_call("add", a="x", b=1),
        write_call("fail", how="raise"),
        write_call("nothing"),
        '<tool_call>{"name"',
        write_call("add", a=1, b=1) * 2,
    ]
    (played,) = play(desk(tmp_path / "e", tools=["add", "fail"]), Recording(*wrong, "5"))
    assert played.score.value == 1.0
    expected = ["valid integer", "tool fail", "there are add, fail", "not JSON", "2 tool calls"]
    for answer, says in zip(told(played), expected, strict=True):
        assert says in answer
        assert answer.startswith("error:")


@pytest.mark.parametrize("answer", ["5", '{"name": "five"}', '{"five": 5}'])
def test_what_calls_no_tool_is_the_answer(answer: str, tmp_path: Path) -> None:
    (played,) = play(desk(tmp_path / "e"), Recording(answer))
    assert (played.score.value, played.turns) == (float(answer == "5"), 1)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"command": ["nowhere"]}, "nowhere cannot be used"),
        ({"command": [sys.executable, "-c", "raise SystemExit('no database')"]}, "no database"),
        ({"tools": ["add", "sell"]}, "no tool 'sell'; it has add"),
        ({}, "was lost"),
        ({"timeout_s": 2.0}, "timed out"),
    ],
)
def test_what_is_the_servers_fault_is_not_scored(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    how = "hang" if "timeout_s" in keys else "die"
    (played,) = play(desk(tmp_path / "e", **keys), Recording(write_call("fail", how=how), "5"))
    assert played.score.value is None
    assert says in str(played.score.evidence["reason"])


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"command": []}, "either command or url"),
        ({"url": "ftp://x"}, "either command or url"),
        ({"url": "http://x", "command": ["x"]}, "either command or url"),
    ],
)
def test_a_folder_names_one_server(keys: dict[str, Any], says: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=says):
        envs.make(desk(tmp_path / "e", **keys))


def test_a_folder_that_is_not_trusted_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trust the folder"):
        envs.make(desk(tmp_path / "e").partition("?")[0])


def listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


def test_a_server_at_an_address(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = desk(tmp_path / "e", url=f"http://127.0.0.1:{port}/mcp")
    with subprocess.Popen([sys.executable, tmp_path / "e" / "server.py", str(port)]) as server:
        try:
            while not listens(port):
                assert server.poll() is None
                time.sleep(0.05)
            played = play(env, Recording(*[write_call("add", a=2, b=3)] * 2, write_call("calls"), "5"), 2)
        finally:
            server.terminate()
    assert [one.score.value for one in played] == [1.0, 1.0]
    assert told(played[0])[-1] == "2 in None", "one server for all"


def test_a_server_that_others_wrote(tmp_path: Path) -> None:
    command = shutil.which("mcp-server-time", path=f"{Path(sys.executable).parent}")
    if not command:
        pytest.skip("mcp-server-time is not installed")
    calls = [write_call("convert_time", source_timezone="Asia/Tokyo", time="12:00", target_timezone=zone)
             for zone in ("Asia/Seoul", "Nowhere")]  # fmt: skip
    (played,) = play(desk(tmp_path / "e", command=[command]), Recording(*calls, "5"))
    assert played.score.value == 1.0
    right, wrong = told(played)
    assert '"time_difference": "+0.0h"' in right
    assert "Invalid timezone" in wrong
