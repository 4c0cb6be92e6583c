"""Repository tasks: a folder, a text that says what to change, hidden tests.

The policy works through tools: `bash`, `read`, `edit`, `submit`. It calls one a turn, as
`<tool_call>{"name": "read", "arguments": {"path": "shop/prices.py"}}</tool_call>` (a bare or fenced JSON object
will do). The sandbox lives for the episode; the hidden tests run in a fresh one over the final tree, and call
its functions through a data-only channel, so nothing in the tree can forge a pass.

Task: `info["files"]` (path -> text), `info["tests"]` (`rewards.code_tests`), `info["solution"]` (path -> text).
"""

import weakref
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.errors import InputError, VertigymError
from vertigym.core.types import Message, Score, Task
from vertigym.envs.code.env import BUILT_IN
from vertigym.envs.env import Env, Turn
from vertigym.envs.tasks import Tasks, TaskSet
from vertigym.envs.tool_calls import tool, tool_call, write_call
from vertigym.rewards.code import Parts, Verifier
from vertigym.rewards.code_tests import ExitStatus, parse_tests
from vertigym.sandboxes import JobLimits
from vertigym.sandboxes.session import LIMITS, Session

_SHOWN = 8000  # characters of a tool's output that the policy sees
_PATH = {"type": "string", "description": "relative to the repository's root"}

SYSTEM = """You work in a software repository through tools. Call one tool a turn, like this:
<tool_call>{"name": "bash", "arguments": {"command": "ls -R"}}</tool_call>
Tools: bash(command); read(path); edit(path, old, new), which replaces the one occurrence of old, or with an
empty old writes the whole file; submit(), when you are done."""


_TEXT = {"type": "string"}
TOOLS = (
    tool("bash", "Run a shell command in the repository.", {"command": _TEXT}),
    tool("read", "Read a text file.", {"path": _PATH}),
    tool("edit", "Replace the one occurrence of `old`.", {"path": _PATH, "old": _TEXT, "new": _TEXT}),
    tool("submit", "Hand in the repository as it is.", {}),
)


class RepositoryEnv(Env):
    """One task, one living sandbox, a tool call a turn. `parts` as in `CodeEnv`."""

    max_turns = 20
    parallel_steps = 2
    tools = TOOLS

    def __init__(
        self,
        tasks: Tasks,
        *,
        parts: Parts | None = None,
        limits: JobLimits = LIMITS,
        verifier: Verifier | None = None,
    ) -> None:
        super().__init__(tasks)
        self.limits = limits
        self.verifier = verifier or Verifier(parts=parts, cache=0)
        self._session: Session | None = None
        self._fault = ""

    def begin(self, task: Task) -> Sequence[Message]:
        """Open a sandbox with the task's files in it."""
        self._end()
        self._fault = ""
        try:
            self._session = self._open(task)
            self._close_session = weakref.finalize(self, self._session.close)
        except VertigymError as error:
            self._fault = f"{type(error).__name__}: {error}"
        return [{"role": "system", "content": SYSTEM}, *task.messages()]

    def respond(self, action: str) -> Turn:
        """Run the tool that was called; `submit` ends the episode."""
        if self._fault or self._session is None:
            return Turn(score=Score.unscored(self._fault or "no sandbox"))
        try:
            name, arguments = tool_call(action)
        except ValueError as error:
            return _say(f"error: {error}")
        try:
            if name == "submit":
                return Turn(score=self._judge())
            return _say(self._use(self._session, name, arguments))
        except InputError as error:
            return _say(f"error: {error}")
        except VertigymError as error:
            return Turn(score=Score.unscored(f"{type(error).__name__}: {error}"))

    def close_episode(self) -> Score:
        """Out of turns: the tree is judged as it is."""
        return self._judge()

    def close(self) -> None:
        """End the episode's sandbox."""
        self._end()

    def fresh(self) -> "RepositoryEnv":
        """Another instance; it opens a sandbox of its own."""
        other = super().fresh()
        assert isinstance(other, RepositoryEnv)
        other._session = None
        return other

    def reference(self, task: Task) -> Sequence[str] | None:
        """Write the solution's files, then submit."""
        solution: Mapping[str, str] | None = task.info.get("solution")
        if solution is None:
            return None
        edits = [write_call("edit", path=path, old="", new=text) for path, text in solution.items()]
        return [*edits, write_call("submit")]

    def _open(self, task: Task) -> Session:
        return Session(task.info["files"], limits=self.limits)

    def _use(self, session: Session, name: str, arguments: Mapping[str, Any]) -> str:
        match name, arguments:
            case "bash", {"command": str(command)}:
                outcome = session.run(["bash", "-c", f"exec 2>&1\n{command}"])
                ended = (
                    "" if outcome.status == "ok" else f"\n[{outcome.status}, exit status {outcome.exit_code}]"
                )
                return _cut(outcome.stdout) + ended
            case "read", {"path": str(path)}:
                outcome = session.run(["cat", "--", path])
                return _cut(outcome.stdout) if not outcome.exit_code else f"error: {outcome.stderr.strip()}"
            case "edit", {"path": str(path), "old": str(old), "new": str(new)}:
                return _edit(session, path, old, new)
        return f"error: no tool {name!r} with arguments {', '.join(arguments) or '(none)'}"

    def _judge(self) -> Score:
        assert self._session is not None
        tests = parse_tests(self.task.info["tests"])
        try:
            tree = self._session.snapshot()
        except VertigymError as error:
            return Score.unscored(f"{type(error).__name__}: {error}")
        finally:
            self._end()
        verifier = self.verifier
        if isinstance(tests, ExitStatus):
            verifier = Verifier(parts=verifier.parts, limits=self.limits, cache=0)
        return verifier.score("", tests, dict(tree))

    def _end(self) -> None:
        if self._session is not None:
            self._close_session()
            self._session = None


def load(**kwargs: Any) -> Env:
    """Repository tasks of our own."""
    return RepositoryEnv(TaskSet.read(BUILT_IN / "repositories.jsonl"), **kwargs)


def _edit(session: Session, path: str, old: str, new: str) -> str:
    if old:
        found = session.read(path)
        if found is None:
            return f"error: {path}: no such file"
        try:
            text = found.decode()
        except UnicodeDecodeError:
            return f"error: {path} is not UTF-8 text; use bash"
        if text.count(old) != 1:
            return f"error: `old` occurs {text.count(old)} times in {path}; it must occur once"
        new = text.replace(old, new)
    session.write(path, new)
    return f"wrote {path}"


def _say(content: str) -> Turn:
    return Turn(messages=[{"role": "tool", "content": content}])


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}\n[{len(text) - _SHOWN} characters more]"
