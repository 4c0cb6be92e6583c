"""Environments of verifiers, played here: `verifiers:NAME`, any installed package of version 0 or 1.

They own their loop, so each episode is a program's: what it asks of its model is the observation, our policy
the model. verifiers runs in one process of its own (`verifiers_worker`), by the Python that `?python=` names
where it cannot be installed beside vertigym; the score is its reward.
"""

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

from vertigym.core.errors import ConfigError
from vertigym.core.types import Score, Task
from vertigym.envs.env import Env
from vertigym.envs.program.call_server import calls_server
from vertigym.envs.program.env import CallerEnv
from vertigym.envs.program.program_calls import SAMPLING, ProgramCalls, TimedCalls
from vertigym.envs.tasks import TaskSet
from vertigym.interop.foreign_env import drawn_split, score_within

_IGNORED = (*SAMPLING, "n", "logprobs", "max_tokens", "max_completion_tokens")


class VerifiersWorker:
    """The process; `tasks` is what its environment has.

    Raises:
        ConfigError: it has no verifiers, or no such environment.
    """

    def __init__(self, python: str, name: str, settings: Mapping[str, Any], limit: int) -> None:
        script = str(Path(__file__).with_name("verifiers_worker.py"))
        asked = json.dumps({"name": name, "settings": dict(settings), "limit": limit})
        self._said = TemporaryFile()  # noqa: SIM115 (it lives as long as the process)
        try:
            self._process = subprocess.Popen(  # noqa: S603 (the user names the Python)
                [python, script, asked],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._said, text=True,
            )  # fmt: skip
        except OSError as error:
            self._said.close()
            raise ConfigError(f"verifiers:{name}: {python} cannot be started: {error}") from None
        self.close = weakref.finalize(self, _end, self._process, self._said)
        assert self._process.stdout
        first = json.loads(self._process.stdout.readline() or "{}")
        if "tasks" not in first:
            self._process.wait()
            why = first.get("error") or self.said()
            self._process.stdout.close()
            self.close()
            raise ConfigError(f"verifiers:{name} cannot be loaded by {python}: {why}")
        self.tasks: list[dict[str, Any]] = first["tasks"]
        self._jobs: dict[int, Future[dict[str, Any]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=_listen, args=(self._process, self._jobs), daemon=True).start()

    def play(self, task: int, url: str, key: str) -> "Future[dict[str, Any]]":
        """Begin an episode whose model is at `url`."""
        done: Future[dict[str, Any]] = Future()
        with self._lock:
            job = len(self._jobs)
            self._jobs[job] = done
            assert self._process.stdin
            try:
                self._process.stdin.write(json.dumps({"job": job, "task": task, "url": url, "key": key}) + "\n")
                self._process.stdin.flush()
            except OSError:
                done.set_result(
                    {"reward": None, "reason": f"the process of verifiers has ended: {self.said()}"}
                )
        return done

    def said(self) -> str:
        """The last line of its errors."""
        self._said.seek(0)
        return self._said.read().decode("utf-8", "replace").strip().rpartition("\n")[2]


class VerifiersEpisode(TimedCalls):
    """One episode at work in the process: what `ProgramEnv` knows a program by."""

    def __init__(self, worker: VerifiersWorker, task: int, timeout_s: float) -> None:
        super().__init__(ProgramCalls(_IGNORED), timeout_s)
        key = calls_server().open(self.calls)
        self.close = weakref.finalize(self, calls_server().close, key)
        self._done = worker.play(task, f"{calls_server().url(key)}/v1", key)
        self._done.add_done_callback(lambda _: self.calls.ended())

    def stop(self) -> int | None:
        """0 where it has ended; no call of it is answered any more."""
        return 0 if self._done.done() else None

    def result(self) -> dict[str, Any]:
        """What came of it."""
        return self._done.result() if self._done.done() else {"reward": None, "reason": "out of turns"}

    def stderr(self) -> str:
        """Why it has no reward."""
        return str(self.result().get("reason", ""))


class VerifiersEnv(CallerEnv[VerifiersEpisode]):
    """The tasks of a package, and its episodes."""

    def __init__(
        self, worker: VerifiersWorker, tasks: TaskSet, *, turns: int, parallel: int, timeout_s: float
    ) -> None:
        super().__init__(tasks, turns, parallel)
        self._worker, self._timeout_s = worker, timeout_s

    def start(self, task: Task) -> VerifiersEpisode:
        """The episode, at work."""
        return VerifiersEpisode(self._worker, task.info["place"], self._timeout_s)

    def verdict(self, program: VerifiersEpisode, code: int | None) -> Score:
        """The reward of verifiers."""
        done = program.result()
        parts = {**done.get("parts", {}), "calls": float(program.count)}
        if done["reward"] is None:
            return Score.unscored(str(done["reason"]))
        return score_within(done["reward"], self.ranges["score"], parts)


def load(
    name: str,
    *,
    python: str = "",
    tasks: int = 1000,
    turns: int = 32,
    parallel: int = 4,
    timeout_s: float = 120.0,
    low: float = 0.0,
    high: float = 1.0,
    eval_share: float = 0.1,
    test_share: float = 0.1,
    **settings: Any,
) -> Env:
    """The package `name`, its first `tasks`; what is no setting here goes to its taskset or `load_environment`.

    A taskset has no splits: a task's own name and opening say which it belongs to, by the shares.

    Raises:
        ConfigError: it is not installed, or cannot be loaded.
    """
    worker = VerifiersWorker(python or sys.executable, name, settings, tasks)
    found = [_task(row, place, eval_share, test_share) for place, row in enumerate(worker.tasks)]
    env = VerifiersEnv(worker, TaskSet(found), turns=turns, parallel=parallel, timeout_s=timeout_s)
    env.ranges = {"score": (low, high)}
    return env


def _task(row: Mapping[str, Any], place: int, eval_share: float, test_share: float) -> Task:
    messages = [{"role": one["role"], "content": str(one.get("content") or "")} for one in row["messages"]]
    split = drawn_split(json.dumps([row["name"], messages]), eval_share, test_share)
    name = str(row["name"] or place)
    return Task.model_validate({"id": name, "prompt": messages, "info": {"place": place}, "split": split})


def _listen(process: "subprocess.Popen[str]", jobs: Mapping[int, "Future[dict[str, Any]]"]) -> None:
    """Hand each result to who waits for it; where the process ends, all are told."""
    assert process.stdout
    with suppress(ValueError), process.stdout:
        for line in process.stdout:
            done = json.loads(line)
            jobs[done["job"]].set_result(done)
    for waiting in list(jobs.values()):
        if not waiting.done():
            waiting.set_result({"reward": None, "reason": "the process of verifiers has ended"})


def _end(process: "subprocess.Popen[str]", said: IO[bytes]) -> None:
    process.kill()
    process.wait()
    for file in (process.stdin, said):
        if file:
            with suppress(OSError):
                file.close()
