"""GRPO on a CPU: vertigym beside TRL's `GRPOTrainer`: same model, prompts, groups, lengths, reward, threads.

    python benchmarks/trainer.py [--threads 2] [--steps 20] [--tokens 32] [--wait active]
    python benchmarks/trainer.py --model DIR [--env ENV] --tasks 8 --steps 5 --lr 1e-5 [--dtype bfloat16]

Both train one model on the returns environment, a 0.9 M-parameter Qwen3 made on the spot or any model folder:
8 samples a prompt, one optimizer step each, no KL term, temperature 1, AdamW at one learning rate. With
`--dtype bfloat16` vertigym samples and trains in bfloat16 (weights stay float32), TRL under bfloat16
autocast. Each runs in its own process, in turn (so that a drifting machine drifts for both); times are the
medians over steps after the first two. A round has a seed of its own. Generation includes the verifier for
vertigym, and not for TRL; log-probs are all forward passes of training. Reward is what the sampled episodes
of a step earn on average, at equal numbers of steps and after equal wall time. Threads of both sides sleep
while they wait, as they do under `vertigym train`; `--wait active` lets them spin, which is OpenMP's own
default and collapses where a core is shared.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ENV = "vertigym/Returns-v0"
GROUP = 8


def main() -> None:
    """Prepare one starting model, run both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=32, help="most tokens of an answer")
    parser.add_argument(
        "--model", type=Path, help="a model folder, as it is; default: a tiny one, warm-started"
    )
    parser.add_argument("--env", default=ENV, help="a decision environment's id or folder")
    parser.add_argument("--tasks", type=int, default=32, help="prompts a step")
    parser.add_argument("--lr", type=float, default=2e-4)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=2, help="how often each side runs, in turn")
    parser.add_argument("--wait", choices=("passive", "active"), default="passive", help="OMP_WAIT_POLICY")
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps(run_side(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        if arguments.model is None:
            arguments.model = prepare(Path(folder), arguments.env)
        results: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
        for seed in range(arguments.rounds):
            arguments.seed = seed
            for side in SIDES:
                results[side].append(in_own_process(side, arguments))
    show(results, arguments)


def in_own_process(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one side and read its figures."""
    names = ("threads", "steps", "tokens", "model", "env", "tasks", "lr", "dtype", "seed")
    flags = [f"--{name}={getattr(arguments, name)}" for name in names]
    command = [sys.executable, __file__, "--side", side, *flags]
    env = os.environ | {"OMP_WAIT_POLICY": arguments.wait}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def prepare(folder: Path, name: str) -> Path:
    """A short warm start on logs that follow last year's rules: both begin with something to improve."""
    from vertigym import envs
    from vertigym.core.config import parse
    from vertigym.core.files import write_jsonl
    from vertigym.envs.decision.env import DecisionEnv
    from vertigym.envs.decision.stale import company_logs, old_version
    from vertigym.trainer.config import RunConfig
    from vertigym.trainer.loop import train

    env = envs.make(name)
    assert isinstance(env, DecisionEnv)
    write_jsonl(folder / "logs.jsonl", company_logs(env, old_version(env)))
    table = {
        "name": "sft", "env": name, "model": "tiny", "algorithm": "sft", "steps": 100, "threads": 1,
        "output": str(folder), "sft": {"data": str(folder / "logs.jsonl"), "batch": 64},
        "optimizer": {"lr": 2e-3, "schedule": "cosine"},
    }  # fmt: skip
    return train(parse(RunConfig, table, source="benchmark")).last


def run_side(arguments: argparse.Namespace) -> dict[str, Any]:
    """Figures of one side, in this process."""
    import torch

    torch.set_num_threads(arguments.threads)
    found = SIDES[arguments.side](arguments)
    return found | {"peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def run_vertigym(arguments: argparse.Namespace) -> dict[str, Any]:
    """Our trainer."""
    from vertigym.core.config import parse
    from vertigym.trainer.config import RunConfig
    from vertigym.trainer.loop import Progress, train

    with tempfile.TemporaryDirectory() as output:
        table = {
            "name": "run", "env": arguments.env, "model": str(arguments.model), "algorithm": "grpo",
            "seed": arguments.seed, "steps": arguments.steps, "output": output,
            "threads": arguments.threads, "dtype": arguments.dtype,
            "rollout": {
                "tasks": arguments.tasks, "group_size": GROUP, "max_tokens": arguments.tokens, "save_every": 0,
                "dtype": arguments.dtype,
            },
            "optimizer": {"lr": arguments.lr},
        }  # fmt: skip
        ends, rows = [time.perf_counter()], []

        def on_step(_: int, metrics: dict[str, float]) -> None:
            ends.append(time.perf_counter())
            rows.append(metrics)

        train(parse(RunConfig, table, source="benchmark"), progress=Progress(on_step=on_step))
    steps = [b - a for a, b in pairwise(ends)]
    names = {"generation": "sampling", "log-probs": "logprobs", "backward": "backward"}
    parts = {name: [row.get(f"seconds_{phase}", 0.0) for row in rows] for name, phase in names.items()}
    return figures(steps, parts, [row["reward"] for row in rows])


def run_trl(arguments: argparse.Namespace) -> dict[str, Any]:
    """TRL's trainer on the environment's tasks and verifier."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import GRPOConfig, GRPOTrainer

    from vertigym import envs
    from vertigym.envs.decision.env import DecisionEnv

    env = envs.make(arguments.env)
    assert isinstance(env, DecisionEnv)
    tasks = [env.tasks.get(i) for i in env.tasks.ids("train")]
    rows = [{"prompt": task.messages(), "id": task.id} for task in tasks]
    rewards, ends = [], [time.perf_counter()]
    parts: dict[str, list[float]] = {name: [] for name in PARTS}
    spent = dict.fromkeys(PARTS, 0.0)

    def timed(part: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return work(*args, **kwargs)
            finally:
                spent[part] += time.perf_counter() - began

        return wrapped

    def reward(completions: list[Any], id: list[str], **_: Any) -> list[float]:  # noqa: A002
        found = []
        for completion, task_id in zip(completions, id, strict=True):
            text = completion[0]["content"]
            found.append(float(env.rubric.score(task=env.tasks.get(task_id), completion=text).value or 0.0))
        rewards.append(statistics.fmean(found))
        return found

    class Timed(GRPOTrainer):  # type: ignore[misc]
        def training_step(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().training_step(*args, **kwargs)
            ends.append(time.perf_counter())
            for part in PARTS:
                parts[part].append(spent[part])
                spent[part] = 0.0
            return loss

    with tempfile.TemporaryDirectory() as output:
        config = GRPOConfig(
            output_dir=output, seed=arguments.seed, report_to=[],
            use_cpu=True, bf16=arguments.dtype == "bfloat16",
            gradient_checkpointing=False,
            per_device_train_batch_size=arguments.tasks * GROUP, num_generations=GROUP,
            max_steps=arguments.steps,
            max_completion_length=arguments.tokens, learning_rate=arguments.lr, beta=0.0,
            lr_scheduler_type="constant",
            epsilon=0.2, epsilon_high=0.28, temperature=1.0, save_strategy="no", logging_steps=1,
            disable_tqdm=True,
        )  # fmt: skip
        folder = str(arguments.model)
        trainer = Timed(
            model=AutoModelForCausalLM.from_pretrained(folder),
            processing_class=AutoTokenizer.from_pretrained(folder),
            reward_funcs=reward,
            args=config,
            train_dataset=Dataset.from_list(rows),
        )
        trainer._generate = timed("generation", trainer._generate)
        forward = trainer._get_per_token_logps_and_entropies
        trainer._get_per_token_logps_and_entropies = timed("log-probs", forward)
        trainer.accelerator.backward = timed("backward", trainer.accelerator.backward)
        ends[0] = time.perf_counter()
        trainer.train()
    steps = [b - a for a, b in pairwise(ends)]
    return figures(steps, parts, rewards)


def figures(steps: list[float], parts: dict[str, list[float]], rewards: list[float]) -> dict[str, Any]:
    """Medians after the first two steps, and the whole curve of reward over time."""
    rest = [whole - sum(split) for whole, *split in zip(steps, *parts.values(), strict=False)]
    return {
        "step": statistics.median(steps[2:]),
        **{name: statistics.median(values[2:]) for name, values in {**parts, "rest": rest}.items()},
        "rewards": rewards,
        "elapsed": [sum(steps[: i + 1]) for i in range(len(steps))],
    }


def show(results: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> None:
    """The table, ratios first."""
    table = Table(
        title=f"{arguments.tasks} x {GROUP} samples a step, {arguments.tokens} tokens, "
        f"{arguments.threads} threads, {arguments.dtype}"
    )
    for column in ("", "s / step", *PARTS, "rest", "peak MiB", "last reward", "reward at equal time"):
        table.add_column(column, justify="right")
    together = min(run["elapsed"][-1] for runs in results.values() for run in runs)
    for side, runs in results.items():
        middle = {key: statistics.median(run[key] for run in runs) for key in ("step", *PARTS, "rest")}
        peak = max(run["peak_mib"] for run in runs)
        last = statistics.fmean(statistics.fmean(run["rewards"][-3:]) for run in runs)
        equal = statistics.fmean(reward_at(run, together) for run in runs)
        cells = [f"{value:.3f}" for value in middle.values()]
        table.add_row(side, *cells, f"{peak:,.0f}", f"{last:.3f}", f"{equal:.3f}")
    Console(width=110).print(table)
    ratio = statistics.median(
        theirs["step"] / ours["step"] for ours, theirs in zip(results["vertigym"], results["trl"], strict=True)
    )
    print(f"step rate: {ratio:.2f} x TRL's")
    show_curves(results)


def show_curves(results: dict[str, list[dict[str, Any]]], parts: int = 5) -> None:
    """Mean reward over each fifth of the steps, a row for each side and seed."""
    table = Table(title="mean reward over each fifth of the steps")
    for column in ("", "seed", *(f"{part + 1} / {parts}" for part in range(parts))):
        table.add_column(column, justify="right")
    for side, runs in results.items():
        for seed, run in enumerate(runs):
            size = max(len(run["rewards"]) // parts, 1)
            chunks = [run["rewards"][i * size : (i + 1) * size] for i in range(parts)]
            table.add_row(side, str(seed), *(f"{statistics.fmean(chunk):.3f}" for chunk in chunks if chunk))
    Console(width=110).print(table)


def reward_at(run: dict[str, Any], seconds: float) -> float:
    """Mean reward of the last three steps finished by then."""
    done = [r for r, at in zip(run["rewards"], run["elapsed"], strict=False) if at <= seconds]
    return statistics.fmean(done[-3:] or run["rewards"][:1])


PARTS = ("generation", "log-probs", "backward")
SIDES = {"vertigym": run_vertigym, "trl": run_trl}

if __name__ == "__main__":
    main()
