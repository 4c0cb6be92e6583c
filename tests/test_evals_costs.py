"""What a model costs: tokens by a price list, a machine by the hour; gates that hold a small model to it."""

import pytest
from pydantic import ValidationError

from vertigym.core.types import Completion, Prompt, Sampling
from vertigym.evals.gate import decide
from vertigym.evals.metrics import less_is_better
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Price, Suite
from vertigym.policies.scripted import reference_text

SUITE = Suite.model_validate(
    {
        "name": "replace",
        "env": [{"id": "vertigym/Arithmetic-v0?level=1", "tasks": 80}],
        "metrics": ["score", "latency_p50", "latency_p95", "cost_per_1000"],
        "prices": {"big": {"input": 2.0, "output": 8.0}, "small": {"hour": 0.36}},
        "gate": [
            {"rule": "not_worse", "margin": 0.05},
            {"rule": "at_most", "metric": "latency_p50", "threshold": 0.1},
            {"rule": "at_most", "metric": "latency_p95", "threshold": 0.2},
            {"rule": "at_most", "metric": "cost_per_1000", "threshold": 0.05},
            {"rule": "improves", "metric": "cost_per_1000"},
        ],
    }
)


class Timed:
    """Answers rightly, in a given time and with given tokens."""

    def __init__(self, seconds: float, wrong: bool = False) -> None:
        self._seconds, self._wrong = seconds, wrong

    def generate(self, prompts: list[Prompt], sampling: Sampling) -> list[Completion]:
        return [
            Completion(
                "?" if self._wrong or prompt.task is None else reference_text(prompt.task),
                prompt_tokens=500,
                completion_tokens=25,
                latency_s=self._seconds,
            )
            for prompt in prompts
        ]


def report(model: str, seconds: float, *, wrong: bool = False) -> Report:
    return run_suite(SUITE, Timed(seconds, wrong), model=model)  # type: ignore[arg-type]


def test_a_thousand_calls_by_token_and_by_hour() -> None:
    big, small = report("big", 0.9), report("small", 0.1)
    assert big.value("cost_per_1000") == pytest.approx(1000 * (500 * 2 + 25 * 8) / 1e6)
    assert small.value("cost_per_1000") == pytest.approx(1000 * 0.1 * 0.36 / 3600)
    assert small.value("latency_p95") == pytest.approx(0.1)
    assert less_is_better("cost_per_1000")


def test_quality_latency_and_cost_each_have_a_gate() -> None:
    big = report("big", 0.9)
    assert decide(SUITE, report("small", 0.1), big).passed
    slow, bad = decide(SUITE, report("small", 0.9), big), decide(SUITE, report("small", 0.1, wrong=True), big)
    assert [check.passed for check in slow.checks] == [True, True, False, False, False, True]
    assert [check.passed for check in bad.checks] == [True, False, True, True, True, True]


@pytest.mark.parametrize("wrong", [{}, {"hour": 1.0, "input": 1.0}, {"hour": -1.0}])
def test_a_price_is_by_token_or_by_hour(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Price.model_validate(wrong)


def test_a_model_may_be_free() -> None:
    assert Price(input=0, output=0).hour == 0
