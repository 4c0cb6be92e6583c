"""The tests of determinism: the same action earns the same, and a seed opens the same episode, always."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from vertigym.core.seeds import derive
from vertigym.core.types import SPLITS
from vertigym.envs.check.actions import DO_NOT_KNOW
from vertigym.envs.check.check_report import Finding, Result, excerpt
from vertigym.envs.check.play import Play, PlayResult, play_out
from vertigym.envs.check.scoring import CheckContext
from vertigym.envs.env import Env

SCORES, SEEDS = "the same action, the same score", "seeds repeat"
ELSEWHERE = "in another process"
_MARK = "check: "
_TASKS = 10
_SEEDS = 8
_OTHER_PROCESS_S = 600.0

Values = list[float | None]


def repeats(
    context: CheckContext, fresh: Env, env_id: str | None, arguments: Mapping[str, Any]
) -> list[Result]:
    """Both tests; another process answers for both at once, unless nobody knows how to make it there."""
    plays = _plays(context)
    for env in (context.env, fresh):
        env.close()  # a place that is held may be the only one
    elsewhere = _elsewhere(env_id, arguments, plays) if env_id is not None else None
    if isinstance(elsewhere, str):
        message = f"the environment cannot be made in another process: {elsewhere}"
        advice = "make it importable: an installed entry point, a folder, or a module on the path"
        return [Result(name, message, (Finding(name, "failure", message, advice),)) for name in (SCORES, SEEDS)]
    return [
        _same_score(context, plays, fresh, elsewhere["values"] if elsewhere else None),
        _seeds_repeat(context.env, fresh, elsewhere["openings"] if elsewhere else None),
    ]


def _same_score(context: CheckContext, plays: list[Play], fresh: Env, elsewhere: Values | None) -> Result:
    """The same actions on the same task earn the same: twice, backwards, on another instance, in another
    process (with other string hashes)."""
    first = _values(context.play(plays))
    runs: dict[str, Values] = {
        "twice": _values(context.play(plays)),
        "in another order": _values(context.play(plays[::-1]))[::-1],
        "on another instance": _values([play_out(fresh, play) for play in plays]),
    }
    if elsewhere is not None:
        runs[ELSEWHERE] = elsewhere
    findings = tuple(
        Finding(
            SCORES,
            "failure",
            f"played {how}, the same action earns {again} instead of {once}",
            "take every random number from self.np_random or a seed, and keep no state between episodes",
            play.task,
            excerpt(play.actions[-1]),
        )
        for how, values in runs.items()
        for play, once, again in _first_difference(plays, first, values)
    )
    return Result(SCORES, f"{len(plays)} plays, {', '.join(runs)}", findings)


def _seeds_repeat(env: Env, fresh: Env, elsewhere: list[str] | None) -> Result:
    """A seed opens the same episode twice, on another instance and in another process; seeds differ."""
    first = openings(env)
    runs = {"twice": openings(env), "on another instance": openings(fresh)}
    if elsewhere is not None:
        runs[ELSEWHERE] = elsewhere
    advice = "choose tasks and set up episodes with self.np_random only"
    findings = [
        Finding(SEEDS, "failure", f"reset with one seed {how} opens another episode", advice)
        for how, opened in runs.items()
        if opened != first
    ]
    tasks = sum(len(env.tasks.ids(split)) for split in SPLITS)
    if len(set(first)) == 1 and tasks > _SEEDS:
        findings.append(Finding(SEEDS, "warning", f"{_SEEDS} seeds all open the same episode", advice))
    return Result(SEEDS, f"{_SEEDS} seeds, {', '.join(runs)}", tuple(findings))


def openings(env: Env) -> list[str]:
    """What some seeds open, as text."""
    opened = []
    for seed in range(_SEEDS):
        _, info = env.reset(seed=seed)
        opened.append(json.dumps([info["task"].id, info["messages"]], ensure_ascii=True))
    env.close()
    return opened


def _plays(context: CheckContext) -> list[Play]:
    """The reference and two other answers for some tasks."""
    plays = []
    for index, task in enumerate(context.tasks[:_TASKS]):
        reference = context.env.reference(task)
        other = context.env.reference(context.tasks[(index + 1) % len(context.tasks)])
        plays += [Play(task.id, actions) for actions in (reference, other, [DO_NOT_KNOW]) if actions]
    return plays


def _values(results: Sequence[PlayResult]) -> Values:
    return [result.value for result in results]


def _first_difference(
    plays: Sequence[Play], once: Values, again: Values
) -> list[tuple[Play, float | None, float | None]]:
    pairs = zip(plays, once, again, strict=True)
    return [(play, a, b) for play, a, b in pairs if a != b][:1]


# Another process.


def _elsewhere(env_id: str, arguments: Mapping[str, Any], plays: Sequence[Play]) -> dict[str, Any] | str:
    """Values and openings from another process, or why there are none."""
    request = {
        "env": env_id,
        "arguments": dict(arguments),
        "plays": [[play.task, list(play.actions)] for play in plays],
    }
    hash_seed = str(derive("check", "another process", os.environ.get("PYTHONHASHSEED", "")) % 1000 + 1)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "vertigym.envs.check.determinism"],
            input=json.dumps(request, default=str),
            capture_output=True,
            text=True,
            timeout=_OTHER_PROCESS_S,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {_OTHER_PROCESS_S:g} s"
    if done.returncode:
        return done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit code {done.returncode}"
    # The environment's own code may print, too.
    answer: dict[str, Any] | None = next(
        (json.loads(line[len(_MARK) :]) for line in done.stdout.splitlines() if line.startswith(_MARK)), None
    )
    return answer or "it ended without an answer"


def _answer(request: Mapping[str, Any]) -> dict[str, Any]:
    from vertigym.envs import registry

    env = registry.make(request["env"], **request["arguments"])
    values = [play_out(env, Play(task, actions)).value for task, actions in request["plays"]]
    return {"values": values, "openings": openings(env)}


if __name__ == "__main__":
    print(f"\n{_MARK}{json.dumps(_answer(json.load(sys.stdin)))}")
