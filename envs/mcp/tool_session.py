"""A connection to an MCP server: its tools, and calls of them, from code that is not asynchronous.

    with closing(ToolSession(["uvx", "mcp-server-time"], timeout_s=30)) as session:
        session.tools                             # as chat templates want them described
        session.call("get_current_time", {"timezone": "Europe/Paris"})

The server is a command, which then lives as long as the session, or an address (streamable HTTP). The
protocol is the package `mcp`'s; its event loop runs on a thread of the session.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

from vertigym.core.errors import InfrastructureError, MissingDependencyError

_TAIL = 300  # characters of a server's errors that a reason shows


class ToolSession:
    """An open connection.

    Args:
        server: a command, or an http(s) address.
        variables: of a command's environment, beside this process's.
        cwd: where a command runs.
        timeout_s: for each of its answers.

    Raises:
        MissingDependencyError: `mcp` is not installed. InfrastructureError: the server is not to be had.
    """

    def __init__(
        self,
        server: str | Sequence[str],
        *,
        variables: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        timeout_s: float = 30.0,
    ) -> None:
        try:
            from anyio.from_thread import start_blocking_portal
            from mcp import Client, StdioServerParameters, stdio_client
        except ImportError:
            raise MissingDependencyError("mcp", "mcp", "an MCP server") from None

        self._name = server if isinstance(server, str) else " ".join(server)
        stack = ExitStack()
        self.close = weakref.finalize(self, stack.close)
        errors = TemporaryFile("w+")  # noqa: SIM115 (the stack closes it)
        stack.enter_context(errors)
        try:
            transport: Any = server
            if not isinstance(server, str):
                (command, *arguments), known = server, {**os.environ, **(variables or {})}
                started = StdioServerParameters(command=command, args=arguments, env=known, cwd=cwd)
                transport = stdio_client(started, errlog=errors)
            self._portal = stack.enter_context(start_blocking_portal())
            client = Client(transport, read_timeout_seconds=timeout_s)
            self._client = stack.enter_context(self._portal.wrap_async_context_manager(client))
            self.tools: Sequence[dict[str, Any]] = self._portal.call(_listed, self._client)
        except Exception as error:  # a foreign process, a network, groups of both
            errors.seek(0)
            last = errors.read().strip().rpartition("\n")[2][-_TAIL:]
            self.close()
            said = "; ".join(filter(None, [_said(error), last]))
            raise InfrastructureError(f"the MCP server {self._name} cannot be used: {said}") from None

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """What a tool answers, as text; what is no text in it is named.

        Raises:
            ValueError: the arguments are not the tool's. InfrastructureError: the server was lost, or is late.
        """
        from mcp import MCPError
        from mcp.types import INVALID_PARAMS

        try:
            result = self._portal.call(self._client.call_tool, name, dict(arguments))
        except Exception as error:
            if isinstance(error, MCPError) and error.code == INVALID_PARAMS:
                raise ValueError(str(error)) from None
            raise InfrastructureError(f"the MCP server {self._name} was lost: {_said(error)}") from None
        parts = [part.text if part.type == "text" else f"[{part.type}]" for part in result.content]
        return "\n".join([*(["error:"] if result.is_error else []), *parts])


async def _listed(client: Any) -> list[dict[str, Any]]:
    """All tools of a server, page by page."""
    tools, cursor = [], None
    while True:
        page = await client.list_tools(cursor=cursor)
        tools += page.tools
        if not (cursor := page.next_cursor):
            return [{"type": "function", "function": _described(tool)} for tool in tools]


def _described(tool: Any) -> dict[str, Any]:
    return {"name": tool.name, "description": tool.description or "", "parameters": tool.input_schema}


def _said(error: BaseException) -> str:
    """The first error of a group, in one line."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".splitlines()[0]
