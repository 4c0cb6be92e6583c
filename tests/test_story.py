"""The story that vertigym is for, at full size: a warm start on stale logs, GRPO against the current rules, a
gate that promotes what is better, and controls in which nothing may be promoted."""

import math
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym.benchmarks.learning import RETURNS, gain_on_the_test_split, returns_start, tuned
from vertigym.core.files import read_jsonl
from vertigym.trainer.loop import RunOutcome

pytestmark = pytest.mark.slow(first=True)


def verdicts(outcome: RunOutcome) -> list[str]:
    rows: list[dict[str, Any]] = read_jsonl(outcome.run.folder / "gates.jsonl")
    return [row["verdict"] for row in rows]


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    torch.set_num_threads(1)
    return returns_start(tmp_path_factory.mktemp("story"), 0)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_the_promoted_checkpoint_beats_the_warm_start_by_twenty_points(
    algorithm: str, warm: RunOutcome
) -> None:
    """One seed; `benchmarks/learning.py returns` runs others."""
    promoted = tuned(RETURNS, algorithm, warm, 0).promoted
    assert promoted is not None
    exact = gain_on_the_test_split(warm.last, promoted)
    print(f"{algorithm}: {exact}")
    assert exact.mean is not None
    assert exact.low is not None
    assert exact.mean >= 0.20
    assert exact.low > 0


def test_shuffled_rewards_promote_nothing(warm: RunOutcome) -> None:
    shuffled = tuned(RETURNS, "grpo", warm, 0, "name=shuffled", "policy.shuffle_rewards=true")
    assert shuffled.promoted is None
    assert set(verdicts(shuffled)) == {"rejected"}


def test_a_wrecked_run_is_rejected(warm: RunOutcome) -> None:
    wrecked = tuned(RETURNS, "grpo", warm, 0, "name=wrecked", "optimizer.lr=0.03", "steps=20")
    assert wrecked.promoted is None
    scores = [evaluation.reports[0].metrics["exact"]["all"].mean for evaluation in wrecked.evaluations]
    assert scores[-1] is not None
    assert scores[-1] < 0.1, "the control must really wreck the model"


def test_learning_rate_zero_changes_nothing_to_the_bit(warm: RunOutcome) -> None:
    still = tuned(RETURNS, "grpo", warm, 0, "name=still", "optimizer.lr=0.0", "steps=4")
    before, after = (load_file(folder / "model.safetensors") for folder in (warm.last, still.last))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert still.promoted is None
    first, last = (evaluation.reports[0] for evaluation in (still.evaluations[0], still.evaluations[-1]))
    assert [row.scores for row in first.rows] == [row.scores for row in last.rows]
    assert all(math.isfinite(row["loss"]) for row in still.run.metrics())
