"""What an eval costs besides the model: runner overhead a sample, gating, and the HTML page.

    python benchmarks/evals.py [--tasks 10000] [--samples 4]

A scripted policy answers at once, so that everything measured is vertigym's own. CPU time, not wall time.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.table import Table

from vertigym.core.seeds import generator
from vertigym.core.types import Prompt, Task
from vertigym.envs.env import Env, SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.evals.gate import decide
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import Suite, task_list
from vertigym.policies.scripted import Scripted
from vertigym.reports.page import report_page
from vertigym.rewards.rubric import Rubric

T = TypeVar("T")


def main() -> None:
    """Run and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=4)
    arguments = parser.parse_args()
    suite = Suite.model_validate(
        {
            "name": "benchmark",
            "env": [{"id": "bench/Sums-v0", "name": "sums", "samples": arguments.samples}],
            "gate": [{"rule": "improves"}, {"rule": "at_most", "metric": "latency_p95", "threshold": 1}],
        }
    )
    env = sums(arguments.tasks)
    count = arguments.tasks * arguments.samples

    def make(env_id: str, **_: Any) -> Env:
        return env

    table = Table(title=f"{arguments.tasks:,} tasks, {arguments.samples} samples each")
    for column in ("step", "CPU s", "ms a sample"):
        table.add_column(column, justify="left" if column == "step" else "right")

    def timed(step: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        result = work()
        spent = time.process_time() - began
        table.add_row(step, f"{spent:.2f}", f"{1000 * spent / count:.3f}")
        return result

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        timed("task list and its hash", lambda: task_list(suite, make))
        before = timed(
            "run and report, nothing saved",
            lambda: run_suite(suite, of_accuracy(0.6), make=make, model="before"),
        )
        after = timed(
            "run and report, every sample saved",
            lambda: run_suite(suite, of_accuracy(0.7), make=make, model="after", out=out),
        )
        timed("the same again with --resume", lambda: resume(suite, make, out))
        decision = timed("two gates", lambda: decide(suite, after, before))
        page = timed(
            "HTML page",
            lambda: report_page(after, baseline=before, decision=decision, samples=out / "samples.jsonl"),
        )
        saved = (out / "samples.jsonl").stat().st_size
    Console().print(table)
    Console().print(f"{decision.verdict}; samples {saved / 1e6:.1f} MB, page {len(page) / 1e6:.1f} MB")


def resume(suite: Suite, make: Callable[..., Env], out: Path) -> None:
    """Nothing is left to sample."""

    def write(prompt: Prompt) -> str:
        raise AssertionError("a finished sample was asked for again")

    run_suite(suite, Scripted(write), make=make, model="after", out=out, resume=True)


def sums(count: int) -> Env:
    """Additions, five of them to a cluster."""
    tasks = [
        Task(
            id=f"t{i}",
            prompt=f"{i} + {i} = ?",
            answer=str(2 * i),
            split="eval",
            cluster=f"c{i // 5}",
            info={"rules": [f"r{i % 20}"]},
        )
        for i in range(count)
    ]
    return SingleTurnEnv(TaskSet(tasks), Rubric(exact))


def exact(completion: str, answer: str) -> float:
    """1 for the very answer."""
    return float(completion == answer)


def of_accuracy(share: float) -> Scripted:
    """Right on `share` of the samples."""

    def write(prompt: Prompt) -> str:
        assert prompt.task is not None
        return str(prompt.task.answer) if generator(prompt.seed).random() < share else "no"

    return Scripted(write)


if __name__ == "__main__":
    main()
