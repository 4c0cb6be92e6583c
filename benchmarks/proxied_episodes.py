"""Tokens a second of episodes that a program plays over HTTP, beside the same chats in the built-in loop.

    python -m benchmarks.proxied_episodes

A raw script asks 5 to 10 times, each time with all that was said; the environment beside it says the same words
and has no tool to wait for. One engine, one thread, float32; the two take turns, and the best round counts.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.free_running import TEXT, SlowTool
from tests.programs import BY_HAND, program
from vertigym import envs
from vertigym.core.types import Sampling, Task
from vertigym.envs import TaskSet
from vertigym.policies import tiny
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rollouts.rollout import Episode, rollout

SCRIPT = (
    BY_HAND
    + """
chat = [question]
for turn in range(task["turns"]):
    chat += [said(chat), {"role": "user", "content": "40 items, days 12: approve"}]
print(chat[-2]["content"])
"""
)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--group", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp())
    tiny.build([TEXT] * 3, folder / "model", size=tiny.TinySize())
    engine = TransformersEngine.load(folder / "model")
    rows = [
        {"id": f"t{n}", "question": f"{TEXT}, {n}", "answer": "", "turns": 5 + n % 6} for n in range(args.tasks)
    ]
    proxied = program(
        folder / "e", SCRIPT, tasks=rows, shown=["turns"], parallel=args.tasks * args.group, timeout_s=600.0
    )
    tasks = [Task(id=row["id"], prompt=row["question"], answer=str(row["turns"])) for row in rows]
    played = {"built-in": SlowTool(TaskSet(tasks), 0.0, 8), "proxied": envs.make(proxied)}
    best = dict.fromkeys(played, 0.0)
    for number in range(args.rounds):
        episodes = [
            Episode(t.id, 100 * number + 8 * n + i) for n, t in enumerate(tasks) for i in range(args.group)
        ]
        for name, env in played.items():
            began = time.perf_counter()
            done = rollout(engine, env, episodes, Sampling(max_tokens=32))
            assert all(one.score.value is not None for one in done), done[0].score
            speed = sum(one.completion_tokens for one in done) / (time.perf_counter() - began)
            best[name] = max(best[name], speed)
    for name, speed in best.items():
        print(f"{name:10} {speed:8.0f} tokens a second")
    print(f"share: {best['proxied'] / best['built-in']:.2f}")


if __name__ == "__main__":
    main()
