"""An environment's tools as an MCP server: an agent elsewhere plays one episode of a task through them.

The one idea: a call of a tool is written as the model of `vertigym train` would have written it, and
played. So the episode, its rules and its verdict are the environment's own. Its opening is the server's
instructions; `say` is for what is no tool call: a question, or an answer. When the episode is over a result
has `{"over": true, "score": …}` as its structured content; null there means that it could not be scored.
One server plays one episode.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import anyio.to_thread
from mcp import types
from mcp.server import Server
from mcp.server.stdio import stdio_server
from starlette.applications import Starlette

from vertigym.core.chat_client import tool_call_text
from vertigym.core.errors import InputError
from vertigym.envs import registry
from vertigym.envs.env import Env
from vertigym.interop.played_episode import PlayedEpisode
from vertigym.interop.served_env import serve_env

_HOST = "127.0.0.1"
SAY = types.Tool(
    name="say",
    description="Say something without a tool: ask, or answer.",
    input_schema={"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]},
)


class EpisodeTools:
    """One episode behind tools.

    Raises:
        InputError: the environment fails to open the task, or has a tool named like ours.
    """

    def __init__(self, env: Env, task: str, name: str) -> None:
        self.episode = PlayedEpisode(env, task, name)
        if self.episode.over:
            raise InputError(f"{name}: task {task} cannot be opened: {self._verdict()['reason']}")
        tools = [tool["function"] for tool in self.episode.tools]
        if SAY.name in {tool["name"] for tool in tools}:
            raise InputError(f"{name}: it has a tool named {SAY.name!r} itself: it cannot be told from ours")
        self.tools = [
            types.Tool(name=tool["name"], description=tool["description"], input_schema=tool["parameters"])
            for tool in tools
        ]
        self._one_at_a_time = anyio.Lock()

    def server(self) -> Server[Any]:
        """The episode's server."""
        instructions = "\n\n".join(str(message["content"]) for message in self.episode.messages)
        return Server(
            "vertigym", instructions=instructions, on_list_tools=self._list_tools, on_call_tool=self._call_tool
        )

    async def _list_tools(self, _: Any, __: Any) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[*self.tools, SAY])

    async def _call_tool(self, _: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
        async with self._one_at_a_time:
            return await anyio.to_thread.run_sync(self._play, params.name, params.arguments or {})

    def _play(self, name: str, arguments: Mapping[str, Any]) -> types.CallToolResult:
        if self.episode.over:
            return _result("The episode is over.", self._verdict(), error=True)
        text = arguments.get("text")
        if name == SAY.name and not isinstance(text, str):
            return _result('say needs "text"', error=True)
        action = tool_call_text(name, json.dumps(arguments, ensure_ascii=False))
        answer = self.episode.step(str(text) if name == SAY.name else action)
        said = "\n\n".join(str(message["content"]) for message in answer)
        return _result(said, self._verdict()) if self.episode.over else _result(said)

    def _verdict(self) -> dict[str, Any]:
        score = self.episode.end()
        reason = {} if score.value is not None else {"reason": str(score.evidence.get("reason", ""))}
        return {"over": True, "score": score.value, **reason}


def _result(
    text: str, verdict: Mapping[str, Any] | None = None, *, error: bool = False
) -> types.CallToolResult:
    content = [types.TextContent(type="text", text=text)]
    return types.CallToolResult(content=list(content), structured_content=verdict, is_error=error)


def serve_tools(
    id: str,  # noqa: A002
    task: str,
    *,
    port: int | None = None,
    on_ready: Callable[[str], None] = lambda url: None,
) -> None:
    """Serve a task's tools until the client leaves (stdio), or at `port` of this machine as streamable HTTP,
    until SIGINT.

    Raises:
        UnknownNameError: no such environment or task. InputError: as `EpisodeTools`. ConfigError: the port is
            taken.
    """
    if port is None:
        anyio.run(_over_stdio, EpisodeTools(registry.make(id), task, registry.spec(id).id))
        return

    def app(env: Env, name: str, _: bool) -> Starlette:
        served: Starlette = EpisodeTools(env, task, name).server().streamable_http_app(host=_HOST)
        return served

    serve_env(id, app, host=_HOST, port=port, on_ready=lambda url: on_ready(f"{url}/mcp"))


async def _over_stdio(tools: EpisodeTools) -> None:
    server = tools.server()
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())
