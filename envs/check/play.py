"""Playing scripted actions against an environment, and what came of it."""

import json
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, Protocol

from vertigym.core.seeds import derive
from vertigym.core.types import Score
from vertigym.envs.check.actions import CANARY
from vertigym.envs.env import Env


@dataclass(frozen=True, slots=True)
class Play:
    """Actions for one task. In an environment of several turns the last one is repeated to the end, unless
    `once`."""

    task: str
    actions: Sequence[str]
    name: str = ""
    once: bool = False


@dataclass(frozen=True, slots=True)
class PlayResult:
    """What became of a play. `score` is None when the episode did not end or something was raised (`error`)."""

    play: Play
    score: Score | None = None
    error: str = ""
    seconds: Sequence[float] = field(default_factory=tuple)
    ran_the_answer: bool = False

    @property
    def value(self) -> float | None:
        """The score's value; None where there is none."""
        return None if self.score is None else self.score.value

    @property
    def reason(self) -> str:
        """Why there is no value."""
        if self.error:
            return self.error
        if self.score is None:
            return "the episode did not end"
        return f"not scored: {self.score.evidence.get('reason', 'no reason given')}"


class Player(Protocol):
    """Plays many plays; results in their order."""

    def __call__(self, plays: Sequence[Play]) -> list[PlayResult]:
        """Play them."""
        ...


@contextmanager
def player(env: Env) -> Iterator[Player]:
    """Plays on `env`, side by side where the environment allows it."""
    if env.parallel_steps <= 1:
        yield lambda plays: [play_out(env, play) for play in plays]
        return
    with ThreadPoolExecutor(env.parallel_steps) as pool:
        yield lambda plays: list(pool.map(lambda play: play_out(env.fresh(), play), plays))


def play_out(env: Env, play: Play) -> PlayResult:
    """One episode. Whatever the environment raises becomes the result's error."""
    seconds: list[float] = []
    try:
        env.reset(seed=derive("check", play.task) % 2**31, options={"task": play.task})
        turn = 0
        while True:
            if turn >= len(play.actions) and play.once:
                return PlayResult(play, seconds=seconds)
            started = time.perf_counter()
            action = play.actions[min(turn, len(play.actions) - 1)]
            _, _, terminated, truncated, info = env.step(action)
            seconds.append(time.perf_counter() - started)
            turn += 1
            if terminated or truncated:
                ran = os.environ.pop(CANARY, None) is not None
                return PlayResult(play, info["score"], seconds=seconds, ran_the_answer=ran)
    except Exception as error:  # the check is about exactly this
        return PlayResult(play, error=f"raised {type(error).__name__}: {error}", seconds=seconds)


def play_isolated(env: Env, plays: Sequence[Play], limit_s: float) -> list[PlayResult]:
    """Play each in a fork; what hangs (`limit_s` of processor time) or ends the process becomes
    that play's error, and the next fork goes on behind it."""
    results: list[PlayResult] = []
    while len(results) < len(plays):
        results += _play_in_fork(env, plays[len(results) :], limit_s)
    return results


def _play_in_fork(env: Env, plays: Sequence[Play], limit_s: float) -> list[PlayResult]:
    """Outcomes up to the first play that ends the fork."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _tell_outcomes(env, plays, limit_s, writing)
    os.close(writing)
    with os.fdopen(reading) as lines:
        rows = [json.loads(line) for line in lines]
    _, status = os.waitpid(child, 0)
    results = [_told(play, row) for play, row in zip(plays, rows, strict=False)]
    if len(rows) < len(plays):
        results.append(PlayResult(plays[len(rows)], error=_how_it_ended(status, limit_s)))
    return results


def _tell_outcomes(env: Env, plays: Sequence[Play], limit_s: float, handle: int) -> NoReturn:
    """The fork's side: one JSON line a play. The kernel's timers end it even inside native code."""
    for kind in (signal.SIGPROF, signal.SIGALRM):
        signal.signal(kind, signal.SIG_DFL)
    for play in plays:
        signal.setitimer(signal.ITIMER_PROF, limit_s)
        signal.setitimer(signal.ITIMER_REAL, 30 * limit_s)
        result = play_out(env, play)
        signal.setitimer(signal.ITIMER_PROF, 0)
        row = {
            "scored": result.score is not None,
            "value": result.value,
            "reason": "" if result.score is None else str(result.score.evidence.get("reason", "")),
            "error": result.error,
            "seconds": list(result.seconds),
            "ran": result.ran_the_answer,
        }
        os.write(handle, json.dumps(row).encode() + b"\n")
    os._exit(0)


def _told(play: Play, row: Mapping[str, Any]) -> PlayResult:
    score = Score(row["value"], {}, {"reason": row["reason"]}) if row["scored"] else None
    return PlayResult(play, score, row["error"], row["seconds"], row["ran"])


def _how_it_ended(status: int, limit_s: float) -> str:
    if os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGPROF, signal.SIGALRM):
        return f"no verdict within {limit_s:g} s of processor time"
    return f"the process ended (status {os.waitstatus_to_exitcode(status)})"
