"""Questions that are answered with the tools of an MCP server.

    clock-v0/
      env.toml
      train.jsonl      {"question": "…", "answer": "…"} a line, as in every environment of rows

The one idea: a message with a tool call is answered by the server, and the first without one is the answer.
A command is started anew for each episode, so that none sees what another has done; what stands behind an
address is shared. The first episode asks for the tools; in later ones the server starts with the first call.
A server that is lost, late or has other tools than before leaves the episode unscored.
"""

from collections.abc import Sequence
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vertigym.core.errors import InfrastructureError
from vertigym.core.types import Message, Score, Task
from vertigym.envs.env import Env, Turn
from vertigym.envs.folders import EnvFolder
from vertigym.envs.mcp.tool_session import ToolSession
from vertigym.envs.rows import RowFilesConfig, row_rubric, row_tasks
from vertigym.envs.tasks import Tasks
from vertigym.envs.tool_calls import OPEN, tool_call
from vertigym.rewards.rubric import Rubric

_SHOWN = 8000  # characters of a tool's answer that the policy sees


class McpConfig(RowFilesConfig):
    """`env.toml` of an environment with the tools of an MCP server."""

    kind: Literal["mcp"]
    command: tuple[str, ...] = Field((), description="starts the server; {folder} is the environment's folder")
    url: str = Field("", description="of a server that runs, in place of a command")
    tools: tuple[str, ...] = Field((), description="those of its tools that the policy has; empty: all")
    system: str = Field("", description="the system message")
    max_turns: int = Field(8, ge=1, description="messages of the policy, the answer among them")
    timeout_s: float = Field(30.0, gt=0, description="for each answer of the server")
    parallel: int = Field(4, ge=1, description="episodes that wait for a server at one time")
    environment: dict[str, str] = Field({}, description="variables of the command's environment")

    @model_validator(mode="after")
    def _one_server(self) -> Self:
        if bool(self.command) == self.url.startswith(("http://", "https://")):
            raise ValueError("either command or url, an http(s) address, names the server")
        return self


class McpEnv(Env):
    """Questions, and a server's tools; `folder` is where its files are."""

    repeatable = False  # the server may answer otherwise

    def __init__(self, tasks: Tasks, rubric: Rubric, config: McpConfig, folder: EnvFolder) -> None:
        super().__init__(tasks)
        self.rubric, self.config, self.folder = rubric, config, folder
        self.max_turns, self.parallel_steps = config.max_turns, config.parallel
        self._session: ToolSession | None = None
        self._calls: list[dict[str, Any]] = []
        self._listed: list[dict[str, Any]] = []  # the policy's tools, once asked for; all instances share it

    def begin(self, task: Task) -> Sequence[Message]:
        """The question, and the server's tools.

        Raises:
            InfrastructureError: in a first episode, the server is not to be had, or lacks a tool.
        """
        self.close()
        self._calls = []
        if not self._listed:
            self._session, self._listed[:] = self._connect()
        self.tools = self._listed
        config = self.config
        opening: list[Message] = [{"role": "system", "content": config.system}] if config.system else []
        return opening + task.messages()

    def respond(self, action: str) -> Turn:
        """What the server answers to a tool call; the verdict on anything else."""
        names = [tool["function"]["name"] for tool in self.tools]
        try:
            name, arguments = tool_call(action)
        except ValueError as error:
            return _say(f"error: {error}") if OPEN in action else Turn(score=self._judge(action))
        if name not in names:
            if OPEN not in action:  # a JSON object, which may be the answer
                return Turn(score=self._judge(action))
            return _say(f"error: there is no tool {name[:40]!r}; there are {', '.join(names)}")
        try:
            if not self._session:
                self._session, tools = self._connect()
                if tools != self.tools:
                    raise InfrastructureError("the MCP server has other tools than it had before")
            answer = self._session.call(name, arguments)
        except ValueError as error:
            answer = f"error: {error}"
        except InfrastructureError as error:
            self.close()
            return Turn(score=Score.unscored(str(error)))
        self._calls.append({"name": name, "arguments": arguments, "answer": answer})
        return _say(answer)

    def close_episode(self) -> Score:
        """Out of turns, without an answer."""
        self.close()
        return super().close_episode()

    def close(self) -> None:
        """Leave the server; a command ends."""
        if self._session:
            self._session.close()
            self._session = None

    def fresh(self) -> "McpEnv":
        """Another instance, with a connection of its own."""
        other = super().fresh()
        assert isinstance(other, McpEnv)
        other._session = None
        return other

    def _connect(self) -> tuple[ToolSession, list[dict[str, Any]]]:
        """A server, and those of its tools that the policy has."""
        config, root = self.config, str(self.folder.path.resolve())
        command = [part.replace("{folder}", root) for part in config.command]
        session = ToolSession(
            config.url or command,
            variables=config.environment,
            cwd=self.folder.path,
            timeout_s=config.timeout_s,
        )
        found = {tool["function"]["name"]: tool for tool in session.tools}
        if missing := [name for name in config.tools if name not in found]:
            session.close()
            raise InfrastructureError(f"the MCP server has no tool {missing[0]!r}; it has {', '.join(found)}")
        return session, [found[name] for name in config.tools or found]

    def _judge(self, answer: str) -> Score:
        self.close()
        task = self.task.model_copy(update={"info": {**self.task.info, "calls": self._calls}})
        score = self.rubric.score(task=task, completion=answer, messages=self._messages)
        return Score(score.value, {**score.parts, "calls": float(len(self._calls))}, score.evidence)


def load(folder: EnvFolder, **changes: Any) -> McpEnv:
    """The environment in `folder`; `changes` replace keys of its `env.toml`.

    Raises:
        ConfigError: env.toml is wrong, or the folder is not trusted. DataError: a row is not a task.
    """
    config = folder.config(McpConfig, **changes)
    folder.needs_trust(f"it uses the MCP server {config.url or config.command[0]!r}")
    return McpEnv(row_tasks(config, folder), row_rubric(config, folder), config, folder)


def _say(text: str) -> Turn:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[{len(text) - _SHOWN:,} more characters]"
    return Turn(messages=[{"role": "tool", "content": shown}])
