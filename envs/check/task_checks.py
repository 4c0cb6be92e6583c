"""The tests of the contract and of the data: gymnasium's checker, answers in prompts, tasks in two splits."""

import json
import random
import re
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice

from gymnasium.utils.env_checker import check_env

from vertigym.core.types import SPLITS, Task
from vertigym.decisions.cases import case_key, value_key
from vertigym.envs.check.actions import as_text, prompt_text
from vertigym.envs.check.check_report import Finding, Level, Result, excerpt
from vertigym.envs.check.duplicates import near_duplicates, own_share
from vertigym.envs.check.scoring import CheckContext
from vertigym.envs.env import Env
from vertigym.rewards.code_tests import Asserts, parse_tests, unasserted

_NEAR = 0.9  # overlap of word triples
_OWN = 0.5  # below this share of triples of their own, tasks are cases of one template
_EXCESS = 0.3  # how much oftener than by chance answers may stand in their prompts
_MOST_VALUES = 20  # JSON values looked for in one prompt
_JSON_STARTS = re.compile(r"^[{\[]", re.MULTILINE)
_DECODER = json.JSONDecoder()
_SHOWN = 5  # tests without an assertion that are named
_LONG_ANSWER = 12  # characters; shorter ones stand in prompts by chance


def gymnasium_contract(env: Env) -> Result:
    """Gymnasium's own checker."""
    name = "gymnasium's checker"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            check_env(env, skip_render_check=True)
        except Exception as error:  # the checker asserts, and the environment may raise anything
            message = f"{type(error).__name__}: {error}".splitlines()[0]
            advice = "follow gymnasium's contract for reset and step; vertigym.envs.Env does it for you"
            return Result(name, message, (Finding(name, "failure", message, advice),))
        finally:
            env.close()
    findings = tuple(
        Finding(name, "warning", excerpt(str(warning.message)), "see gymnasium's documentation of the message")
        for warning in caught
        if issubclass(warning.category, UserWarning)
    )
    return Result(name, "holds", findings)


def hidden_tests_assert(tasks: Sequence[Task]) -> Iterator[Result]:
    """Where tasks are judged by assertions, each hidden test has one: without, any program that runs passes."""
    name, advice = "every test asserts something", "assert what the program must do, or drop the test"
    found = {task.id: parse_tests(task.info["tests"]) for task in tasks if "tests" in task.info}
    judged = {task: tests for task, tests in found.items() if isinstance(tests, Asserts)}
    if judged:
        faults = [(task, excerpt(tests.tests[i])) for task, tests in judged.items() for i in unasserted(tests)]
        findings = (Finding(name, "failure", f"asserts nothing: {test}", advice, task) for task, test in faults)
        yield Result(
            name, f"{len(faults)} tests of {len(judged)} tasks do not", tuple(islice(findings, _SHOWN))
        )


def prompts_hide_answers(context: CheckContext) -> Result:
    """Prompts do not hold the answer: long answers never, short ones no oftener than other tasks' answers."""
    name = "prompts do not contain the answer"
    tasks = [task for task in context.tasks if task.answer is not None and as_text(task.answer).strip()]
    if not tasks:
        return Result(name, "no task has an answer", skipped=True)
    shuffled = [task.answer for task in tasks]
    random.Random(0).shuffle(shuffled)
    held = [task for task in tasks if _holds(task, as_text(task.answer))]
    by_chance = sum(_holds(task, as_text(answer)) for task, answer in zip(tasks, shuffled, strict=True))
    excess = (len(held) - by_chance) / len(tasks)
    long = [task for task in held if len(as_text(task.answer)) >= _LONG_ANSWER and not _is_option(task)]
    findings: list[Finding] = []
    advice = (
        "take the answer out of the prompt; where it must be found in a text, make sure that copying all fails"
    )
    if excess > _EXCESS or long:
        level: Level = "failure" if excess > _EXCESS and long else "warning"
        task = (long or held)[0]
        message = f"the answer stands in {len(held)} of {len(tasks)} prompts, another task's in {by_chance}"
        findings.append(Finding(name, level, message, advice, task.id, excerpt(as_text(task.answer))))
    return Result(name, f"in {len(held)} of {len(tasks)}", tuple(findings), {"share": len(held) / len(tasks)})


def _holds(task: Task, answer: str) -> bool:
    """Whether the answer stands in the prompt as words of its own."""
    words, inside = answer.casefold().split(), prompt_text(task).casefold()
    text = " ".join(inside.split())
    wanted = " ".join(words)
    at = text.find(wanted)
    while at >= 0:
        before, after = text[at - 1 : at], text[at + len(wanted) : at + len(wanted) + 1]
        if not (before.isalnum() and wanted[0].isalnum()) and not (after.isalnum() and wanted[-1].isalnum()):
            return True
        at = text.find(wanted, at + 1)
    return False


def _is_option(task: Task) -> bool:
    options = task.info.get("options", task.info.get("choices", ()))
    return isinstance(options, Sequence | Mapping) and task.answer in options


def splits_do_not_leak(env: Env, most: int) -> Result:
    """No task stands in two splits, nor a near-duplicate with the same answer. Reads at most `most` tasks a
    split."""
    name = "no task in two splits"
    tasks = [env.tasks.get(i) for split in SPLITS for i in env.tasks.ids(split)[:most]]
    splits = {task.split for task in tasks}
    if len(splits) < 2:
        return Result(name, "one split only", skipped=True)
    texts = [" ".join(_structured(prompt_text(task)).casefold().split()) for task in tasks]
    subjects = [env.subject(task) for task in tasks]
    exact = _exact(
        tasks, [t if s is None else f"subject {case_key(s)}" for t, s in zip(texts, subjects, strict=True)]
    )
    templated = own_share(texts) < _OWN
    near = [] if templated else _near(tasks, texts)
    findings = _misfiled(env) + [
        Finding(
            name,
            "failure",
            f"the task stands in {one.split} and, as task {two.id}, in {two.split}, however it is written "
            f"({len(exact)} such pairs among {len(tasks)} tasks)",
            "split by the prompt's hash (by the case's, where it asks about one), after removing duplicates",
            one.id,
        )
        for one, two in exact[:3]
    ]
    findings += [
        Finding(
            name,
            "warning",
            f"nearly the same prompt, with the same answer, is in {one.split} and, as task {two.id}, in "
            f"{two.split} ({overlap:.0%} of word triples; {len(near)} such pairs)",
            "split by cluster: keep tasks made from one source in one split",
            one.id,
        )
        for one, two, overlap in near[:3]
    ]
    measured = {"tasks": len(tasks), "in two splits": len(exact), "nearly in two splits": len(near)}
    nearly = "one template: only exact copies count" if templated else f"{len(near)} nearly"
    summary = f"{len(tasks)} tasks: {len(exact)} in two splits, {nearly}"
    return Result(name, summary, tuple(findings), measured)


def _misfiled(env: Env) -> list[Finding]:
    """Tasks that say another split than the one they are listed under (the first of each is looked at)."""
    first = [(split, env.tasks.get(env.tasks.ids(split)[0])) for split in SPLITS if env.tasks.ids(split)]
    return [
        Finding(
            "no task in two splits",
            "failure",
            f"the task is listed under {split} and says {task.split}",
            "set Task.split",
            task.id,
        )
        for split, task in first
        if task.split != split
    ]


def _near(tasks: Sequence[Task], texts: Sequence[str]) -> list[tuple[Task, Task, float]]:
    """Pairs in two splits with nearly one prompt and one answer."""
    return [
        (tasks[i], tasks[j], overlap)
        for i, j, overlap in near_duplicates(texts, _NEAR)
        if tasks[i].split != tasks[j].split and texts[i] != texts[j] and tasks[i].answer == tasks[j].answer
    ]


def _structured(text: str) -> str:
    """The text with each JSON value that begins a line in its canonical form: other spaces, another order of
    fields, or 1.0 for 1 make no other task."""
    parts, at = list[str](), 0
    for match in islice(_JSON_STARTS.finditer(text), _MOST_VALUES):
        if match.start() < at:
            continue
        try:
            value, end = _DECODER.raw_decode(text, match.start())
            found = value_key(value)
        except (ValueError, RecursionError):
            continue
        parts += [text[at : match.start()], found]
        at = end
    return "".join([*parts, text[at:]])


def _exact(tasks: Sequence[Task], texts: Sequence[str]) -> list[tuple[Task, Task]]:
    """Pairs with one text in two splits, one pair a text."""
    seen: dict[str, list[Task]] = defaultdict(list)
    for task, text in zip(tasks, texts, strict=True):
        seen[text].append(task)
    return [
        (group[0], other)
        for group in seen.values()
        if (other := next((task for task in group if task.split != group[0].split), None)) is not None
    ]
