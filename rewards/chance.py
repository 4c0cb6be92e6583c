"""Chance-corrected reward: an answer given regardless of the task earns nothing on average.

A guesser who always gives the same answer earns its reward on the tasks where it is right. So where it is wrong
it is penalised by as much as it earns elsewhere, spread over the tasks that do not reward it: an answer that is
right on a share p of the tasks and earns 1 there costs p / (1 - p) elsewhere. The right answer still earns 1,
an answer that is right nowhere still nothing, and the answer of most use to a guesser is the dearest mistake.
This is the correction behind informedness (Powers 2011, "Evaluation: from precision, recall and F-measure to
ROC, informedness, markedness and correlation"). Each split has its own: its answers have their own shares.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from vertigym.core.types import Split, Task


class ChanceCorrection:
    """What a wrong answer costs.

    `rewards` says what each answer that earns anything on a task earns there; without tasks nothing costs.
    """

    def __init__(
        self, tasks: Iterable[Task] = (), rewards: Callable[[Task], Mapping[str, float]] = lambda task: {}
    ) -> None:
        self._splits: defaultdict[Split, _AnswerCounts] = defaultdict(_AnswerCounts)
        for task in tasks:
            self._splits[task.split].add(rewards(task))

    def penalty(self, answer: str, task: Task) -> float:
        """What `answer` costs on a task that does not reward it, 0 to 1. The correction is exact where it is
        right on half of the split's tasks or fewer; beyond that it would have to cost more than the best answer
        earns."""
        return self._splits[task.split].penalty(answer)


@dataclass(slots=True)
class _AnswerCounts:
    """The answers of one split: how many tasks there are, and what each answer earns on how many of them."""

    tasks: int = 0
    earned: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    rewarded: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, rewards: Mapping[str, float]) -> None:
        self.tasks += 1
        for answer, value in rewards.items():
            self.earned[answer] += value
            self.rewarded[answer] += 1

    def penalty(self, answer: str) -> float:
        if answer not in self.rewarded:
            return 0.0
        others = self.tasks - self.rewarded[answer]
        return min(1.0, self.earned[answer] / others) if others else 1.0
