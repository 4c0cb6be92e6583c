"""A rubric never raises and never turns a verifier's fault into a 0."""

import asyncio
import json
import math
import threading
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vertigym.core.types import Score, Task
from vertigym.rewards.rubric import Part, Rubric, bounded

TASK = Task(id="t", prompt="2 + 2?", answer="4", info={"solution": "four"})
CHAT = Task(id="c", prompt=({"role": "user", "content": "2 + 2?"},), answer="4")


def correct(completion: str, answer: str) -> bool:
    return completion == answer


def score(*parts: Any, completion: str = "4", task: Task = TASK) -> Score:
    return Rubric(*parts).score(task=task, completion=completion)


def test_weighted_sum_with_a_metric() -> None:
    verdict = score(Part(correct, 0.75), Part(lambda completion: len(completion), 0.0, "length"))
    assert verdict.value == 0.75
    assert dict(verdict.parts) == {"correct": 1.0, "length": 1.0}


def test_arguments_by_name_reach_the_function() -> None:
    def all_of_it(completion, answer, info, task, prompt, messages, solution, missing="default"):  # type: ignore[no-untyped-def]
        assert (completion, answer, task, prompt) == ("4", "4", TASK, "2 + 2?")
        assert (info, messages, solution, missing) == ({"solution": "four"}, (), "four", "default")
        return 1

    assert score(all_of_it).value == 1.0


def test_trl_batched_form_for_strings_and_chats() -> None:
    def batched(prompts, completions, answer, **columns):  # type: ignore[no-untyped-def]
        texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
        assert isinstance(prompts[0], str) or prompts[0][0]["role"] == "user"
        return [float(text == a) for text, a in zip(texts, answer, strict=True)]

    assert score(batched).value == 1.0
    assert score(batched, task=CHAT).value == 1.0
    assert score(batched, completion="5").value == 0.0

    def needs_a_column(completions, solution):  # type: ignore[no-untyped-def]
        return [float(solution == ["four"])]

    assert score(needs_a_column).value == 1.0
    assert score(needs_a_column, task=CHAT).value is None


def test_async_functions_are_awaited_even_inside_a_running_loop() -> None:
    async def slow(completion: str, answer: str) -> float:
        await asyncio.sleep(0)
        return float(completion == answer)

    class Judge:
        __name__ = "judge"

        async def __call__(self, completion: str) -> float:
            return 0.5

    async def inside() -> Score:
        return score(slow, Part(Judge(), 2.0))

    assert score(slow).value == 1.0
    assert asyncio.run(inside()).value == 2.0


async def async_batched(completions: list[str]) -> list[float]:
    return [1.0]


def test_async_and_batched() -> None:
    assert score(async_batched).value == 1.0


def raises(completion: str) -> float:
    raise KeyError("no such field")


def leaves(completion: str) -> float:
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (raises, "KeyError: 'no such field'"),
        (leaves, "SystemExit: 3"),
        (lambda completion: None, "returned None"),
        (lambda completion: math.nan, "returned nan"),
        (lambda completion: Score(math.inf), "value is inf"),
        (lambda completion: "1.0", "not a number"),
        (lambda completion: [1.0], "TypeError"),
        (lambda completions: [1.0, 1.0], "1 completion went in, 2 rewards came out"),
        (lambda completions: [], "0 rewards came out"),
        (lambda completions: 1.0, "returns a list, got float"),
        (lambda completions: [None], "returned None"),
        (lambda nonsense: 1.0, "wants 'nonsense', which the task does not have"),
        (lambda completion: int("deep"), "ValueError"),
    ],
)
def test_a_fault_is_not_scored_and_says_why(function: Any, reason: str) -> None:
    for part in (Part(function, name="f"), Part(function, name="f", timeout_s=None)):
        verdict = score(part)
        assert verdict.value is None
        assert reason in verdict.evidence["reason"]
        assert verdict.evidence["unscored"] == "f"


def test_a_failing_metric_costs_nothing() -> None:
    verdict = score(correct, Part(raises, 0.0))
    assert verdict.value == 1.0
    assert "KeyError" in verdict.evidence["raises: not scored"]


def test_a_gate_closes_the_parts_after_it() -> None:
    called = []

    def content(completion: str) -> float:
        called.append(completion)
        return 1.0

    rubric = Rubric(
        Part(lambda completion: completion.startswith("{"), 0.1, "form", gate=1.0), Part(content, 0.9)
    )
    closed = rubric.score(task=TASK, completion="no")
    assert (closed.value, closed.evidence["gate"], called) == (0.0, "form", [])
    assert rubric.score(task=TASK, completion="{").value == 1.0


def test_a_gate_that_cannot_be_scored_leaves_the_sample_unscored() -> None:
    assert score(Part(raises, 0.0, gate=1.0), correct).value is None


def test_a_function_past_its_limit_is_not_scored_and_is_ended() -> None:
    ended = threading.Event()

    def endless(completion: str) -> float:
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    verdict = score(Part(endless, timeout_s=0.05))
    assert verdict.value is None
    assert "no verdict within 0.05 s" in verdict.evidence["reason"]
    assert ended.wait(30)
    assert score(correct).value == 1.0


@pytest.mark.parametrize("block", [False, True])
def test_an_async_function_past_its_limit(block: bool) -> None:
    async def endless(completion: str) -> float:
        if block:
            time.sleep(3)
        await asyncio.sleep(60)
        return 1.0

    assert score(Part(endless, timeout_s=0.05)).value is None
    assert score(async_batched).value == 1.0


def test_many_threads_share_the_runners() -> None:
    rubric = Rubric(correct)
    verdicts: list[float | None] = []
    threads = [
        threading.Thread(
            target=lambda text: verdicts.append(rubric.score(task=TASK, completion=text).value),
            args=(str(i % 5),),
        )
        for i in range(50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (verdicts.count(1.0), verdicts.count(0.0)) == (10, 40)


def test_bounded_functions_run_in_the_calling_thread() -> None:
    seen = []

    @bounded
    def here(completion: str) -> float:
        seen.append(threading.current_thread())
        return 1.0

    def beside(completion: str) -> float:
        seen.append(threading.current_thread())
        return 1.0

    score(here, beside)
    assert seen[0] is threading.current_thread()
    assert seen[1] is not threading.current_thread()


def test_wrong_rubrics_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Rubric()
    with pytest.raises(ValueError, match="different names"):
        Rubric(correct, correct)

    def positional(completion, /):  # type: ignore[no-untyped-def]
        return 1.0

    with pytest.raises(ValueError, match="positional-only"):
        Rubric(positional)


@given(st.text(), st.one_of(st.none(), st.floats(), st.text(), st.lists(st.integers())))
def test_whatever_comes_back_the_verdict_is_finite_or_none(text: str, result: Any) -> None:
    verdict = score(Part(lambda completion: result, name="any", timeout_s=None), completion=text)
    assert verdict.value is None or math.isfinite(verdict.value)
    json.dumps(dict(verdict.evidence))
