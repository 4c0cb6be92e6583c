"""`check`: every test of an environment, the way an attacker and a statistician would do it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from vertigym.core.seeds import generator
from vertigym.core.types import SPLITS, Task
from vertigym.envs import registry
from vertigym.envs.check import amounts, determinism, scoring
from vertigym.envs.check import task_checks as data
from vertigym.envs.check.check_report import CheckReport, Finding, Result
from vertigym.envs.check.code_checks import tests_find_faults
from vertigym.envs.check.play import Play, Player, PlayResult, player
from vertigym.envs.check.scoring import CheckContext
from vertigym.envs.env import Env

_SLOW_S = 5.0


def check(
    env: str | Callable[[], Env],
    *,
    tasks: int = 100,
    floor: float = 0.05,
    guess_floor: float = 0.6,
    sample: int | None = None,
    seed: int = 0,
    arguments: Mapping[str, Any] | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> CheckReport:
    """Test an environment: an id, a folder, a module with `load_environment`, or a function that makes one
    (which is not tried in another process).

    `tasks`: how many are sampled, over all splits; `floor`: what answers without content may earn on average;
    `guess_floor`: what the best constant guess may earn; `sample`: of how many code tasks the reference is run
    (None: of all; other environments' references are those of `tasks`); `arguments`: passed to the environment;
    `on_result` is called as each test ends.

    Raises:
        InputError: there is no such environment, or it cannot be made.
    """
    given = dict(arguments or {})
    env_id = env if isinstance(env, str) else None

    def make() -> Env:
        return env() if callable(env) else registry.make(env, **given)

    made = make()
    settings = {"tasks": tasks, "floor": floor, "guess_floor": guess_floor, "seed": seed, **given}
    name = env_id or type(made).__name__
    results: list[Result] = []

    def add(result: Result) -> None:
        results.append(result)
        if on_result:
            on_result(result)

    chosen = _choose(made, tasks, seed)
    if not chosen:
        advice = "give the environment tasks: TaskSet, GeneratedTasks, or files that are not empty"
        add(Result("tasks", "none", (Finding("tasks", "failure", "no split has a task", advice),)))
        return CheckReport(name, tuple(results), settings)
    with player(made) as play:
        timed = _Timed(play)
        context = CheckContext(made, chosen, timed)
        add(data.gymnasium_contract(make()))
        if any("tests" in task.info for task in chosen):
            every = _choose(made, sample, seed)
            add(scoring.references(CheckContext(made, every, timed), named=len(every)))
        else:
            add(scoring.references(context))
        add(scoring.floor(context, floor, guess_floor))
        add(scoring.doing_nothing(context))
        add(scoring.mutated_references(context))
        add(scoring.speed(timed.results, _SLOW_S))
        for result in determinism.repeats(context, make(), env_id, given):
            add(result)
        add(data.prompts_hide_answers(context))
        add(data.splits_do_not_leak(made, 50 * tasks))
        for result in (*data.hidden_tests_assert(chosen), *tests_find_faults(made, chosen)):
            add(result)
        for result in (*amounts.enough_cases(made), *amounts.rules_reached(made)):
            add(result)
        add(scoring.hostile(context))
    return CheckReport(name, tuple(results), settings)


class _Timed:
    """Keeps every result, for the time of a step."""

    def __init__(self, play: Player) -> None:
        self._play = play
        self.results: list[PlayResult] = []

    def __call__(self, plays: Sequence[Play]) -> list[PlayResult]:
        results = self._play(plays)
        self.results += results
        return results


def _choose(env: Env, count: int | None, seed: int) -> list[Task]:
    """Tasks at random over all splits, in a fixed order; None: all."""
    ids = [task_id for split in SPLITS for task_id in env.tasks.ids(split)]
    order = generator(seed, "check").permutation(len(ids))[:count] if ids else np.array([], dtype=int)
    return [env.tasks.get(ids[i]) for i in order]
