"""Task folders in Harbor's form as an environment: tools over a sandbox, and the task's own verifier.

    terminal-v0/
      env.toml           files = { train = "tasks/train", eval = "tasks/eval" }: tasks, or folders of them
      tasks/train/hello/ instruction.md, task.toml, environment/, solution/, tests/

The policy works in the task's folder with `bash`, `read`, `edit` and `submit`. Then `tests/test.sh` runs in
the same sandbox, in which no process of the policy lives any more, and writes its reward.

The one idea: a reward that is missing or no number is an error of the verifier, and so is a 0 where the
task's own solution gets none here either: what the machine lacks is not the policy's fault. Such an episode
is not scored. Tasks that need more than a sandbox are left out, and `notes` say why.
"""

import json
import math
import shlex
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.errors import DataError, InfrastructureError, InputError, VertigymError
from vertigym.core.types import Score, Split, Task
from vertigym.envs.code.repository import RepositoryEnv
from vertigym.envs.folders import EnvFolder
from vertigym.envs.harbor.task_folder import HarborTask, TaskLeftOutError, read_task, task_folders
from vertigym.envs.tasks import TaskSet
from vertigym.envs.tool_calls import write_call
from vertigym.sandboxes.contract import MIB, Status
from vertigym.sandboxes.session import FOLDER, LIMITS, Session

_OWN = "own"  # the part of a session's folder that the task's working directory is
_LINKS = {"/tests": "tests", "/logs": "logs", "/solution": "solution"}
_SOLVE = "bash /solution/solve.sh"


class HarborConfig(Config):
    """`env.toml` of task folders in Harbor's form."""

    id: str = Field(description="namespace/Name-v0")
    kind: Literal["harbor"]
    description: str = Field("", description="one line about it")
    files: dict[Split, str] = Field(min_length=1, description="a task folder, or a folder of them, by split")
    offline: bool = Field(False, description="its tasks need no network, though they do not say so")
    reward: str = Field("reward", description="which of several rewards is the score")
    max_turns: int = Field(30, ge=1, description="tool calls; then the work is judged as it is")


class HarborEnv(RepositoryEnv):
    """Tasks in a sandbox each; `known` has what their folders say, by id."""

    repeatable = False  # a verifier may say otherwise the second time

    def __init__(self, tasks: TaskSet, known: Mapping[str, HarborTask], config: HarborConfig) -> None:
        super().__init__(tasks)
        self.known, self.config, self.max_turns = known, config, config.max_turns
        self._solvable: dict[str, str] = {}  # task id -> why its own solution earns nothing; empty: it does

    def reference(self, task: Task) -> Sequence[str] | None:
        """The task's own solution."""
        known = self.known[task.id]
        if "solve.sh" not in known.solution:
            return None
        written = [
            f"echo {b64encode(text).decode()} | base64 -d > /solution/{shlex.quote(name)}"
            for name, text in known.solution.items()
        ]
        said = [f"export {name}={shlex.quote(value)}" for name, value in known.solution_env.items()]
        command = "\n".join([f"mkdir -p {FOLDER}/solution", *written, *said, _SOLVE])
        return [write_call("bash", command=command), write_call("submit")]

    def _open(self, task: Task) -> Session:
        known = self.known[task.id]
        memory = (known.memory_mb or 1024) * MIB
        limits = replace(LIMITS, memory_bytes=memory, disk_bytes=256 * MIB)
        files = {f"{_OWN}/{name}": text for name, text in known.files.items()}
        session = Session(files, limits=limits, links={known.workdir: _OWN, **_LINKS})
        session.run(["mkdir", "-p", _OWN])
        if known.programs:
            session.run(["chmod", "+x", "--", *(f"{_OWN}/{name}" for name in known.programs)])
        return session

    def _use(self, session: Session, name: str, arguments: Mapping[str, Any]) -> str:
        known = self.known[self.task.id]
        match arguments:
            case {"command": str(command)}:
                return super()._use(session, name, {"command": _in_place(known, command)})
            case {"path": str(path)}:
                whole = PurePosixPath(known.workdir, path)
                if not whole.is_relative_to(known.workdir):
                    raise InputError(f"{path} is outside of {known.workdir}: use bash")
                path = str(_OWN / whole.relative_to(known.workdir))
                return super()._use(session, name, {**arguments, "path": path})
        return super()._use(session, name, arguments)

    def _judge(self) -> Score:
        assert self._session
        try:
            rewards = self._verify(self._session, self.task)
            value = self._chosen(rewards)
            if value <= 0 and (why := self._unsolvable(self.task)):
                return Score.unscored(f"the task's own solution earns nothing here: {why}")
            return Score(value, {name: float(one) for name, one in rewards.items()})
        except VertigymError as error:
            return Score.unscored(f"{type(error).__name__}: {error}")
        finally:
            self._end()

    def _verify(self, session: Session, task: Task) -> dict[str, float]:
        """What the task's verifier writes.

        Raises:
            InfrastructureError: no reward, or none that is a number.
        """
        known = self.known[task.id]
        session.run(["rm", "-rf", *_LINKS.values()])
        session.run(["mkdir", "-p", "logs/verifier"])
        limits = replace(session.limits, cpu_s=known.timeout_s, wall_s=known.timeout_s)
        ended = session.run(
            ["bash", "-c", _in_place(known, "bash /tests/test.sh")],
            files={f"tests/{name}": text for name, text in known.tests.items()},
            env=known.verifier_env,
            limits=limits,
        )
        if ended.status not in (Status.OK, Status.ERROR):
            raise InfrastructureError(f"the verifier ended with {ended.status}")
        said = (ended.stderr or ended.stdout).strip()[-300:].rpartition("\n")[2]
        whole = session.read("logs/verifier/reward.json")
        text = session.read("logs/verifier/reward.txt")
        if whole is None and text is None:
            raise InfrastructureError(f"the verifier wrote no reward; {said}")
        return _numbers(whole) if whole is not None else {"reward": _number(text or b"")}

    def _chosen(self, rewards: Mapping[str, float]) -> float:
        if len(rewards) == 1:
            return next(iter(rewards.values()))
        if self.config.reward not in rewards:
            names = ", ".join(rewards) or "none"
            raise InfrastructureError(
                f"there is no reward {self.config.reward!r} among {names}: name one in env.toml"
            )
        return rewards[self.config.reward]

    def _unsolvable(self, task: Task) -> str:
        """Why the task's solution earns nothing; empty where it does, or there is none."""
        known = self.known[task.id]
        if task.id not in self._solvable and "solve.sh" in known.solution:
            files = {f"solution/{name}": text for name, text in known.solution.items()}
            with self._open(task) as session:
                done = session.run(
                    ["bash", "-c", _in_place(known, _SOLVE)], files=files, env=known.solution_env
                )
                try:
                    earned = self._chosen(self._verify(session, task))
                    said = (done.stderr or done.stdout).strip()[-300:].rpartition("\n")[2]
                    self._solvable[task.id] = "" if earned > 0 else said or "no word of why"
                except InfrastructureError as error:
                    self._solvable[task.id] = str(error)
        return self._solvable.get(task.id, "")


def load(folder: EnvFolder, **changes: Any) -> HarborEnv:
    """The environment in `folder`; `changes` replace keys of its `env.toml`.

    Raises:
        ConfigError: env.toml is wrong. DataError: a task is malformed, or all are left out (says why).
    """
    config = folder.config(HarborConfig, **changes)
    known: dict[str, HarborTask] = {}
    tasks, notes = [], []
    for split, name in config.files.items():
        for path in task_folders(folder.file(name)):
            try:
                read = read_task(folder, path, offline=config.offline)
            except TaskLeftOutError as error:
                notes.append(f"{path.name} is left out: {error}")
                continue
            known[read.name] = read
            tasks.append(Task(id=read.name, prompt=read.instruction, split=split))
    if not tasks:
        raise DataError(f"{folder.config_file}: no task can be played here: {notes[0]}")
    env = HarborEnv(TaskSet(tasks), known, config)
    env.notes = notes
    return env


def _in_place(known: HarborTask, command: str) -> str:
    """A command in the task's folder, with its variables."""
    said = [f"export {name}={shlex.quote(value)}" for name, value in known.env.items()]
    return "\n".join([f"cd {shlex.quote(known.workdir)}", *said, command])


def _number(text: bytes) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InfrastructureError(f"the verifier's reward is no number: {text[:40]!r}")
    return value


def _numbers(text: bytes) -> dict[str, float]:
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        read = None
    found = read if isinstance(read, dict) else {"reward": read}
    wrong = [one for one in found.values() if not isinstance(one, int | float) or not math.isfinite(one)]
    if wrong:
        raise InfrastructureError(f"the verifier's reward is no number: {text[:40]!r}")
    return found
