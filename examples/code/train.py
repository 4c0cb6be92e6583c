"""A tiny model learns to write correct functions: every reward comes out of a sandbox.

The tasks say what a function does to its argument, step by step ("add 3, times 2"). Three in four of the
examples it starts from forget the parentheses: they look right, and compute something else. RL sees only
whether the hidden tests pass.

    python examples/code/train.py
"""

import itertools
import shutil
import sys
import time
from pathlib import Path

from vertigym import envs
from vertigym.core.config import load
from vertigym.core.files import write_jsonl, write_text
from vertigym.core.seeds import generator
from vertigym.core.types import Split, Task
from vertigym.reports.progress import watched
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

HERE = Path(__file__).parent
OUT = Path("runs/code")
SIGNS = {"add": "+", "subtract": "-"}
ENV_TOML = """id = "example/Parentheses-v0"
kind = "code"
description = "Write a function from its steps; hidden calls decide."
files = ["tasks.jsonl"]

[parts]
all_pass = 0.8
share = 0.1
compiles = 0.1
"""


def main() -> int:
    """0 when a checkpoint was promoted, 1 when none was."""
    began = time.perf_counter()
    shutil.rmtree(OUT, ignore_errors=True)
    tasks = make_tasks()
    write_jsonl(OUT / "environment" / "tasks.jsonl", (task.model_dump(mode="json") for task in tasks))
    write_text(OUT / "environment" / "env.toml", ENV_TOML)
    write_jsonl(OUT / "rows.jsonl", [logged(task, n) for n, task in enumerate(tasks) if task.split == "train"])
    run("sft.toml")
    tuned = run("grpo.toml")
    env = envs.make(str(OUT / "environment"))
    for found in tuned.evaluations:
        passed = found.reports[0].value("all_pass")
        print(f"step {found.step}: {passed:.3f} of {len(env.tasks.ids('eval'))} pass  {found.verdict}")
    print(f"promoted: {tuned.promoted} ({time.perf_counter() - began:.0f} s in all)")
    return 0 if tuned.promoted else 1


def make_tasks() -> list[Task]:
    """Every two steps, dealt out to the splits at random."""
    numbers = range(2, 16)
    pairs = list(itertools.product(itertools.product(("add", "subtract"), numbers), numbers))
    order = generator(0, "parentheses").permutation(len(pairs))
    sizes: dict[Split, int] = {"train": 260, "eval": 132}
    splits = [split for split, size in sizes.items() for _ in range(size)]
    chosen = (pairs[i] for i in order)
    return [make_task(name, a, b, split) for ((name, a), b), split in zip(chosen, splits, strict=True)]


def make_task(name: str, a: int, b: int, split: Split) -> Task:
    """The task of two steps; its tests are what Python makes of the right formula."""
    inner = f"(x {SIGNS[name]} {a}) * {b}"
    cases = [{"args": [x], "expected": eval(inner, {"x": x})} for x in (0, 1, 5, -4)]
    return Task(
        id=f"{name}-{a}-times-{b}",
        prompt=f"Write f(x): {name} {a}, times {b}.",
        answer=f"def f(x):\n    return {inner}",
        info={"entry": "f", "tests": {"kind": "cases", "entry": "f", "cases": cases}},
        split=split,
        cluster=f"{name}-{a}",
    )


def logged(task: Task, number: int) -> dict[str, object]:
    """What somebody wrote: three in four without the parentheses."""
    text = task.answer if number % 4 == 0 else task.answer.replace("(x ", "x ").replace(") ", " ")
    return {"messages": [*task.messages(), {"role": "assistant", "content": text}]}


def run(config: str) -> RunOutcome:
    """Train as `vertigym train` does."""
    settings = load(RunConfig, HERE / config, [f"output={OUT}"])
    if settings.eval:  # the suite beside this script, wherever it is run from
        settings = load(RunConfig, HERE / config, [f"output={OUT}", f'eval.suites=["{HERE / "suite.toml"}"]'])
    with watched(settings.steps) as progress:
        return train(settings, progress=progress)


if __name__ == "__main__":
    sys.exit(main())
