"""An environment's tools over MCP, played with the protocol's own client: the episode and its verdict are ours."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vertigym import envs
from vertigym.core.errors import InputError
from vertigym.envs.agent.env import AgentEnv, load
from vertigym.envs.agent.importer import import_agent
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tool_calls import OPEN, is_call, tool_call

from .agent_returns import DECISION, SIZES, asking

pytest.importorskip("mcp")
import anyio
from mcp import Client, StdioServerParameters, stdio_client

from vertigym.interop.mcp_server import EpisodeTools


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> AgentEnv:
    out = tmp_path_factory.mktemp("agent") / "returns"
    import_agent(DECISION, "shop/Returns-v0", out, sizes=SIZES)
    return load(EnvFolder(out))


async def play(server: Any, actions: list[str]) -> tuple[str, list[Any]]:
    """The instructions of a server, and what it answers to each action."""
    async with Client(server) as client:
        names = {tool.name for tool in (await client.list_tools()).tools}
        results = []
        for action in actions:
            name, arguments = tool_call(action) if OPEN in action else ("say", {"text": action})
            assert name in names
            results.append(await client.call_tool(name, arguments))
        return client.instructions or "", results


def test_a_perfect_episode_is_played_through_the_tools(env: AgentEnv) -> None:
    task = asking(env)
    actions = list(env.reference(task) or ())
    assert not all(map(is_call, actions))
    told, results = anyio.run(play, EpisodeTools(env, task.id, "x").server(), [*actions, actions[0]])
    assert str(task.prompt) in told
    assert env.config.policy in told
    *before, last, after = results
    assert all(one.structured_content is None and one.content[0].text for one in before)
    assert last.structured_content == {"over": True, "score": 1.0}
    assert after.is_error


def test_what_a_rule_blocks_is_told_and_a_wrong_end_scores_0(env: AgentEnv) -> None:
    task = asking(env)
    *_, finish = env.reference(task) or ()
    decide = next(action for action in env.reference(task) or () if '"decide_case"' in action)
    _, (blocked, end) = anyio.run(play, EpisodeTools(env, task.id, "x").server(), [decide, finish])
    assert "look the case up first" in blocked.content[0].text
    assert end.structured_content == {"over": True, "score": 0.0}


class Failing(AgentEnv):
    def respond(self, action: str) -> Any:
        raise OSError("no disk")


def test_an_episode_that_fails_has_no_score(env: AgentEnv) -> None:
    failing = Failing(env.tasks, env.config, folder=env.folder)
    _, (end,) = anyio.run(play, EpisodeTools(failing, asking(env).id, "x").server(), ["hello"])
    assert end.structured_content["score"] is None
    assert "no disk" in end.structured_content["reason"]


def test_a_tool_that_is_named_like_ours_is_refused(env: AgentEnv) -> None:
    tools = [one.model_copy(update={"name": "say"}) for one in env.config.tool[:1]]
    twin = AgentEnv(env.tasks, env.config.model_copy(update={"tool": (*tools, *env.config.tool[1:])}))
    with pytest.raises(InputError, match="named 'say' itself"):
        EpisodeTools(twin, asking(env).id, "x")


@pytest.mark.parametrize("right", [True, False])
def test_the_command_over_stdio(right: bool, tmp_path: Path) -> None:
    known = envs.make("vertigym/Returns-v0").tasks
    task = known.get(known.ids("eval")[0])
    command = ["-P", "-m", "vertigym", "env", "mcp", "vertigym/Returns-v0", task.id]
    server = stdio_client(StdioServerParameters(command=sys.executable, args=command, env={**os.environ}))
    told, (end,) = anyio.run(play, server, [env_answer(task.id) if right else "{}"])
    assert str(task.prompt) in told
    assert end.structured_content == {"over": True, "score": float(right)}


def test_the_command_over_http() -> None:
    task = envs.make("vertigym/Returns-v0").tasks.ids("eval")[0]
    command = [sys.executable, "-P", "-m", "vertigym", "env", "mcp", "vertigym/Returns-v0", task, "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as served:
        assert served.stderr
        said = served.stderr.readline()
        address = re.search(r"http://127\.0\.0\.1:(\d+)/mcp", said)
        assert address, said
        taken = subprocess.run([*command[:-1], address[1]], capture_output=True, text=True, check=False)
        _, (end,) = anyio.run(play, address[0], [env_answer(task)])
        served.terminate()
    assert end.structured_content == {"over": True, "score": 1.0}
    assert (taken.returncode, taken.stderr.count("\n")) == (2, 1)
    assert "Address already in use" in taken.stderr


def env_answer(task: str) -> str:
    made = envs.make("vertigym/Returns-v0")
    (answer,) = made.reference(made.tasks.get(task)) or ()
    return answer
