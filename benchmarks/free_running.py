"""Episodes of many turns with slow tools: the rollout loop beside play in lock-step, with the same engine.

    python -m benchmarks.free_running

Each task has 5 to 10 turns; a tool answers after 50 ms. In lock-step all episodes generate, then all step, and
earlier turns are read again. The two take turns, and the best of some rounds counts. One thread, float32.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from vertigym.core.types import Message, Policy, Sampling, Score, Task, Trajectory
from vertigym.envs import Env, TaskSet, Turn
from vertigym.policies import tiny
from vertigym.policies.transformers_engine import TransformersEngine
from vertigym.rollouts.rollout import Episode, rollout

TEXT = "approve or reject the return of 40 items, tier gold, days 12"


class SlowTool(Env):
    """A tool that answers after a while; how many turns an episode has follows from its task."""

    max_turns = 10

    def __init__(self, tasks: TaskSet, seconds: float, side_by_side: int) -> None:
        super().__init__(tasks)
        self.seconds, self.parallel_steps, self.turns = seconds, side_by_side, 0

    def begin(self, task: Task) -> Sequence[Message]:
        """The task's prompt."""
        self.turns = int(task.answer)
        return task.messages()

    def respond(self, action: str) -> Turn:
        """Wait, then answer; the last turn ends the episode."""
        time.sleep(self.seconds)
        self.turns -= 1
        if not self.turns:
            return Turn(score=Score(float("e" in action)))
        return Turn(messages=[{"role": "user", "content": "40 items, days 12: approve"}])


class LockStep:
    """An engine of which nothing is known but `generate`."""

    def __init__(self, engine: TransformersEngine) -> None:
        self.renderer, self.generate = engine.renderer, engine.generate


def play(
    policy: Policy, env: SlowTool, episodes: Sequence[Episode], batch: int
) -> tuple[float, list[Trajectory]]:
    """Seconds, and what was played."""
    began = time.perf_counter()
    played = rollout(policy, env, episodes, Sampling(max_tokens=32), batch=batch)
    return time.perf_counter() - began, played


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=16)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--tool-ms", type=float, default=50)
    parser.add_argument("--side-by-side", type=int, default=8, help="tools that work at one time")
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp()) / "model"
    tiny.build([TEXT] * 3, folder, size=tiny.TinySize())
    engine = TransformersEngine.load(folder)
    tasks = [Task(id=f"t{n}", prompt=f"{TEXT}, {n}", answer=str(5 + n % 6)) for n in range(args.tasks)]
    env = SlowTool(TaskSet(tasks), args.tool_ms / 1000, args.side_by_side)
    policies: dict[str, Policy] = {"lock-step": LockStep(engine), "the engine": engine}
    best: dict[str, float] = {}
    tokens = dict[str, int]()
    for number in range(args.rounds + 1):  # the first warms up
        episodes = [
            Episode(t, seed=1000 * number + 8 * n + i) for n, t in enumerate(tasks) for i in range(args.group)
        ]
        for name, policy in policies.items():
            seconds, played = play(policy, env, episodes if number else episodes[::16], args.batch)
            sampled = sum(one.completion_tokens for one in played)
            if number and sampled / seconds > best.get(name, 0.0):
                best[name], tokens[name] = sampled / seconds, sampled
    print(f"{args.tasks} tasks x {args.group} samples, {args.batch} at once, tools of {args.tool_ms:g} ms")
    for name, speed in best.items():
        print(f"{name:12} {speed:8.0f} tokens a second ({tokens[name]} tokens)")
    print(f"times as fast: {best['the engine'] / best['lock-step']:.2f}")


if __name__ == "__main__":
    main()
