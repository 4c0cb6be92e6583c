"""The curriculum against uniform sampling: same start, same steps, tasks of which some are rare or hard.

    python benchmarks/curriculum.py

Twelve rules, each with an answer of its own: four common ones (15% of the training tasks each), four rare ones
(3% each), and four hard ones (7% each), whose answer has two words, so that a guess is right once in 64 times
instead of once in 8. The start has imitated logs in which six words in ten are drawn at random. Every seed
makes the tasks, the start and the run anew, and both ways start from the same weights.

Decided before anything was compared: `rollout.curriculum` with its defaults; what counts is the success of the
last weights, sampled as in training, on held-out tasks, each rule weighing the same; then the worst rule. The
number of steps and the logs were set by runs with uniform sampling alone (`--uniform-only --seeds 100 101`), so
that it learns and leaves room.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import torch
from scipy import stats

from vertigym.core.config import parse
from vertigym.core.files import write_jsonl
from vertigym.core.seeds import generator
from vertigym.core.types import Sampling, Split, Task
from vertigym.envs import SingleTurnEnv
from vertigym.envs.tasks import TaskSet
from vertigym.policies.load import load_policy
from vertigym.rewards.rubric import Rubric
from vertigym.rollouts.rollout import Episode, rollout
from vertigym.trainer.config import RunConfig
from vertigym.trainer.loop import train

WORDS = ("red", "blue", "green", "pink", "grey", "black", "white", "brown")
KINDS = {"common": (0.15, 1), "rare": (0.03, 1), "hard": (0.07, 2)}  # share of the tasks a rule, words to say
RULES = tuple(f"{kind} {name}" for kind in KINDS for name in ("box", "jar", "tin", "bag"))
DETAILS = "ash elm fir oak yew bay fig gum ivy nut pea rye sea tea wax"
TRAIN, HELD_OUT, SAMPLES = 600, 20, 8  # tasks in all; held-out tasks a rule; samples of each
RIGHT = 0.4  # share of the words in the logs that are not drawn
SIZE = {"hidden": 32, "layers": 1, "heads": 2, "key_heads": 2, "ffn": 48}


def tasks(seed: int) -> list[Task]:
    """A seed's tasks: which rule says what is drawn anew."""
    rng = generator(seed, "curriculum benchmark")
    says = {rule: " ".join(WORDS[i] for i in rng.integers(8, size=KINDS[rule.split()[0]][1])) for rule in RULES}
    shares = [KINDS[rule.split()[0]][0] for rule in RULES]
    train_rules = [RULES[i] for i in rng.choice(len(RULES), TRAIN, p=shares)]
    pairs = [f"{one} {other}" for one in DETAILS.split() for other in DETAILS.split()]
    order = [pairs[i] for i in rng.permutation(len(pairs))]
    seen, unseen = order[HELD_OUT:], order[:HELD_OUT]
    named: list[tuple[Split, str, str]] = [
        ("train", rule, seen[rng.integers(len(seen))]) for rule in train_rules
    ]
    named += [("eval", rule, detail) for rule in RULES for detail in unseen]
    return [
        Task(
            id=f"{split}-{i}",
            prompt=f"{rule} {detail}",
            answer=says[rule],
            info={"rules": [rule]},
            split=split,
        )
        for i, (split, rule, detail) in enumerate(named)
    ]


def load_environment(seed: int) -> SingleTurnEnv:
    """What the registry calls."""
    return SingleTurnEnv(TaskSet(tasks(seed)), Rubric(exact))


def exact(completion: str, answer: str) -> float:
    """The reward."""
    return float(completion.strip() == answer)


def run(**table: Any) -> Path:
    """The last checkpoint of a run."""
    return train(parse(RunConfig, {"threads": 1, **table}, source="benchmark")).last


def start(seed: int, folder: Path) -> Path:
    """A model that answers in the right form, and knows little."""
    rng = generator(seed, "logs")
    rows = []
    for task in (task for task in tasks(seed) if task.split == "train"):
        guess = " ".join(w if rng.random() < RIGHT else WORDS[rng.integers(8)] for w in task.answer.split())
        rows.append({"messages": [*task.messages(), {"role": "assistant", "content": guess}]})
    write_jsonl(folder / "logs.jsonl", rows)
    return run(
        env=f"curriculum?seed={seed}", name="start", model="tiny", tiny=SIZE, algorithm="sft", steps=200,
        seed=seed, output=str(folder), sft={"data": str(folder / "logs.jsonl")}, optimizer={"lr": 1e-2},
    )  # fmt: skip


def tuned(seed: int, steps: int, model: Path, folder: Path, curriculum: bool) -> Path:
    """GRPO from the start."""
    rows = {"tasks": 8, "group_size": 8, "max_tokens": 4, "save_every": 0}
    return run(
        env=f"curriculum?seed={seed}", name="curriculum" if curriculum else "uniform", model=str(model),
        algorithm="grpo", steps=steps, seed=seed, output=str(folder), optimizer={"lr": 1e-3},
        policy={"entropy": 0.02}, rollout=rows | ({"curriculum": {}} if curriculum else {}),
    )  # fmt: skip


def success(seed: int, model: Path) -> dict[str, float]:
    """Success on the held-out tasks, by rule."""
    env = load_environment(seed)
    held_out = [env.tasks.get(i) for i in env.tasks.ids("eval")]
    episodes = [Episode(task, 1000 * i + n) for i, task in enumerate(held_out) for n in range(SAMPLES)]
    played = rollout(load_policy(model), env, episodes, Sampling(temperature=1.0, max_tokens=4))
    rule_of = {task.id: task.info["rules"][0] for task in held_out}
    return {
        rule: fmean(t.score.value or 0.0 for t in played if rule_of[t.task_id] == rule)
        for rule in rule_of.values()
    }


def summary(found: dict[str, float]) -> dict[str, float]:
    """The mean over rules, the worst rule, and the mean of each kind."""
    kinds = {kind: fmean(v for rule, v in found.items() if rule.startswith(kind)) for kind in KINDS}
    return {"all rules": fmean(found.values()), "worst rule": min(found.values()), **kinds}


def interval(values: Sequence[float]) -> str:
    """A mean and its 95% t interval over the seeds."""
    middle = fmean(values)
    if len(values) < 2:
        return f"{middle:+.3f}"
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stdev(values) / len(values) ** 0.5
    return f"{middle:+.3f} [{middle - half:+.3f}, {middle + half:+.3f}]"


def main() -> None:
    """Print a line a seed, and the differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(8)))
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--uniform-only", action="store_true", help="to choose the number of steps")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    ways = [False] if arguments.uniform_only else [False, True]
    found: dict[bool, list[dict[str, float]]] = {way: [] for way in ways}
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            model = start(seed, Path(scratch))
            for way in ways:
                last = tuned(seed, arguments.steps, model, Path(scratch), way)
                found[way].append(summary(success(seed, last)))
                said = "  ".join(f"{name} {value:.3f}" for name, value in found[way][-1].items())
                print(f"seed {seed}  {'curriculum' if way else 'uniform   '}  {said}", flush=True)
    for name in found[False][0]:
        values = {way: [row[name] for row in found[way]] for way in ways}
        means = (f"{'curriculum' if way else 'uniform'} {fmean(values[way]):.3f}" for way in ways)
        print(f"{name:11}", *means, sep="  ")
        if len(ways) > 1:
            gained = [b - a for a, b in zip(values[False], values[True], strict=True)]
            print(f"{'':11}  difference {interval(gained)}")


if __name__ == "__main__":
    main()
