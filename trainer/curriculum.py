"""A curriculum: tasks are drawn by what the policy can still learn from their rules, not all alike.

Each task carries labels: the rules it needs (`info["rules"]`, else its cluster) and its difficulty (`info`,
else the number of its rules). A label's accuracy is a moving average of the policy's scores on its tasks; where
that is p, a sample's reward has variance p (1 - p), which is what a group's gradient lives on. A label weighs

    1 / bound + (bound - 1 / bound) · 4 p (1 - p)        bound where p = ½, or nothing is known yet

and a task the mean of its labels' weights, brought to mean 1 over all tasks and kept within [1 / bound, bound],
so that no task ever weighs more than bound² times as much as another. A step draws no task twice.

What is drawn follows from the seed, the step and the accuracies, which are part of a checkpoint.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from vertigym.core.config import Config
from vertigym.core.files import read_json, write_json
from vertigym.core.seeds import generator
from vertigym.core.types import Task, Trajectory

FILE = "accuracies.json"


class CurriculumConfig(Config):
    """How strongly accuracy steers what is sampled."""

    bound: float = Field(
        3.0, ge=1, description="no task is drawn more than so many times as often as on average"
    )
    memory: float = Field(0.8, ge=0, lt=1, description="share of the old accuracy kept at each step")


class Curriculum:
    """Draws a step's tasks, and learns from their scores."""

    def __init__(self, tasks: Sequence[Task], config: CurriculumConfig, *, seed: int) -> None:
        self._ids = [task.id for task in tasks]
        self._labels = {task.id: labels(task) for task in tasks}
        self._config, self._seed = config, seed
        self._accuracy: dict[str, float] = {}

    def draw(self, count: int, *path: int) -> list[str]:
        """`count` task ids, all different as long as there are as many; `path` names the draw."""
        weights = self.weights()
        rng = generator(self._seed, "curriculum", *path)
        drawn: list[str] = []
        while len(drawn) < count:  # exponential races: the first to finish are a weighted draw
            finish = rng.exponential(size=len(self._ids)) / weights
            drawn += [self._ids[i] for i in np.argsort(finish, kind="stable")[: count - len(drawn)]]
        return drawn

    def learn(self, trajectories: Sequence[Trajectory]) -> None:
        """Take a step's scores into account; episodes that could not be scored are left out."""
        scores: dict[str, list[float]] = defaultdict(list)
        for trajectory in trajectories:
            if trajectory.score.value is not None:
                for label in self._labels[trajectory.task_id]:
                    scores[label].append(min(max(trajectory.score.value, 0.0), 1.0))
        keep = self._config.memory
        for label, values in scores.items():
            old = self._accuracy.get(label)
            self._accuracy[label] = fmean(values) if old is None else keep * old + (1 - keep) * fmean(values)

    def weights(self) -> NDArray[np.float64]:
        """One a task: mean 1 before it is cut to the bounds."""
        raw = np.array([fmean(self._weight(name) for name in self._labels[i]) for i in self._ids])
        bounded: NDArray[np.float64] = np.clip(raw / raw.mean(), 1 / self._config.bound, self._config.bound)
        return bounded

    def metrics(self) -> dict[str, float]:
        """Accuracy and weight by label, and the range of the tasks' weights."""
        weights = self.weights()
        found = {"curriculum/least": float(weights.min()), "curriculum/most": float(weights.max())}
        for label, accuracy in sorted(self._accuracy.items()):
            found[f"curriculum/accuracy/{label}"] = accuracy
            found[f"curriculum/weight/{label}"] = self._weight(label)
        return found

    def save_state(self, folder: Path) -> None:
        """Write the accuracies."""
        write_json(folder / FILE, self._accuracy)

    def load_state(self, folder: Path) -> None:
        """Take over what `save_state` wrote."""
        self._accuracy = dict(read_json(folder / FILE))

    def _weight(self, label: str) -> float:
        low, p = 1 / self._config.bound, self._accuracy.get(label, 0.5)
        return low + (self._config.bound - low) * 4 * p * (1 - p)


def labels(task: Task) -> tuple[str, ...]:
    """The rules a task needs, and its difficulty."""
    info: Mapping[str, object] = task.info
    rules = info.get("rules")
    names = [str(rule) for rule in rules] if isinstance(rules, Sequence) and not isinstance(rules, str) else []
    difficulty = info.get("difficulty", len(names) or None)
    named = names or ([task.cluster] if task.cluster else [])
    return tuple(named + ([f"difficulty {difficulty}"] if difficulty is not None else [])) or ("all",)
