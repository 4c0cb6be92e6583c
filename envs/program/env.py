"""A program that owns its loop, as an environment: it is run for each task, and what it asks is what is played.

    acme-agent/
      env.toml
      agent.py
      train.jsonl      as in a rows environment

The one idea: a turn is a call. The messages of the program's next chat completion are the observation, the
reply is the action, so an episode is played, recorded and learned from like any other: by the engine's own
token ids. Where the program sends a reply back as it got it, the reply's own tokens stand; where it rewrites
what was said, or brings other tools, the chat begins anew. A call's place, from which its seed and its ids
follow, is what it says: calls side by side are answered the same in whatever order they come.

A program that fails, ends without a call, is late, or loses a call is not scored.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

from pydantic import Field

from vertigym.core.errors import InfrastructureError
from vertigym.core.files import dumps
from vertigym.core.types import Completion, Message, Score, Task
from vertigym.dialects.chat_call import ReplyHead, reply_of
from vertigym.dialects.dialect import whole_stream
from vertigym.envs.env import Env, Turn
from vertigym.envs.folders import EnvFolder
from vertigym.envs.program.program_calls import ProgramCall, ProgramCalls
from vertigym.envs.program.program_process import RunningProgram
from vertigym.envs.rows import RowFilesConfig, row_rubric, row_tasks
from vertigym.envs.tasks import Tasks
from vertigym.rewards.rubric import Rubric

_TAIL = 300  # characters of its errors that a reason shows


class ProgramConfig(RowFilesConfig):
    """`env.toml` of a program environment."""

    kind: Literal["program"]
    command: tuple[str, ...] = Field(min_length=1, description="{folder} stands for the environment's folder")
    max_turns: int = Field(32, ge=1, description="calls; then the program is stopped, and judged as it is")
    timeout_s: float = Field(60.0, gt=0, description="of the program's own time, waits for answers left out")
    parallel: int = Field(4, ge=1, description="programs that work at one time")
    output: str = Field("stdout", description="what is judged: stdout, a file of the workspace, or posted")
    workspace: str = Field("", description="a folder whose files each workspace begins with")
    shown: tuple[str, ...] = Field((), description="keys of a task's info that the program is told")
    ignored: tuple[str, ...] = Field((), description="parameters of its calls that are left out")
    judged_exits: tuple[int, ...] = Field((0,), description="exit codes after which it is judged")
    environment: dict[str, str] = Field({}, description="variables of its environment")


class CallSource(Protocol):
    """What makes the calls of one episode: a process (`RunningProgram`), or a part of one."""

    calls: ProgramCalls
    count: int

    def next_call(self) -> ProgramCall | None:
        """Its next call; None: it has ended."""
        ...

    def stop(self) -> int | None:
        """End it; its exit code, None where it had not ended by itself."""
        ...

    def stderr(self) -> str:
        """What it said of its faults."""
        ...

    def close(self) -> object:
        """Clean up behind it."""
        ...


C = TypeVar("C", bound=CallSource)


class CallerEnv(Env, Generic[C]):
    """Episodes of a caller: a turn is a call. `parallel`: how many work at one time."""

    repeatable = False  # the caller would have to be run again, and may ask for something else
    judged_exits: Sequence[int] = (0,)

    def __init__(self, tasks: Tasks, turns: int, parallel: int) -> None:
        super().__init__(tasks)
        self.max_turns, self.parallel_steps = turns, parallel
        self._program: C | None = None
        self._call: ProgramCall | None = None
        self._replies: dict[bytes, str] = {}
        self._heard: Counter[bytes] = Counter()

    def start(self, task: Task) -> C:
        """What makes the calls of an episode on the task, at work."""
        raise NotImplementedError

    def verdict(self, program: C, code: int | None) -> Score:
        """How well it has done."""
        raise NotImplementedError

    def begin(self, task: Task) -> Sequence[Message]:
        """Start the program; the messages of its first call.

        Raises:
            InfrastructureError: there is none.
        """
        self.close()
        self._replies, self._heard = {}, Counter()
        self._program = self.start(task)
        call = self._program.next_call()
        if call is None:
            ended = self._how_it_ended(self._program, self._program.stop())
            self.close()
            raise InfrastructureError(f"no call came: {ended}")
        return self._hear(call)

    def respond(self, action: str) -> Turn:
        """Answer the call; the messages of the next one, or the verdict once the program has ended."""
        program, call = self._program, self._call
        assert program
        assert call
        completion = replace(self.completion or Completion(action), text=action).cut(self.decoding)
        text = completion.text.encode("utf-8", "replace").decode()  # half a character is not read back as JSON
        head = ReplyHead(self._name(call), call.request, f"v{completion.policy_version}", 0)
        reply = reply_of(head, [replace(completion, text=text)])
        self._replies[list(_digests([*call.request.messages, reply.answers[0].message()]))[-1]] = (
            completion.text
        )
        if call.request.stream:
            program.calls.reply(call, whole_stream(call.dialect.stream(head), reply).encode())
        else:
            program.calls.reply(call, dumps(call.dialect.body(reply)).encode())
        try:
            following = program.next_call()
        except InfrastructureError as error:
            self.close()
            return Turn(score=Score.unscored(str(error)))
        return Turn(chat=self._hear(following)) if following else Turn(score=self._judge())

    def close_episode(self) -> Score:
        """Out of calls: the program is stopped, and its work judged as it is."""
        return self._judge(stopped=True)

    def close(self) -> None:
        """Stop the program."""
        if self._program:
            self._program.close()
        self._program = self._call = None

    def fresh(self) -> Self:
        """Another instance, with a program of its own."""
        other = super().fresh()
        assert isinstance(other, type(self))
        other._program = other._call = None
        return other

    def reference(self, task: Task) -> Sequence[str] | None:
        """Nobody knows what the program will ask."""
        return None

    def _hear(self, call: ProgramCall) -> list[Message]:
        """Take a call: its messages, with what was sampled in place of replies that come back as they were."""
        request = call.request
        self._call, self.tools, self.decoding = call, request.shown_tools, request.decoding
        *_, digest = _digests([*request.messages, {"role": "tools", "content": dumps(request.shown_tools)}])
        self._heard[digest] += 1
        self.place = f"{digest.hex()[:24]}{self._heard[digest] - 1}"
        said = [self._replies.get(digest) for digest in _digests(request.messages)]
        return [
            message if text is None else {"role": "assistant", "content": text}
            for message, text in zip(request.messages, said, strict=True)
        ]

    def _name(self, call: ProgramCall) -> str:
        return f"{call.dialect.prefix}{self.place}"

    def _judge(self, *, stopped: bool = False) -> Score:
        program = self._program
        assert program
        code = program.stop()
        try:
            if fault := program.calls.fault():
                return Score.unscored(fault)
            if not stopped and code not in self.judged_exits:
                return Score.unscored(self._how_it_ended(program, code))
            return self.verdict(program, code)
        finally:
            self.close()

    @staticmethod
    def _how_it_ended(program: CallSource, code: int | None) -> str:
        said = program.stderr().strip()[-_TAIL:].rpartition("\n")[2]
        fault = program.calls.fault()
        return "; ".join(filter(None, [f"the program ended with exit code {code}", fault, said]))


class ProgramEnv(CallerEnv[RunningProgram]):
    """A program's environment; `folder` is where its files are."""

    def __init__(self, tasks: Tasks, rubric: Rubric, config: ProgramConfig, folder: EnvFolder) -> None:
        super().__init__(tasks, config.max_turns, config.parallel)
        self.rubric, self.config, self.folder = rubric, config, folder
        self.judged_exits = config.judged_exits

    def start(self, task: Task) -> RunningProgram:
        """The program, told of the task but its answer."""
        config, root = self.config, str(self.folder.path.resolve())
        shown = {key: task.info[key] for key in config.shown if key in task.info}
        return RunningProgram(
            [part.replace("{folder}", root) for part in config.command],
            dumps({"id": task.id, "prompt": task.prompt, **shown}),
            ProgramCalls(config.ignored),
            variables=config.environment,
            template=Path(self.folder.file(config.workspace)) if config.workspace else None,
            timeout_s=config.timeout_s,
        )

    def verdict(self, program: RunningProgram, code: int | None) -> Score:
        """What the program posted, or the reward's verdict on its output."""
        if self.config.output == "posted":
            return self._posted(program, code)
        stdout, name = program.stdout(), self.config.output
        output = stdout if name == "stdout" else program.file(name)
        seen = {"workspace": str(program.workspace), "exit_code": code, "stdout": stdout}
        task = self.task.model_copy(update={"info": {**self.task.info, **seen}})
        score = self.rubric.score(task=task, completion=output, messages=self._messages)
        evidence = {**score.evidence, "output": output[:_TAIL], "exit_code": code}
        return Score(score.value, {**score.parts, "calls": float(program.count)}, evidence)

    @staticmethod
    def _posted(program: RunningProgram, code: int | None) -> Score:
        """What the program said of its work; a reward that never came is no score."""
        if (value := program.calls.reward) is None:
            return Score.unscored("the program posted no reward", exit_code=code)
        return Score(value, {"calls": float(program.count)}, {"exit_code": code})


def load(folder: EnvFolder, **changes: Any) -> ProgramEnv:
    """The environment in `folder`; `changes` replace keys of its `env.toml` (`timeout_s=10`).

    Raises:
        ConfigError: env.toml is wrong, or the folder is not trusted. DataError: a row is not a task.
    """
    config = folder.config(ProgramConfig, **changes)
    folder.needs_trust(f"it runs the program {config.command[0]!r} as you")
    return ProgramEnv(row_tasks(config, folder), row_rubric(config, folder), config, folder)


def _digests(messages: Sequence[Mapping[str, Any]]) -> Iterator[bytes]:
    """One for each message, that of the chat up to it."""
    digest = b""
    for message in messages:
        calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
        said = [message["role"], message.get("content") or "", calls, message.get("tool_call_id")]
        digest = blake2b(digest + json.dumps(said, sort_keys=True).encode()).digest()
        yield digest
