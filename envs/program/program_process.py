"""A program at work on one task: its process group, a workspace of its own, what it prints.

It runs as the user, with the user's rights: a folder must be trusted for that.
"""

import os
import shutil
import signal
import subprocess
import tempfile
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vertigym.core.errors import InfrastructureError
from vertigym.envs.program.call_server import calls_server
from vertigym.envs.program.program_calls import ProgramCalls, TimedCalls

_READ = 1 << 20  # bytes of its output, and of its answer


class RunningProgram(TimedCalls):
    """A started program.

    Args:
        task: JSON, on the program's stdin and in the file that VERTIGYM_TASK names.
        variables: of its environment, beside those of this process.
        template: a folder whose files the workspace begins with.
        timeout_s: of its own time; it stands still while it waits for an answer.

    Raises:
        InfrastructureError: it cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        task: str,
        calls: ProgramCalls,
        *,
        variables: Mapping[str, str],
        template: Path | None,
        timeout_s: float,
    ) -> None:
        super().__init__(calls, timeout_s)
        self._folder = Path(tempfile.mkdtemp(prefix="vertigym-program-"))
        self.workspace = self._folder / "workspace"
        key = calls_server().open(calls)
        url = calls_server().url(key)
        own = {
            "OPENAI_BASE_URL": f"{url}/v1",
            "OPENAI_API_KEY": key,
            "ANTHROPIC_BASE_URL": url,
            "ANTHROPIC_API_KEY": key,
            "VERTIGYM_REWARD_URL": f"{url}/reward",
            "VERTIGYM_TASK": str(self._folder / "task.json"),
            "NO_PROXY": "127.0.0.1",
            "no_proxy": "127.0.0.1",
        }
        try:
            (self._folder / "task.json").write_text(task, "utf-8")
            if template:
                shutil.copytree(template, self.workspace, symlinks=True)
            else:
                self.workspace.mkdir()
            self._process = self._start(command, {**os.environ, **variables, **own})
        except OSError as error:
            _end(None, key, self._folder)
            raise InfrastructureError(f"the program cannot be started: {error}") from None
        self.close = weakref.finalize(self, _end, self._process, key, self._folder)
        threading.Thread(target=_watch, args=(self._process, calls), daemon=True).start()

    def _start(self, command: Sequence[str], variables: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        with (
            (self._folder / "task.json").open("rb") as stdin,
            (self._folder / "stdout").open("wb") as stdout,
            (self._folder / "stderr").open("wb") as stderr,
        ):
            return subprocess.Popen(  # noqa: S603 (a trusted folder names it)
                command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                cwd=self.workspace,
                env=variables,
                start_new_session=True,
            )

    def stop(self) -> int | None:
        """End it with all its processes; its exit code, None where it had not ended by itself."""
        code = self._process.poll()
        _kill(self._process)
        return code

    def stdout(self) -> str:
        """What it printed, the first megabyte."""
        return _text(self._folder / "stdout")

    def stderr(self) -> str:
        """The same of its errors."""
        return _text(self._folder / "stderr")

    def file(self, name: str) -> str:
        """The text of a file in its workspace; empty where there is none, or it lies elsewhere."""
        path = Path(os.path.realpath(self.workspace / name))
        inside = path.is_relative_to(os.path.realpath(self.workspace))
        return _text(path) if inside and path.is_file() else ""


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(_READ).decode("utf-8", "replace")


def _watch(process: "subprocess.Popen[bytes]", calls: ProgramCalls) -> None:
    process.wait()
    calls_server().settle()
    calls.ended()


def _kill(process: "subprocess.Popen[bytes]") -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _end(process: "subprocess.Popen[bytes] | None", key: str, folder: Path) -> None:
    if process:
        _kill(process)
    calls_server().close(key)
    shutil.rmtree(folder, ignore_errors=True)
