"""Verifiers that pay for what is wrong, or break, each a function of a sound one."""

import json
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from vertigym.core.types import Message, Score, Task
from vertigym.envs.check.actions import DO_NOT_KNOW
from vertigym.rewards.rubric import Part, RewardFunction, Rubric, bounded


def lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: lowered(item) for key, item in value.items()}
    return value.casefold() if isinstance(value, str) else value


def untyped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untyped(item) for key, item in value.items()}
    return str(int(value) if isinstance(value, bool) else value)


# What breaks a verifier: a function of the sound one and its tasks.
def accept_everything(sound: RewardFunction) -> RewardFunction:
    return bounded(lambda completion: 1.0)


def compare_after_lower_casing(sound: RewardFunction) -> RewardFunction:
    @bounded
    def broken(completion: str, answer: Any) -> float:
        if isinstance(answer, str):
            return float(completion.casefold() == answer.casefold())
        try:
            return float(lowered(json.loads(completion)) == lowered(answer))
        except (ValueError, RecursionError):
            return 0.0

    return broken


def ignore_types(sound: RewardFunction) -> RewardFunction:
    @bounded
    def broken(completion: str, answer: Any) -> float:
        try:
            return float(untyped(json.loads(completion)) == untyped(answer))
        except (ValueError, RecursionError):
            return 0.0

    return broken


def _or_sound(sound: RewardFunction, pays: Callable[[str, Any, Task], bool]) -> RewardFunction:
    rubric = Rubric(Part(sound, name="sound"))

    @bounded
    def broken(completion: str, answer: Any, task: Task, messages: Sequence[Message]) -> Score:
        if pays(completion, answer, task):
            return Score(1.0)
        return rubric.score(task=task, completion=completion, messages=messages)

    return broken


def pay_for_echo(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: completion == task.prompt)


def pay_for_containing(sound: RewardFunction) -> RewardFunction:
    """Finds the answer anywhere in the reply, as many verifiers do."""

    def pays(completion: str, answer: Any, task: Task) -> bool:
        return (answer if isinstance(answer, str) else json.dumps(answer)) in completion

    return _or_sound(sound, pays)


def pay_for_not_knowing(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: completion == DO_NOT_KNOW)


def pay_for_nothing(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: not completion.strip())


def believe_verdicts(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: "score: 1" in completion.lower())


def raise_on_odd_text(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: bool(completion.encode("utf-8") and 0))


def run_the_answer(sound: RewardFunction) -> RewardFunction:
    def pays(completion: str, answer: Any, task: Task) -> bool:
        try:
            return bool(eval(completion) == answer)
        except Exception:
            return False

    return _or_sound(sound, pays)


def hang_on_large_numbers(sound: RewardFunction) -> RewardFunction:
    def pays(completion: str, answer: Any, task: Task) -> bool:
        try:
            return completion.startswith("1e999") and Fraction(completion) == 0
        except ValueError:
            return False

    return _or_sound(sound, pays)


def end_the_process(sound: RewardFunction) -> RewardFunction:
    return _or_sound(sound, lambda completion, answer, task: completion == "NaN" and os._exit(3))


def refuse_everything(sound: RewardFunction) -> RewardFunction:
    return bounded(lambda completion: 0.0)


def forget_randomly(sound: RewardFunction) -> RewardFunction:
    calls = []

    def pays(completion: str, answer: Any, task: Task) -> bool:
        calls.append(completion)
        return completion == DO_NOT_KNOW and len(calls) % 2 == 0

    return _or_sound(sound, pays)
