"""Macro-F1 as a suite metric: the values of tasks average to it, and its error is the delta method's."""

from pathlib import Path

import numpy as np
import pytest

from vertigym.core.errors import ConfigError
from vertigym.evals.gate import compare_rows, decide
from vertigym.evals.metrics import MACRO_F1, Row, less_is_better, task_values
from vertigym.evals.report import estimate_metric
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite
from vertigym.policies.scripted import Scripted, constant, expert

from . import desk


def rows(true: list[str], given: list[str]) -> list[Row]:
    return [
        Row(
            env="e",
            task=str(n),
            digest="",
            cluster="",
            weight=1 / len(true),
            slices={},
            scores=(float(a == b),),
            parts={},
            prompt_tokens=(1,),
            completion_tokens=(1,),
            latency_s=(0.0,),
            labels=((a, b),),
        )
        for n, (a, b) in enumerate(zip(true, given, strict=True))
    ]


def macro_f1(true: list[str], given: list[str]) -> float:
    """By the definition."""
    found = []
    for one in sorted(set(true)):
        hits = sum(a == b == one for a, b in zip(true, given, strict=True))
        found.append(2 * hits / (true.count(one) + given.count(one)))
    return float(np.mean(found))


def drawn(seed: int, count: int, accuracy: float) -> tuple[list[str], list[str]]:
    random = np.random.default_rng(seed)
    true = [str(one) for one in random.choice(list("aaaabbc"), count)]
    given = [one if random.random() < accuracy else str(random.choice(list("abcd"))) for one in true]
    return true, given


def test_task_values_average_to_macro_f1() -> None:
    true, given = drawn(0, 200, 0.6)
    values = task_values(rows(true, given), MACRO_F1)
    assert np.mean(list(values.values())) == pytest.approx(macro_f1(true, given))


def test_paired_difference_is_that_of_the_two_f1() -> None:
    true, first = drawn(1, 300, 0.8)
    _, second = drawn(2, 300, 0.5)
    difference, mine, theirs = compare_rows(rows(true, first), rows(true, second), MACRO_F1)
    assert mine == pytest.approx(macro_f1(true, first))
    assert theirs == pytest.approx(macro_f1(true, second))
    assert difference.mean == pytest.approx(macro_f1(true, first) - macro_f1(true, second))


def test_its_error_is_that_of_repeated_draws() -> None:
    exact = np.std([macro_f1(*drawn(seed, 300, 0.7)) for seed in range(400)], ddof=1)
    errors = [estimate_metric(rows(*drawn(seed, 300, 0.7)), MACRO_F1).se for seed in range(20)]
    assert np.mean([error for error in errors if error is not None]) == pytest.approx(exact, rel=0.1)


def test_always_the_most_common_label_is_seen_through(tmp_path: Path) -> None:
    folder = str(desk.intent(tmp_path))
    suite = Suite.model_validate(
        {
            "name": "intent",
            "env": [{"id": folder, "split": "test"}],
            "metrics": ["macro_f1", "right", "error_cost"],
            "gate": [{"rule": "improves", "metric": "macro_f1"}, {"rule": "improves", "metric": "error_cost"}],
        }
    )
    lazy = run_suite(suite, constant("shipping"), model="lazy")
    good = run_suite(suite, expert(), model="good")
    assert good.value("macro_f1") == 1.0
    assert lazy.value("macro_f1") == pytest.approx(lazy.value("right") * 2 / (1 + lazy.value("right")) / 6)  # type: ignore[operator]
    assert less_is_better("error_cost")
    assert good.value("error_cost") == 0.0
    assert decide(suite, good, lazy).passed
    assert not decide(suite, lazy, good).passed


def test_macro_f1_needs_an_environment_that_classifies() -> None:
    suite = Suite.model_validate(
        {"name": "s", "env": [{"id": "vertigym/Arithmetic-v0", "tasks": 3}], "metrics": ["macro_f1"]}
    )
    with pytest.raises(ConfigError, match="'macro_f1' needs an environment that classifies"):
        run_suite(suite, Scripted(lambda prompt: "1"))
