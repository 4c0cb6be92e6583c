"""What RL adds to a warm start, seed by seed. The slow tests hold one seed of each to a bound.

    python benchmarks/learning.py returns|ask-first|distillation|preferences|engines [--seeds 0 1 2]

`returns`: the checkpoint that GRPO and PPO promote, less the warm start, as the share of exact decisions on the
test split. `ask-first`: held-out score of the warm start and after GRPO, PPO and GRPO with adapters.
`distillation`: reward of the last ten of 100 steps, with rewards alone and with a teacher. `preferences`: DPO
on answers of last year's rules that were put right: held-out pairs told apart, exact decisions gained.
`engines`: exact decisions after 20 steps of GRPO sampled by transformers and by vLLM (`make setup-vllm`,
.venv-vllm/bin/python).
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import torch

from vertigym import envs
from vertigym.core.config import load, parse
from vertigym.core.files import dumps, write_jsonl
from vertigym.decisions.model import DecisionModel
from vertigym.envs.decision.builtin import OLD_DECISION, folder_of
from vertigym.envs.decision.builtin import RETURNS as RETURNS_ENV
from vertigym.envs.decision.env import DecisionEnv
from vertigym.envs.decision.stale import company_logs, old_version, stale_logs
from vertigym.evals.compare import compare
from vertigym.evals.report import Report
from vertigym.evals.runner import run_suite
from vertigym.evals.statistics import Difference
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.policies.scripted import reference_text
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

RETURNS, ASK_FIRST = (Path(__file__).parents[1] / "examples" / name for name in ("returns", "ask_first"))
LORA = ("lora.rank=8", "lora.alpha=16", "optimizer.lr=5e-3", "steps=40")
SMALL = {"hidden": 32, "layers": 2, "heads": 2, "key_heads": 2, "ffn": 48}
LARGE = {"hidden": 96, "layers": 3, "heads": 4, "key_heads": 4, "ffn": 192}


def example(file: Path, folder: Path, seed: int, *overrides: str) -> RunConfig:
    """A config of the examples, which writes to this folder."""
    return load(RunConfig, file, [f"output={folder}", f"seed={seed}", *overrides])


def imitate_logs(file: Path, folder: Path, seed: int, rows: Any, *overrides: str) -> RunOutcome:
    """The warm start of an example on these logs."""
    write_jsonl(folder / "logs.jsonl", rows)
    return train(example(file, folder, seed, f"sft.data={folder / 'logs.jsonl'}", *overrides))


def returns_start(folder: Path, seed: int, *overrides: str) -> RunOutcome:
    """A model that imitates logs, most of which follow last year's rules."""
    env = envs.make(RETURNS_ENV)
    assert isinstance(env, DecisionEnv)
    files = (folder_of(RETURNS_ENV) / name for name in ("decision.json", OLD_DECISION))
    current, old = map(DecisionModel.read, files)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    rows = stale_logs(current, old, tasks, env.config.outputs, seed=seed)
    return imitate_logs(RETURNS / "sft.toml", folder, seed, rows, *overrides)


def ask_first_start(folder: Path, seed: int, *overrides: str) -> RunOutcome:
    """A model that imitates clerks of whom half guess. The example's folder must be on the path."""
    from ask_first import logs  # type: ignore[import-not-found]

    return imitate_logs(ASK_FIRST / "sft.toml", folder, seed, logs(seed=seed), *overrides)


def tuned(directory: Path, algorithm: str, warm: RunOutcome, seed: int, *overrides: str) -> RunOutcome:
    """The example's RL from a warm start, under its suite."""
    given = f"model={warm.last}", f'eval.suites=["{directory / "suite.toml"}"]'
    config = example(directory / f"{algorithm}.toml", warm.run.folder.parent, seed, *given, *overrides)
    return train(config)


def gain_on_the_test_split(before: Path, after: Path) -> Difference:
    """The paired difference in exact decisions on the cases of returns that no decision of a run has seen."""
    suite = load_suite(RETURNS / "suite.toml")
    held_out = tuple(part.model_copy(update={"split": "test"}) for part in suite.env)
    suite = suite.model_copy(update={"env": held_out})
    reports: list[Report] = [run_suite(suite, load_policy(m), model=str(m)) for m in (before, after)]
    (line,) = (line for line in compare(reports)[0].metrics if line.label == "exact")
    assert line.difference is not None
    return line.difference


def first_and_last(outcome: RunOutcome) -> tuple[float, float]:
    """The score of a run's first and last evaluation."""
    first, last = (outcome.evaluations[i].reports[0].score.mean for i in (0, -1))
    assert first is not None
    assert last is not None
    return first, last


def imitate_answers(folder: Path, name: str, steps: int, size: dict[str, int], lr: float) -> Path:
    """A model of returns that has imitated the right answers for some steps."""
    tasks_of = envs.make(RETURNS_ENV).tasks
    tasks = [tasks_of.get(i) for i in tasks_of.ids("train")]
    answers = [{"role": "assistant", "content": reference_text(task)} for task in tasks]
    rows = [{"messages": [*task.messages(), answer]} for task, answer in zip(tasks, answers, strict=True)]
    write_jsonl(folder / "rows.jsonl", rows)
    table = {
        "name": name, "env": RETURNS_ENV, "model": "tiny", "tiny": size, "algorithm": "sft", "steps": steps,
        "output": str(folder), "threads": 1, "sft": {"data": str(folder / "rows.jsonl"), "batch": 48},
        "optimizer": {"lr": lr, "schedule": "cosine"},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="benchmark")).last


def distilled(folder: Path, seed: int) -> tuple[float, float]:
    """The reward of the last ten steps, with rewards alone and with a teacher."""
    teacher = imitate_answers(folder, "teacher", 200, LARGE, 3e-3)
    student = imitate_answers(folder, "student", 30, SMALL, 1e-2)
    ways: dict[str, dict[str, Any]] = {"grpo": {}, "distill": {"distill": {"teacher": str(teacher)}}}
    reached = []
    for algorithm, more in ways.items():
        table = {
            "env": RETURNS_ENV, "model": str(student), "steps": 100, "seed": seed, "threads": 1,
            "output": str(folder), "name": algorithm, "algorithm": algorithm, "optimizer": {"lr": 3e-3},
            "rollout": {"tasks": 12, "group_size": 4, "max_tokens": 24}, **more,
        }  # fmt: skip
        rows = train(parse(RunConfig, table, source="benchmark")).run.metrics()
        reached.append(fmean(row["reward"] for row in rows[-10:]))
    alone, taught = reached
    return alone, taught


def on_engine(warm: RunOutcome, seed: int, engine: str) -> RunOutcome:
    """20 steps of GRPO on returns, sampled by this engine."""
    short = ("steps=20", "eval.every=20")
    return tuned(RETURNS, "grpo", warm, seed, f"name={engine}", f"rollout.engine={engine}", *short)


def correction_pairs(folder: Path) -> None:
    """Of returns, what last year's rules say and the right decision, as pairs: `train.jsonl`, `eval.jsonl`."""
    env = envs.make(RETURNS_ENV)
    assert isinstance(env, DecisionEnv)
    logs = company_logs(env, old_version(env))
    logged = {dumps(row["messages"][:-1]): row["messages"][-1]["content"] for row in logs}
    pairs: list[dict[str, Any]] = []
    for task in map(env.tasks.get, env.tasks.ids("train")):
        chosen, rejected = reference_text(task), logged.get(dumps(task.messages()))
        if rejected not in (None, chosen):
            pairs.append({"messages": task.messages(), "chosen": chosen, "rejected": rejected})
    write_jsonl(folder / "train.jsonl", [pair for place, pair in enumerate(pairs) if place % 5])
    write_jsonl(folder / "eval.jsonl", pairs[::5])


def dpo_table(folder: Path, model: Path, **changes: Any) -> dict[str, Any]:
    """A run of DPO on the pairs in a folder."""
    files = {"data": str(folder / "train.jsonl"), "held_out": str(folder / "eval.jsonl")}
    return {
        "name": "dpo", "env": RETURNS_ENV, "model": str(model), "algorithm": "dpo", "steps": 20,
        "output": str(folder), "threads": 1, "dpo": {**files, "batch": 16, "every": 10},
        "optimizer": {"lr": 1e-3}, "checkpoint": {"every": 4},
    } | changes  # fmt: skip


def exact_scores(outcome: RunOutcome) -> list[float]:
    """The share of exact decisions at each evaluation."""
    means = [one.reports[0].metrics["exact"]["all"].mean for one in outcome.evaluations]
    assert None not in means
    return means  # type: ignore[return-value]


def returns(folder: Path, seed: int) -> dict[str, Any]:
    """GRPO and PPO: what was promoted less the warm start, with its interval."""
    warm, found = returns_start(folder, seed), {}
    for algorithm in ("grpo", "ppo"):
        promoted = tuned(RETURNS, algorithm, warm, seed).promoted
        gain = promoted and gain_on_the_test_split(warm.last, promoted)
        found[algorithm] = gain and [gain.mean, gain.low, gain.high]
    return found


def ask_first(folder: Path, seed: int) -> dict[str, Any]:
    """Held-out score before and after, each way."""
    warm = ask_first_start(folder, seed)
    ways = {"grpo": ("grpo", ()), "ppo": ("ppo", ()), "adapters": ("grpo", ("name=adapters", *LORA))}
    return {
        name: first_and_last(tuned(ASK_FIRST, algorithm, warm, seed, *more))
        for name, (algorithm, more) in ways.items()
    }


def distillation(folder: Path, seed: int) -> dict[str, Any]:
    """Last rewards with and without a teacher."""
    return dict(zip(("rewards alone", "teacher"), distilled(folder, seed), strict=True))


def preferences(folder: Path, seed: int) -> dict[str, Any]:
    """Held-out pairs told apart, with the lower end of the interval; and what decisions gain."""
    warm = returns_start(folder, seed)
    correction_pairs(folder)
    table = dpo_table(folder, warm.last, seed=seed, optimizer={"lr": 1e-4}, steps=60)
    outcome = train(parse(RunConfig, table, source="benchmark"))
    last, gain = outcome.run.metrics()[-1], gain_on_the_test_split(warm.last, outcome.last)
    return {
        "told apart": [last["held_out_accuracy"], last["held_out_low"]],
        "exact": [gain.mean, gain.low, gain.high],
    }


def engines(folder: Path, seed: int) -> dict[str, Any]:
    """Exact decisions before and after, with each engine."""
    warm = returns_start(folder, seed)
    return {name: exact_scores(on_engine(warm, seed, name)) for name in ("transformers", "vllm")}


EXPERIMENTS: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    "returns": returns,
    "ask-first": ask_first,
    "distillation": distillation,
    "preferences": preferences,
    "engines": engines,
}


def main() -> None:
    """One JSON line a seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", choices=EXPERIMENTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    torch.set_num_threads(1)
    sys.path.insert(0, str(ASK_FIRST))
    for seed in options.seeds:
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            found = EXPERIMENTS[options.experiment](Path(folder), seed)
        print(
            json.dumps({"seed": seed, **found, "processor_s": round(time.process_time() - began)}), flush=True
        )


if __name__ == "__main__":
    main()
