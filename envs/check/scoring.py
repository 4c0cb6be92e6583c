"""The tests of the verifier: references score 1, wrong and empty answers do not, hostile text never raises."""

import json
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from vertigym.core.types import SPLITS, Message, Task
from vertigym.envs.check.actions import (
    ANOTHERS,
    HOSTILE,
    RUNS_AS_PYTHON,
    as_text,
    degenerate,
    in_form,
    most_common,
    mutations,
)
from vertigym.envs.check.check_report import Finding, Level, Result, excerpt
from vertigym.envs.check.play import Play, Player, PlayResult, play_isolated
from vertigym.envs.env import Env

_NEARLY_1 = 1.0 - 1e-6
_GUESSES = 8  # how many of the most common answers are tried as the constant guess
_MORE_GUESSES = 1000  # further tasks that a guess near the limit is given to
_OTHERS = 40  # how many answers "every answer at once" holds
_HOSTILE_TASKS = 3
_HANG_S = 5.0  # processor time that one hostile text may take


@dataclass(frozen=True, slots=True)
class CheckContext:
    """What the tests work on: an environment, some of its tasks, and a way to play."""

    env: Env
    tasks: Sequence[Task]
    play: Player

    @property
    def answers(self) -> list[str]:
        """The references as text, of the tasks that have one."""
        return [as_text(task.answer) for task in self.tasks if task.answer is not None]


def references(context: CheckContext, named: int = 5) -> Result:
    """The reference answer scores 1 on every task of the context; at most `named` that do not are named."""
    name = "the reference scores 1"
    plays = [
        Play(task.id, actions, once=True)
        for task in context.tasks
        if (actions := context.env.reference(task)) is not None
    ]
    if not plays:
        return Result(name, "no task has a reference; override Env.reference", skipped=True)
    results = context.play(plays)
    wrong = [result for result in results if result.value is None or result.value < _NEARLY_1]
    findings = [
        _finding(
            name,
            "failure",
            result,
            f"the reference earns {_earned(result)}",
            "correct the task's answer or the verifier; a policy that is right must not be told it is wrong",
        )
        for result in wrong[:named]
    ]
    over = next((result for result in results if (result.value or 0) > 1 + 1e-6), None)
    if over:
        findings.append(
            _finding(
                name,
                "warning",
                over,
                f"the reference earns {_earned(over)}",
                "let the weights sum to 1: suites and gates read the score as a share",
            )
        )
    right = len(results) - len(wrong)
    return Result(name, f"{right} of {len(results)} tasks", tuple(findings), {"share": right / len(results)})


def floor(context: CheckContext, limit: float, guess_limit: float) -> Result:
    """Answers without content earn at most `limit` on average, the best constant guess `guess_limit`."""
    name = "a floor under degenerate answers"
    others = list(dict.fromkeys(context.answers))[:_OTHERS]
    form = context.env.answer_form
    plays = [
        Play(task.id, [text], kind)
        for task in context.tasks
        for kind, text in degenerate(_opening(context.env, task), others, form).items()
    ]
    results = context.play(plays)
    by_kind = _by_name(results)
    means = {kind: _mean(listed) for kind, listed in by_kind.items()}
    findings = [
        found
        for kind, listed in by_kind.items()
        for found in _floor_findings(name, kind, listed, means[kind], limit)
    ]
    guess, guess_mean, guess_plays = _best_guess(context, form, guess_limit)
    if guess_mean > guess_limit:
        findings.append(
            _finding(
                name,
                "failure",
                max(guess_plays, key=lambda result: result.value or 0),
                f"always {excerpt(guess)!r} earns {guess_mean:.2f} on average (the limit is {guess_limit:g})",
                "balance the tasks over their answers, or pay less for parts of an answer",
            )
        )
    worst = max(means, key=lambda kind: means[kind])
    summary = f"worst: {worst} earns {means[worst]:.3f}; best constant guess {guess_mean:.3f}"
    measured = {**means, "constant guess": guess_mean, "constant guess text": excerpt(guess)}
    return Result(name, summary, tuple(findings), measured)


def _floor_findings(name: str, kind: str, listed: list[PlayResult], mean: float, limit: float) -> list[Finding]:
    best = max(listed, key=lambda result: result.value or 0)
    full = sum((result.value or 0) >= _NEARLY_1 for result in listed)
    advice = "make the verifier ask for the answer itself; leave tasks out whose answer is this text"
    if mean > limit:
        message = (
            f"{kind} earns {mean:.3f} on average (the floor is {limit:g}), 1 on {full} of {len(listed)} tasks"
        )
        # One lucky task in a small sample is no proof: the lower end of the interval must lie above the floor.
        proven = mean - 1.64 * _standard_error(listed) > limit
        return [_finding(name, "failure" if proven else "warning", best, message, advice)]
    if full:
        message = f"{kind} earns 1 on {full} of {len(listed)} tasks"
        return [_finding(name, "warning", best, message, advice)]
    return []


def _best_guess(context: CheckContext, form: str, limit: float) -> tuple[str, float, list[PlayResult]]:
    """The common answer that earns most when it is given to every task. Where the sample is too small to say on
    which side of the limit that lies, it is given to more tasks."""
    best: tuple[str, float, list[PlayResult]] = ("", 0.0, [])
    for answer in most_common(context.answers, _GUESSES):
        results = context.play([Play(task.id, [in_form(form, answer)], "constant") for task in context.tasks])
        if not best[2] or _mean(results) > best[1]:
            best = (answer, _mean(results), results)
    answer, mean, results = best
    if results and abs(mean - limit) <= 2.58 * _standard_error(results):
        played = {task.id for task in context.tasks}
        ids = [i for split in SPLITS for i in context.env.tasks.ids(split) if i not in played]
        more = random.Random(0).sample(ids, min(_MORE_GUESSES, len(ids)))
        results = results + context.play([Play(i, [in_form(form, answer)], "constant") for i in more])
    return answer, _mean(results), results


def doing_nothing(context: CheckContext) -> Result:
    """In an environment of several turns, an episode without a single deed earns nothing on any task."""
    name = "doing nothing earns nothing"
    if context.env.max_turns <= 1:
        return Result(name, "one turn only", skipped=True)
    idle = ("", "I will wait.", "Done.")
    results = context.play([Play(task.id, [text]) for task in context.tasks for text in idle])
    rewarded = [result for result in results if (result.value or 0) > 0]
    tasks = {result.play.task for result in rewarded}
    findings = tuple(
        _finding(
            name,
            "failure",
            result,
            f"doing nothing earns {_earned(result)}",
            "ask for a change of state that only the right action makes, or leave the task out",
        )
        for result in rewarded[:5]
    )
    measured = {"share": len(tasks) / len(context.tasks)}
    return Result(name, f"pays on {len(tasks)} of {len(context.tasks)} tasks", findings, measured)


_EXPECTED_TO_PASS = {"upper and lower case swapped", "the last character missing"}


def mutated_references(context: CheckContext) -> Result:
    """Wrong answers made from right ones do not earn 1; reports the share that fails."""
    name = "mutated references fail"
    answers = [task.answer for task in context.tasks]
    plays = [
        Play(task.id, [in_form(context.env.answer_form, as_text(wrong))], f"{'' if plain else '{}'}{what}")
        for index, task in enumerate(context.tasks)
        if task.answer is not None and _is_single(context.env, task)
        for plain in [isinstance(task.answer, str)]
        for what, wrong in mutations(task.answer, answers[index + 1 :] + answers[:index])
    ]
    if not plays:
        return Result(name, "no task has a one-turn reference", skipped=True)
    by_kind = _by_name(context.play(plays))
    shares, findings = {}, []
    programs = any("tests" in task.info for task in context.tasks)
    for kind, listed in by_kind.items():
        rewarded = [result for result in listed if (result.value or 0) >= _NEARLY_1]
        shares[kind.removeprefix("{}")] = 1 - len(rewarded) / len(listed)
        if rewarded:
            findings.append(_mutation_finding(name, kind, rewarded, len(listed), programs=programs))
    failed = sum((result.value or 0) < _NEARLY_1 for listed in by_kind.values() for result in listed)
    share = failed / len(plays)
    return Result(name, f"{share:.1%} of {len(plays)} fail", tuple(findings), {"share": share, **shares})


def _mutation_finding(
    name: str, kind: str, rewarded: list[PlayResult], count: int, *, programs: bool
) -> Finding:
    """Prose may forgive case and a letter; data may not, and nothing may forgive another answer. A letter or a
    number more may leave a program what it is; `code_checks` changes programs so that they differ."""
    structured = kind.startswith("{}")
    what = kind.removeprefix("{}")
    often = len(rewarded) > 0.05 * count
    forgiven = what in _EXPECTED_TO_PASS or (programs and what != ANOTHERS)
    level: Level = "failure" if often and (structured or not forgiven) else "warning"
    return _finding(
        name,
        level,
        rewarded[0],
        f"with {what}, {len(rewarded)} of {count} references still earn 1",
        "compare more strictly" if structured else "compare more strictly, unless such answers mean the same",
    )


def hostile(context: CheckContext) -> Result:
    """Hostile text neither raises, hangs nor ends the process, and always gets a verdict."""
    name = "hostile text never raises"
    form = context.env.answer_form
    texts = [*HOSTILE, *([] if form == "{}" else [in_form(form, text) for text in HOSTILE])]
    plays = [Play(task.id, [text]) for task in context.tasks[:_HOSTILE_TASKS] for text in texts]
    # Environments that step side by side wait for workers or sandboxes, which have limits of their own.
    alone = context.env.parallel_steps <= 1
    results = play_isolated(context.env, plays, _HANG_S) if alone else context.play(plays)
    raised = [result for result in results if result.error]
    unscored = [result for result in results if not result.error and result.value is None]
    findings = [
        _finding(
            name,
            "failure",
            result,
            result.reason,
            "an environment answers any text; catch it in the verifier",
        )
        for result in raised[:5]
    ] + [
        _finding(
            name,
            "warning",
            result,
            result.reason,
            "give a verdict where the text alone decides; a text that escapes scoring escapes training",
        )
        for result in unscored[:5]
    ]
    if any(result.ran_the_answer for result in results):
        message = "the verifier runs the answer as Python code in its own process"
        advice = (
            "read answers with a parser (json.loads, ast.literal_eval) or run them in a sandbox; never eval"
        )
        findings.insert(0, Finding(name, "failure", message, advice, action=excerpt(RUNS_AS_PYTHON)))
    summary = f"{len(texts)} texts: {len(raised)} raised or hung, {len(unscored)} not scored"
    return Result(name, summary, tuple(findings), {"raised": len(raised), "not scored": len(unscored)})


def speed(results: Sequence[PlayResult], slow_s: float) -> Result:
    """How long a step takes."""
    name = "the time of a score"
    seconds = [one for result in results for one in result.seconds]
    if not seconds:
        return Result(name, "nothing was played", skipped=True)
    p50, p99 = (float(q) for q in np.percentile(seconds, [50, 99]))
    findings: tuple[Finding, ...] = ()
    if p99 > slow_s:
        slowest = max(results, key=lambda result: max(result.seconds, default=0.0))
        message = f"1 step in 100 takes longer than {p99:.2f} s"
        advice = "a rollout waits for its slowest step: give the verifier a time limit"
        findings = (_finding(name, "warning", slowest, message, advice),)
    return Result(
        name, f"p50 {p50 * 1e3:.3g} ms, p99 {p99 * 1e3:.3g} ms", findings, {"p50_s": p50, "p99_s": p99}
    )


def _opening(env: Env, task: Task) -> list[Message]:
    _, info = env.reset(seed=0, options={"task": task.id})
    messages: list[Message] = info["messages"]
    return messages


def _is_single(env: Env, task: Task) -> bool:
    actions = env.reference(task)
    return actions is not None and list(actions) == [in_form(env.answer_form, as_text(task.answer))]


def _by_name(results: Sequence[PlayResult]) -> dict[str, list[PlayResult]]:
    grouped: dict[str, list[PlayResult]] = defaultdict(list)
    for result in results:
        grouped[result.play.name].append(result)
    return grouped


def _mean(results: Sequence[PlayResult]) -> float:
    """Mean value; what has none counts 0 (hostile text and references have their own tests)."""
    return fmean(result.value or 0.0 for result in results) if results else 0.0


def _standard_error(results: Sequence[PlayResult]) -> float:
    """Of the mean value, over tasks; 0 for a single one."""
    values = [result.value or 0.0 for result in results]
    return stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0


def _earned(result: PlayResult) -> str:
    return result.reason if result.value is None else f"{result.value:g}{_parts(result)}"


def _parts(result: PlayResult) -> str:
    evidence = result.score.evidence if result.score else {}
    if first := evidence.get("first_failure"):
        return f": {first}"
    return f" ({excerpt(json.dumps(evidence, default=str))})" if evidence else ""


def _finding(name: str, level: Level, result: PlayResult, message: str, advice: str) -> Finding:
    action = result.play.actions[-1] if result.play.actions else ""
    return Finding(name, level, message, advice, result.play.task, excerpt(action))
