"""A game of textarena, by the taskset that verifiers ships: a tiny model imitates single letters, then GRPO.

    python benchmarks/verifiers_game.py VENV/bin/python [--steps 12]

The Python named has verifiers 0.4, textarena and nltk with its corpus `words`. Printed are the mean reward of
the first four steps and of the last four, how many games were played, and how many were not scored.
"""

import argparse
import random
import string
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

TASKS, GROUP = 8, 8


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("python")
    parser.add_argument("--steps", type=int, default=12)
    given = parser.parse_args()
    env = f"verifiers:textarena?python={given.python}&game=Hangman-v0&tasks=40&eval_share=0.2&test_share=0.2"
    tasks, dice = envs.make(env).tasks, random.Random(0)
    ids = tasks.ids("train")
    rows = []
    for _ in range(400):
        opening, letter = tasks.get(dice.choice(ids)).messages(), dice.choice(string.ascii_lowercase)
        rows.append({"messages": [*opening, {"role": "assistant", "content": f"[{letter}]"}]})
    with tempfile.TemporaryDirectory() as folder:
        write_jsonl(Path(folder) / "rows.jsonl", rows)

        def run(name: str, **table: Any) -> Any:
            about = {"name": name, "env": env, "output": folder, "threads": 1}
            return train(parse(RunConfig, about | table, source="benchmark"))

        warm = run(
            "warm", model="tiny", tiny={"hidden": 64, "layers": 2, "context": 4096}, algorithm="sft", steps=60,
            sft={"data": f"{folder}/rows.jsonl", "batch": 16}, optimizer={"lr": 4e-3, "schedule": "cosine"},
        )  # fmt: skip
        done = run(
            "rl", model=str(warm.last), algorithm="grpo", steps=given.steps, optimizer={"lr": 1e-3},
            rollout={"tasks": TASKS, "group_size": GROUP, "max_tokens": 6},
        )  # fmt: skip
        steps = read_jsonl(done.run.folder / "metrics.jsonl")
    reward = [step["reward"] for step in steps]
    unscored = sum(step["unscored"] for step in steps) * TASKS * GROUP
    print(
        f"reward {fmean(reward[:4]):.3f}, then {fmean(reward[-4:]):.3f}; {len(steps) * TASKS * GROUP} games, "
        f"{unscored:g} not scored"
    )


if __name__ == "__main__":
    main()
