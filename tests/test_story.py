"""The story that vertigym is for, at full size: a warm start on stale logs, GRPO against the current rules, a
gate that promotes what is better, and controls in which nothing may be promoted."""

import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vertigym import envs
from vertigym.core.config import load
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.decisions.model import DecisionModel
from vertigym.envs.decision.builtin import OLD_DECISION, RETURNS, folder_of
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.stale import stale_logs
from vertigym.evals.compare import compare
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite, load_suite
from vertigym.policies.load import load_policy
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

EXAMPLE = Path(__file__).parents[1] / "examples" / "returns"
pytestmark = pytest.mark.slow


def warm_start(folder: Path, seed: int) -> RunOutcome:
    torch.set_num_threads(1)
    env = envs.make(RETURNS)
    assert isinstance(env, DecisionEnv)
    current, old = (DecisionModel.read(folder_of(RETURNS) / name) for name in ("decision.json", OLD_DECISION))
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    write_jsonl(folder / "logs.jsonl", stale_logs(current, old, tasks, env.config.outputs, seed=seed))
    return train(configured("sft.toml", folder, seed, f"sft.data={folder / 'logs.jsonl'}"))


def configured(name: str, folder: Path, seed: int, *overrides: str) -> RunConfig:
    return load(RunConfig, EXAMPLE / name, [f"output={folder}", f"seed={seed}", *overrides])


def tune(warm: RunOutcome, seed: int, *overrides: str, algorithm: str = "grpo") -> RunOutcome:
    suites = f'eval.suites=["{EXAMPLE / "suite.toml"}"]'
    given = f"model={warm.last}", suites, *overrides
    return train(configured(f"{algorithm}.toml", warm.run.folder.parent, seed, *given))


def on_the_test_split(model: Path) -> Report:
    """On the test split, which no decision of the run has seen."""
    suite = load_suite(EXAMPLE / "suite.toml")
    parts = tuple(part.model_copy(update={"split": "test"}) for part in suite.env)
    held_out: Suite = suite.model_copy(update={"env": parts})
    return run_suite(held_out, load_policy(model), model=str(model))


def verdicts(outcome: RunOutcome) -> list[str]:
    rows: list[dict[str, Any]] = read_jsonl(outcome.run.folder / "gates.jsonl")
    return [row["verdict"] for row in rows]


@pytest.fixture(scope="module")
def warm_starts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], RunOutcome]:
    return cache(lambda seed: warm_start(tmp_path_factory.mktemp("story"), seed))


@pytest.fixture
def warm(warm_starts: Callable[[int], RunOutcome]) -> RunOutcome:
    return warm_starts(0)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_promoted_checkpoint_beats_the_warm_start_by_twenty_points(
    seed: int, algorithm: str, warm_starts: Callable[[int], RunOutcome]
) -> None:
    warm = warm_starts(seed)
    tuned = tune(warm, seed, algorithm=algorithm)
    assert tuned.promoted is not None
    comparison = compare([on_the_test_split(warm.last), on_the_test_split(tuned.promoted)])[0]
    exact = next(line.difference for line in comparison.metrics if line.label == "exact")
    assert exact is not None
    assert exact.mean is not None
    assert exact.low is not None
    assert exact.mean >= 0.20
    assert exact.low > 0


def test_shuffled_rewards_promote_nothing(warm: RunOutcome) -> None:
    shuffled = tune(warm, 0, "name=shuffled", "policy.shuffle_rewards=true")
    assert shuffled.promoted is None
    assert set(verdicts(shuffled)) == {"rejected"}


def test_a_wrecked_run_is_rejected(warm: RunOutcome) -> None:
    wrecked = tune(warm, 0, "name=wrecked", "optimizer.lr=0.03", "steps=20")
    assert wrecked.promoted is None
    scores = [evaluation.reports[0].metrics["exact"]["all"].mean for evaluation in wrecked.evaluations]
    assert scores[-1] is not None
    assert scores[-1] < 0.1, "the control must really wreck the model"


def test_learning_rate_zero_changes_nothing_to_the_bit(warm: RunOutcome) -> None:
    still = tune(warm, 0, "name=still", "optimizer.lr=0.0", "steps=10")
    before, after = (load_file(folder / "model.safetensors") for folder in (warm.last, still.last))
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert still.promoted is None
    first, last = (evaluation.reports[0] for evaluation in (still.evaluations[0], still.evaluations[-1]))
    assert [row.scores for row in first.rows] == [row.scores for row in last.rows]
    assert all(math.isfinite(row["loss"]) for row in still.run.metrics())
