"""What samples of older weights do to GRPO, with and without the correction of the sampler.

    python benchmarks/staleness.py [--seeds 20 21 22 23 24 25] [--staleness 4 8] [--lr 5e-4] [--steps 500]

A task of seconds: which of four words belongs to each of twelve places. The start, a tiny model imitating logs
that say any of them, is right one time in four. Each seed trains on policy, and for each staleness twice on
samples that many steps old: weighted by the token-level ratio of trainer to sampler, truncated at 2, and then
not weighted. Everything else is equal. Reported are the mean reward over the whole run (how fast it was)
and over the last ten steps (where it came to), and paired differences over seeds with their 95% t-intervals.

Fixed before their seeds were looked at: these settings for 4 and 8 steps; for one step `--staleness 1 --lr
2e-3 --steps 200`, with seeds 20 to 29, and then again with seeds 30 to 49 by themselves. Corrected samples
reach on policy if the difference of the last ten steps is neither below 0 by its interval nor by more than
0.03 itself; uncorrected ones are worse if the interval of the difference over the run lies below 0.
"""

import argparse
import json
import tempfile
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from scipy.stats import t as student

from vertigym import envs
from vertigym.core.config import parse
from vertigym.core.files import read_jsonl, write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import Task
from vertigym.envs.tasks import TaskSet
from vertigym.rewards.rubric import Rubric
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import RunOutcome, train

ENV = "benchmark/Places-v0"
WORDS = ("red", "blue", "green", "pink")
PLACES = tuple(
    f"shelf {side} {row}" for side in ("left", "middle", "right") for row in ("top", "low", "back", "front")
)
TINY = {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}
ON_POLICY = (0, "on policy")
POLICY: dict[str, dict[str, Any]] = {
    "on policy": {},
    "corrected": {"ratio_to": "trainer", "correction": "token"},
    "not corrected": {"ratio_to": "trainer"},
}


def exact(completion: str, answer: str) -> float:
    """The one right word."""
    return float(completion == answer)


def places() -> envs.Env:
    """Twelve places, each with its word."""
    tasks = [Task(id=place, prompt=place, answer=WORDS[i * 3 % 4]) for i, place in enumerate(PLACES)]
    return envs.SingleTurnEnv(TaskSet(tasks), Rubric(exact))


def run(folder: Path, seed: int, **table: Any) -> RunOutcome:
    """Train as `vertigym train` does."""
    about = {"env": ENV, "seed": seed, "output": str(folder), "threads": 1}
    return train(parse(RunConfig, about | table, source="benchmark"))


def warm_start(folder: Path, seed: int) -> Path:
    """A model that says any of the words."""
    dice = generator(seed, "logs")
    rows = [
        [
            {"role": "user", "content": PLACES[dice.integers(len(PLACES))]},
            {"role": "assistant", "content": WORDS[dice.integers(len(WORDS))]},
        ]
        for _ in range(400)
    ]
    write_jsonl(folder / "logs.jsonl", ({"messages": messages} for messages in rows))
    return run(
        folder, seed, name="start", model="tiny", tiny=TINY, algorithm="sft", steps=30,
        sft={"data": str(folder / "logs.jsonl")}, optimizer={"lr": 1e-2},
    ).last  # fmt: skip


def rewards(
    folder: Path, seed: int, start: Path, staleness: int, way: str, *, steps: int = 500, lr: float = 5e-4
) -> list[float]:
    """The reward of each step of one run."""
    rollout = {"tasks": 12, "group_size": 12, "max_tokens": 2, "staleness": staleness, "save_every": 0}
    done = run(
        folder, seed, name=f"{staleness} {way}".replace(" ", "-"), model=str(start), algorithm="grpo",
        steps=steps, rollout=rollout, policy=POLICY[way], optimizer={"lr": lr},
    )  # fmt: skip
    return [row["reward"] for row in read_jsonl(done.run.folder / "metrics.jsonl")]


def difference(ours: list[float], theirs: list[float]) -> str:
    """The paired difference with its 95% interval (Student's t)."""
    gaps = torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64)
    half = float(student.ppf(0.975, len(gaps) - 1)) * float(gaps.std()) / len(gaps) ** 0.5
    return f"{float(gaps.mean()):+.3f} [{float(gaps.mean()) - half:+.3f}, {float(gaps.mean()) + half:+.3f}]"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[20, 21, 22, 23, 24, 25])
    parser.add_argument("--staleness", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--lr", type=float, default=5e-4)
    options = parser.parse_args()
    torch.set_num_threads(1)
    envs.register(ENV, places)
    arms = [ON_POLICY, *((k, way) for k in options.staleness for way in ("corrected", "not corrected"))]
    found: dict[tuple[int, str], list[tuple[float, float]]] = {arm: [] for arm in arms}
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            start = warm_start(Path(folder), seed)
            for arm in arms:
                curve = rewards(Path(folder), seed, start, *arm, steps=options.steps, lr=options.lr)
                found[arm].append((fmean(curve), fmean(curve[-10:])))
                print(json.dumps({"seed": seed, "staleness": arm[0], "way": arm[1], "both": found[arm][-1]}))
    for name, at in (("mean over the run", 0), ("last ten steps", 1)):
        print(f"\n| {name} | mean of {len(options.seeds)} seeds | less on policy | corrected less not |")
        print("|---|---|---|---|")
        values = {arm: [pair[at] for pair in pairs] for arm, pairs in found.items()}
        for arm, ours in values.items():
            apart = difference(ours, values[ON_POLICY]) if arm != ON_POLICY else ""
            gain = ""
            if arm[1] == "corrected":
                gain = difference(ours, values[arm[0], "not corrected"])
            age = f"{arm[0]} steps old, {arm[1]}" if arm[0] else arm[1]
            print(f"| {age} | {fmean(ours):.3f} | {apart} | {gain} |")


if __name__ == "__main__":
    main()
