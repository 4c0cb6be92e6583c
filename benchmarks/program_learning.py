"""What a program of others gains on tasks that nobody has seen: a raw httpx script, trained by GRPO, three
seeds.

    python -m benchmarks.program_learning

The script (`tests/foreign_programs.py`) asks which desk a mail belongs to, asks whether that is sure, and
prints the second answer. A tiny model has imitated a log in which most mails about warranty went to another
desk. Half of the mails are for training; the other half is played before and after, and the runs are compared
task by task.
"""

import argparse
import random
import tempfile
from itertools import product
from pathlib import Path
from typing import Any

import torch

from tests.foreign_programs import HTTPX
from tests.programs import program
from vertigym.core.config import parse
from vertigym.core.files import write_jsonl
from vertigym.evals.compare import compare
from vertigym.evals.runner import run_suite
from vertigym.evals.suite import load_suite
from vertigym.policies.load import load_policy
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

ITEMS = ("drill", "saw", "hammer", "plane", "chisel", "bulb", "lantern", "torch", "spotlight", "chandelier")
MAILS = {
    "warranty": ("my {} stopped working", "the {} broke after a week", "this {} does not start"),
    "returns": ("I do not want the {}", "take the {} back please", "the {} is the wrong one"),
    "sales": ("how much is a {}", "do you have a {}", "I would like to buy a {}"),
}


def main() -> None:
    """A warm start and a training for each seed, and how both do on unseen mails."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    torch.set_num_threads(1)
    for seed in range(options.seeds):
        with tempfile.TemporaryDirectory() as folder:
            print(f"seed {seed}: {gained(Path(folder), seed, options.steps)}", flush=True)


def gained(folder: Path, seed: int, steps: int) -> str:
    """The verdict on unseen mails."""
    draw = random.Random(seed)
    rows = [
        {"question": f"{mail.format(item)}. Which desk: {', '.join(MAILS)}?", "answer": desk}
        for desk, mails in MAILS.items()
        for mail, item in product(mails, ITEMS)
    ]
    draw.shuffle(rows)
    env = program(
        folder / "env",
        HTTPX,
        tasks=rows[::2],
        reward={"name": "normalised_text"},
        files={"train": "train.jsonl", "eval": "eval.jsonl"},
        timeout_s=120.0,
    )
    write_jsonl(folder / "env" / "eval.jsonl", rows[1::2])
    write_jsonl(folder / "log.jsonl", (remembered(row, draw) for row in rows[::2] * 40))
    shared = {"env": env, "threads": 1, "output": str(folder), "seed": seed}
    warm = run(
        shared
        | {"name": "warm", "model": "tiny", "algorithm": "sft", "steps": 60}
        | {"sft": {"data": str(folder / "log.jsonl"), "batch": 32}, "optimizer": {"lr": 3e-3}}
    )
    tuned = run(
        shared
        | {"name": "tuned", "model": str(warm), "algorithm": "grpo", "steps": steps}
        | {"rollout": {"tasks": 6, "group_size": 6, "max_tokens": 8}, "optimizer": {"lr": 5e-4}}
    )
    (folder / "suite.toml").write_text(
        f'name = "mails"\n[[env]]\nid = "{env}"\nsplit = "eval"\nsamples = 2\n[sampling]\nmax_tokens = 8\n'
    )
    suite = load_suite(folder / "suite.toml")
    reports = [run_suite(suite, load_policy(one), model=str(one)) for one in (warm, tuned)]
    return compare(reports)[0].verdict


def remembered(row: dict[str, Any], draw: random.Random) -> dict[str, Any]:
    """The script's chat on a mail, as the desk answered when returns still took most warranties."""
    old = row["answer"] == "warranty" and draw.random() < 0.7
    desk = "returns" if old else row["answer"]
    said = [row["question"], desk, "Are you sure?", desk]
    return {
        "messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)]
    }


def run(table: dict[str, Any]) -> Path:
    """The last checkpoint of a run."""
    return train(parse(RunConfig, table, source="benchmark")).last


if __name__ == "__main__":
    main()
