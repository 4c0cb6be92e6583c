"""Arithmetic and linear equations with whole numbers, at six levels. Small enough for a tiny model to learn.

    1  a + b               below 100
    2  a + b, a - b        below 100
    3  a * b               below 32
    4  a + b - c           below 50
    5  ( a + b ) * c
    6  a * x + b = c       for x

Every problem of a level has a number; a fixed shuffle of all numbers is cut into train, eval and test. No
problem occurs twice, in one split or in two. Problems with the same numbers (2 + 3, 3 + 2) share a cluster.
"""

import re
from collections.abc import Callable
from functools import cache

import numpy as np

from vertigym.core.errors import ConfigError
from vertigym.core.seeds import generator
from vertigym.core.types import Split, Task
from vertigym.envs.env import SingleTurnEnv
from vertigym.envs.tasks import GeneratedTasks
from vertigym.rewards.answers import last_line
from vertigym.rewards.rubric import Part, Rubric, bounded
from vertigym.rewards.text import number, numeric

SYSTEM = "Answer with the number only."
_TENTHS: dict[Split, range] = {"train": range(7), "eval": range(7, 8), "test": range(8, 10)}
_MOST: dict[Split, int] = {"train": 20_000, "eval": 1_000, "test": 2_000}

# The digits of a problem's number (mixed radix) -> (operation, question, answer).
Problem = tuple[str, str, int]


def _sum(digits: list[int]) -> Problem:
    a, b = digits
    return "+", f"What is {a} + {b}?", a + b


def _sum_or_difference(digits: list[int]) -> Problem:
    minus, a, b = digits
    if minus:
        return "-", f"What is {a} - {b}?", a - b
    return _sum([a, b])


def _product(digits: list[int]) -> Problem:
    a, b = digits
    return "*", f"What is {a} * {b}?", a * b


def _three_terms(digits: list[int]) -> Problem:
    a, b, c = digits
    return "+-", f"What is {a} + {b} - {c}?", a + b - c


def _brackets(digits: list[int]) -> Problem:
    a, b, c = digits
    return "()", f"What is ( {a} + {b} ) * {c + 2}?", (a + b) * (c + 2)


def _equation(digits: list[int]) -> Problem:
    a, b, x = digits[0] + 2, digits[1], digits[2] - 20
    return "x", f"{a} * x + {b} = {a * x + b}. What is x?", x


_LEVELS: dict[int, tuple[tuple[int, ...], Callable[[list[int]], Problem]]] = {
    1: ((100, 100), _sum),
    2: ((2, 100, 100), _sum_or_difference),
    3: ((32, 32), _product),
    4: ((50, 50, 50), _three_terms),
    5: ((30, 30, 18), _brackets),
    6: ((11, 50, 41), _equation),
}
LEVELS = tuple(_LEVELS)


def make_task(level: int, split: Split, index: int, *, digits: bool = False) -> Task:
    """The `index`-th problem of a level's split; with `digits`, each digit is a word: `What is 3 7 + 2 5?`."""
    radix, write = _LEVELS[level]
    first = _space(level) // 10 * _TENTHS[split].start
    places = [int(d) for d in np.unravel_index(_order(level)[first + index], radix)]
    operation, question, result = write(places)
    answer, numbers = str(result), " ".join(sorted(re.findall(r"\d+", question)))
    if digits:
        question, answer = _spaced(question), _spaced(answer)
    return Task(
        id=f"{split}-{index}",
        prompt=question,
        answer=answer,
        info={"level": level, "operation": operation},
        split=split,
        cluster=numbers,
    )


def load(level: int = 2, digits: bool = False, system: str = SYSTEM) -> SingleTurnEnv:
    """The environment of one level. `digits`: numbers are written digit by digit, with spaces, for models that
    have no words for large numbers.

    Raises:
        ConfigError: no such level.
    """
    if level not in _LEVELS:
        raise ConfigError(f"level = {level!r}: the levels are 1 to {LEVELS[-1]}")
    sizes = {split: min(most, _space(level) // 10 * len(_TENTHS[split])) for split, most in _MOST.items()}
    tasks = GeneratedTasks(lambda split, index: make_task(level, split, index, digits=digits), sizes)
    right = _right_digits if digits else numeric(relative=0, where="last line")
    return SingleTurnEnv(tasks, Rubric(Part(right, name="right")), system=system)


def _spaced(text: str) -> str:
    """`37` -> `3 7`."""
    return re.sub(r"(?<=[\d-])(?=\d)", " ", text)


@bounded
def _right_digits(completion: str, answer: str) -> bool:
    """Whether the last line, read without its spaces, is the number: `6 2` is 62."""
    found = number((last_line(completion) or "").replace(" ", ""))
    return found is not None and found == number(answer.replace(" ", ""))


def _space(level: int) -> int:
    return int(np.prod(_LEVELS[level][0]))


@cache
def _order(level: int) -> np.ndarray:
    return generator(0, "arithmetic", level).permutation(_space(level))
