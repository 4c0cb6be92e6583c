"""The tests of how much there is to learn: enough distinct cases, and tasks that reach the rules."""

from collections.abc import Iterator

from vertigym.core.errors import InputError, some
from vertigym.core.types import SPLITS, Task
from vertigym.decisions.cases import case_key
from vertigym.envs.check.check_report import Finding, Result
from vertigym.envs.env import Env

LEAST_CASES = 12  # fewer leave no split with enough to learn from or to measure by
LEAST_COVERAGE = 0.8  # share of the rules not proven unreachable that some task hits


def enough_cases(env: Env) -> Iterator[Result]:
    """Where tasks are cases, how many distinct ones there are; a task asked twice is one case."""
    name = "enough distinct cases"
    subjects = [env.subject(task) for task in _tasks(env)]
    if subjects and None not in subjects:
        count = len({case_key(subject) for subject in subjects})
        findings = () if count >= LEAST_CASES else (_failure(name, too_few(count), _MORE_CASES),)
        yield Result(name, f"{count:,} in {len(subjects):,} tasks", findings, {"cases": count})


def rules_reached(env: Env) -> Iterator[Result]:
    """Where tasks are made from rules, the share of those that can be reached that some task hits."""
    name = "the tasks reach the rules"
    try:
        possible = env.rules()
    except InputError as error:  # the tasks can be played without the model
        yield Result(name, str(error), skipped=True)
        return
    if possible:
        hit = {rule for task in _tasks(env) for rule in task.info.get("rules", ())}
        missed = [rule for rule in possible if rule not in hit]
        text = too_low(len(possible) - len(missed), len(possible))
        findings = (_failure(name, f"{text}; not hit: {some(missed)}", _MORE_RULES),) if text else ()
        share = 1 - len(missed) / len(possible)
        yield Result(name, f"{len(possible) - len(missed)} of {len(possible)}", findings, {"share": share})


def too_few(cases: int) -> str:
    """What is wrong with so many distinct cases, or nothing."""
    return "" if cases >= LEAST_CASES else f"only {cases} distinct cases, at least {LEAST_CASES} are needed"


def too_low(hit: int, possible: int) -> str:
    """What is wrong with so many rules hit of those that are not proven unreachable, or nothing."""
    if not possible or hit / possible >= LEAST_COVERAGE:
        return ""
    return f"only {hit} of {possible} rules are hit by a task, at least {LEAST_COVERAGE:.0%} are needed"


_MORE_CASES = "give the model more inputs that matter, or ask another decision of it"
_MORE_RULES = (
    "make more tasks, give the file tests that hit these rules, or take out rules that nothing can hit"
)


def _failure(name: str, message: str, advice: str) -> Finding:
    return Finding(name, "failure", message, advice)


def _tasks(env: Env) -> Iterator[Task]:
    return (env.tasks.get(i) for split in SPLITS for i in env.tasks.ids(split))
