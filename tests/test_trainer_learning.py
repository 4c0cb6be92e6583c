"""What is claimed of learning, on tasks of seconds: corrections make stale samples harmless, a teacher is worth
more than rewards alone, and adapters learn too."""

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch

from vertigym import envs
from vertigym.benchmarks import staleness
from vertigym.core.config import load, parse
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.policies.scripted import reference_text
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

pytestmark = pytest.mark.slow

ASK_FIRST = Path(__file__).parents[1] / "examples" / "ask_first"
RETURNS = "vertigym/Returns-v0"
SMALL = {"hidden": 32, "layers": 2, "heads": 2, "key_heads": 2, "ffn": 48}
LARGE = {"hidden": 96, "layers": 3, "heads": 4, "key_heads": 4, "ffn": 192}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def run(**table: Any) -> RunOutcome:
    return train(parse(RunConfig, {"threads": 1, **table}, source="test"))


def last_rewards(outcome: RunOutcome) -> float:
    return fmean(row["reward"] for row in read_jsonl(outcome.run.folder / "metrics.jsonl")[-10:])


# Stale samples: two seeds of the benchmark that measures them over more.


def test_corrected_stale_samples_reach_the_on_policy_reward_and_others_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(envs, "make", lambda _: staleness.places())
    seeds = (20, 21)
    starts = {seed: staleness.warm_start(tmp_path / str(seed), seed) for seed in seeds}

    def trained(age: int, way: str) -> tuple[float, float]:
        """Mean reward over the run, and over its last ten steps."""
        curves = [staleness.rewards(tmp_path / str(seed), seed, starts[seed], age, way) for seed in seeds]
        both = fmean(map(fmean, curves)), fmean(fmean(curve[-10:]) for curve in curves)
        print(f"{age} steps old, {way}: {both[0]:.3f} over the run, {both[1]:.3f} at its end")
        return both

    fresh = trained(*staleness.ON_POLICY)
    corrected = {age: trained(age, "corrected") for age in (1, 4, 8)}
    assert all(end >= fresh[1] - 0.03 for _, end in corrected.values())
    assert trained(8, "not corrected")[0] <= min(fresh[0], corrected[8][0]) - 0.04


# A teacher.


def imitate(folder: Path, name: str, steps: int, size: dict[str, int], lr: float) -> Path:
    """A model that has imitated the right answers for some steps."""
    env = envs.make(RETURNS)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    answers = [{"role": "assistant", "content": reference_text(task)} for task in tasks]
    rows = [{"messages": [*task.messages(), answer]} for task, answer in zip(tasks, answers, strict=True)]
    write_jsonl(folder / "rows.jsonl", rows)
    return run(
        name=name, env=RETURNS, model="tiny", tiny=size, algorithm="sft", steps=steps, output=str(folder),
        sft={"data": str(folder / "rows.jsonl"), "batch": 48}, optimizer={"lr": lr, "schedule": "cosine"},
    ).last  # fmt: skip


def test_distillation_from_a_larger_teacher_beats_rewards_alone(tmp_path: Path) -> None:
    teacher = imitate(tmp_path, "teacher", 200, LARGE, 3e-3)
    student = imitate(tmp_path, "student", 30, SMALL, 1e-2)
    for seed in (0, 1):
        about: dict[str, Any] = {
            "env": RETURNS, "model": str(student), "steps": 100, "seed": seed,
            "output": str(tmp_path / str(seed)), "optimizer": {"lr": 3e-3},
            "rollout": {"tasks": 12, "group_size": 4, "max_tokens": 24},
        }  # fmt: skip
        alone = last_rewards(run(**about, name="alone", algorithm="grpo"))
        taught = last_rewards(
            run(**about, name="taught", algorithm="distill", distill={"teacher": str(teacher)})
        )
        print(f"seed {seed}: rewards alone {alone:.3f}, distilled {taught:.3f}")
        assert taught >= 1.5 * alone
        assert taught >= alone + 0.05


# Adapters.


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_adapters_learn_to_ask_first(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ASK_FIRST))
    from ask_first import logs  # type: ignore[import-not-found]

    def example(name: str, *changes: str) -> RunConfig:
        return load(RunConfig, ASK_FIRST / f"{name}.toml", [f"output={tmp_path}", f"seed={seed}", *changes])

    write_jsonl(tmp_path / "logs.jsonl", logs(seed=seed))
    start = train(example("sft", f"sft.data={tmp_path / 'logs.jsonl'}")).last
    suites = f'eval.suites=["{ASK_FIRST / "suite.toml"}"]'
    lora = ("lora.rank=8", "lora.alpha=16", "optimizer.lr=5e-3", "steps=40")
    outcome = train(example("grpo", f"model={start}", suites, *lora))
    first, last = (outcome.evaluations[i].reports[0].score.mean for i in (0, -1))
    assert first is not None
    assert last is not None
    print(f"seed {seed}: held out {first:.3f}, with adapters {last:.3f}")
    assert last >= first + 0.03
