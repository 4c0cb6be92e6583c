"""Code environments of one program: write it once (`CodeEnv`), or repair it over several turns (`RepairEnv`).

What the policy wrote is extracted the same way everywhere (`rewards.code.extract_code`); where a prompt gives
the start of a function, a bare body is as good as the whole. Tests run in the process's shared sandbox pool.
"""

import os
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.types import SPLITS, Score, Task
from vertigym.envs.code import contests, formats
from vertigym.envs.code.pytest_files import FORMAT, pytest_tasks
from vertigym.envs.code.swe_bench import swe_bench
from vertigym.envs.env import Env, Turn
from vertigym.envs.folders import EnvFolder
from vertigym.envs.tasks import Tasks, TaskSet
from vertigym.rewards.code import Parts, Verifier, extract_code
from vertigym.rewards.code_tests import parse_tests
from vertigym.sandboxes import JobLimits

BUILT_IN = Path(__file__).parent / "tasks"
_LONGEST_NOTE = 500  # characters of a failure that a policy sees
_FORMATS: dict[str, Callable[[Path], list[Task]]] = {
    "humaneval": formats.humaneval,
    "mbpp": formats.mbpp,
    "stdin": contests.stdin_programs,
    "leetcode": contests.leetcode,
    "swe-bench": swe_bench,
    FORMAT: pytest_tasks,
}


class CodeEnv(Env):
    """One answer, one verdict. Tasks carry `info["tests"]`; see `formats` for the other keys.

    `parts`: which rewards are on, of `all_pass`, `share` and `compiles`, and their weights. `profile`: the
    packages that programs may import (`numpy`, or `plain` for none).
    """

    parallel_steps = max(2, os.cpu_count() or 1)

    def __init__(
        self,
        tasks: Tasks,
        *,
        parts: Parts | None = None,
        limits: JobLimits | None = None,
        profile: str = "plain",
        verifier: Verifier | None = None,
    ) -> None:
        super().__init__(tasks)
        self.verifier = verifier or Verifier(parts=parts, limits=limits, profile=profile)

    def respond(self, action: str) -> Turn:
        """The hidden tests' verdict."""
        return Turn(score=self.judge(action))

    def judge(self, action: str) -> Score:
        """Run the hidden tests on what the policy wrote."""
        return self.verifier.score(program_of(self.task, action), parse_tests(self.task.info["tests"]))


class RepairEnv(CodeEnv):
    """Several tries: after each, the policy sees how the public tests (`info["public"]`) fail; it is done when
    they pass, or its turns are over. The hidden tests decide."""

    max_turns = 3

    def respond(self, action: str) -> Turn:
        """The public tests' failures, or the verdict when there are none."""
        tests = parse_tests(self.task.info["public"])
        checked = self.verifier.check(program_of(self.task, action), tests)
        if checked.all_pass:
            return Turn(score=self.judge(action))
        self._last = action
        notes = [note if len(note) <= _LONGEST_NOTE else note[:_LONGEST_NOTE] + "..." for note in checked.notes]
        failures = "\n".join(f"- {note}" for note in notes if note) or f"- {checked.status}"
        content = f"{sum(checked.passed)} of {len(checked.passed)} public tests pass.\n{failures}\n\nTry again."
        return Turn(messages=[{"role": "user", "content": content}])

    def close_episode(self) -> Score:
        """The hidden tests on the last try: passing the public ones is not required."""
        return self.judge(self._last)


def program_of(task: Task, action: str) -> str:
    """The program a policy's text makes for `task`: its code below what the prompt gives (`info["before"]`),
    or, where it wrote only a body, below the prompt's own signature (`info["signature"]`)."""
    entry, signature = task.info.get("entry", ""), task.info.get("signature", "")
    code = extract_code(action, entry)
    if signature and f"def {entry}" not in code:
        body = code if code[:1] in (" ", "\t") else textwrap.indent(code, "    ")
        return str(signature) + body
    return str(task.info.get("before", "")) + code


class FolderConfig(Config):
    """`env.toml` of a folder of kind `code`."""

    id: str = Field(description="namespace/Name-v0")
    kind: Literal["code"]
    description: str = Field("", description="one line about it")
    files: list[str] = Field(description="of tasks")
    format: str = Field("tasks", description="tasks, humaneval, mbpp, stdin, leetcode, swe-bench")
    turns: int = Field(1, description="more than 1: repair after public tests")
    parts: dict[Literal["all_pass", "share", "compiles"], float] = Field(
        {"all_pass": 1.0}, description="weights of the score"
    )
    cpu_s: float = Field(JobLimits().cpu_s, description="processor seconds a job")
    memory_mib: int = Field(512, description="a job")
    profile: str = Field("plain", description="what programs may import: plain or numpy")


def load_folder(folder: EnvFolder, **kwargs: Any) -> Env:
    """A code environment from a folder: `env.toml` names task files and their format (`tasks`: JSONL of tasks;
    `humaneval` and `mbpp`, also EvalPlus's; `stdin`: APPS, TACO and LiveCodeBench; `leetcode`; `pytest`: see
    `pytest_files`).

    Raises:
        ConfigError: a wrong key or value. DataError: a file is missing or malformed.
    """
    config = folder.config(FolderConfig)
    files = [folder.file(name) for name in config.files]
    if config.format in _FORMATS:
        tasks: Tasks = TaskSet(task for file in files for task in _FORMATS[config.format](file))
    else:
        tasks = TaskSet.read(*files)
    limits = JobLimits(cpu_s=config.cpu_s, wall_s=4 * config.cpu_s, memory_bytes=config.memory_mib << 20)
    kind = RepairEnv if config.turns > 1 else CodeEnv
    given = {"parts": config.parts, "limits": limits, "profile": config.profile}
    env = kind(tasks, **{**given, **kwargs})
    env.max_turns = config.turns
    return env


def functions(**kwargs: Any) -> Env:
    """Function tasks of our own."""
    return CodeEnv(TaskSet.read(BUILT_IN / "functions.jsonl"), **kwargs)


def programs(**kwargs: Any) -> Env:
    """Programs that read stdin and print, of our own."""
    return CodeEnv(TaskSet.read(BUILT_IN / "programs.jsonl"), **kwargs)


def repair(turns: int = 3, **kwargs: Any) -> Env:
    """The function tasks over several turns: two of the tests are public."""
    tasks = [_with_public(task) for task in _all(TaskSet.read(BUILT_IN / "functions.jsonl"))]
    env = RepairEnv(TaskSet(tasks), **kwargs)
    env.max_turns = turns
    return env


def _all(tasks: TaskSet) -> list[Task]:
    return [tasks.get(name) for split in SPLITS for name in tasks.ids(split)]


def _with_public(task: Task) -> Task:
    tests = task.info["tests"]
    public = {**tests, "cases": tests["cases"][:2]}
    shown = "\n".join(f"{tests['entry']}(*{case['args']}) -> {case['expected']}" for case in public["cases"])
    prompt = f"{task.prompt}\n\nPublic tests:\n{shown}\n\nYou see how they fail, and may try again."
    return task.model_copy(update={"prompt": prompt, "info": {**task.info, "public": public}})
