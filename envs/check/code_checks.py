"""The tests of code tasks' tests: do they tell the reference from programs with one small fault?"""

from collections.abc import Iterator, Sequence

from vertigym.core.types import Task
from vertigym.envs.check.check_report import Finding, Result
from vertigym.envs.code.env import CodeEnv
from vertigym.envs.code.stronger import survivors
from vertigym.envs.env import Env

_MUTANTS = 8  # a task
_NAMED = 5


def tests_find_faults(env: Env, tasks: Sequence[Task]) -> Iterator[Result]:
    """The share of mutants of the references that fail; tasks whose tests pass most of theirs are named."""
    judged = [task for task in tasks if task.answer is not None and "tests" in task.info]
    if not isinstance(env, CodeEnv) or not judged:
        return
    name, advice = (
        "tests tell faults",
        "add tests (vertigym env strengthen ID -o tasks.jsonl), or leave the task out",
    )
    tried, weak = 0, list[tuple[float, Finding]]()
    alive_in_all = 0
    for task in judged:
        alive, made = survivors(task, env.verifier, _MUTANTS)
        tried, alive_in_all = tried + made, alive_in_all + len(alive)
        if alive and 2 * len(alive) >= made:
            message = f"{len(alive)} of {made} faulty programs pass; {alive[0].change}"
            weak.append((len(alive) / made, Finding(name, "warning", message, advice, task.id)))
    share = 1 - alive_in_all / tried if tried else 0.0
    named = [finding for _, finding in sorted(weak, key=lambda pair: -pair[0])]
    summary = f"{share:.1%} of {tried} faults found; weak tests in {len(weak)} of {len(judged)} tasks"
    yield Result(name, summary, tuple(named[:_NAMED]), {"share": share, "weak": [f.task for f in named]})
