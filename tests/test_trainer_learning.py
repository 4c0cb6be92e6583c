"""What is claimed of learning, on tasks of seconds: corrections make stale samples harmless, a teacher is worth
more than rewards alone, and adapters learn too."""

from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import pytest
import torch

from vertigym import envs
from vertigym.benchmarks import staleness
from vertigym.benchmarks.learning import (
    ASK_FIRST,
    LORA,
    ask_first_start,
    distilled,
    first_and_last,
    tuned,
)
from vertigym.trainer.loop import RunOutcome

pytestmark = pytest.mark.slow(first=True)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


# Each takes one seed; `benchmarks/staleness.py` and `benchmarks/learning.py` run others. First, stale samples.


def test_corrected_stale_samples_reach_the_on_policy_reward_and_others_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envs, "make", lambda _: staleness.places())
    seed = 20
    start = staleness.warm_start(tmp_path, seed)

    def trained(age: int, way: str) -> tuple[float, float]:
        """Mean reward over the run, and over its last ten steps."""
        curve = staleness.rewards(tmp_path, seed, start, age, way, steps=300)
        both = fmean(curve), fmean(curve[-10:])
        print(f"{age} steps old, {way}: {both[0]:.3f} over the run, {both[1]:.3f} at its end")
        return both

    fresh, corrected = trained(*staleness.ON_POLICY), trained(8, "corrected")  # of the ages tried, the oldest
    assert corrected[1] >= fresh[1] - 0.03
    assert trained(8, "not corrected")[0] <= min(fresh[0], corrected[0]) - 0.04


# A teacher.


def test_distillation_from_a_larger_teacher_beats_rewards_alone(tmp_path: Path) -> None:
    alone, taught = distilled(tmp_path, 0)
    print(f"rewards alone {alone:.3f}, distilled {taught:.3f}")
    assert taught >= 1.5 * alone
    assert taught >= alone + 0.05


# Two turns: what must be asked for before the decision.


@pytest.fixture(scope="module")
def clerk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunOutcome]:
    """The warm start on clerks of whom half guess."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ASK_FIRST))
        yield ask_first_start(tmp_path_factory.mktemp("ask"), 0)


def test_grpo_learns_to_ask_first(clerk: RunOutcome) -> None:
    outcome = tuned(ASK_FIRST, "grpo", clerk, 0)
    first, last = first_and_last(outcome)
    print(f"held out {first:.3f}, then {last:.3f}")
    assert last >= 0.9
    assert last > first + 0.05
    assert outcome.promoted is not None


def test_adapters_learn_to_ask_first(clerk: RunOutcome) -> None:
    first, last = first_and_last(tuned(ASK_FIRST, "grpo", clerk, 0, "name=adapters", *LORA))
    print(f"held out {first:.3f}, with adapters {last:.3f}")
    assert last >= first + 0.03
