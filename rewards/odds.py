"""Fair odds: an answer given regardless of the task earns nothing on average.

A guesser who always gives the same answer earns what it is worth on the tasks where it is right. So where it is
wrong, it costs as much as it earns elsewhere, spread over the tasks that do not pay for it: an answer that is
right on a share p of the tasks and earns 1 there costs p / (1 - p) elsewhere. The right answer still earns 1,
an answer nobody waits for still nothing, and the answer of most use to a guesser is the dearest mistake. These
are the bookmaker's odds behind informedness (Powers 2011, "Evaluation: from precision, recall and F-measure to
ROC, informedness, markedness and correlation"). Each split has its own: its answers have their own shares.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from vertigym.core.types import Split, Task


class Odds:
    """What a wrong answer costs.

    `paid` says what each answer that earns anything on a task earns there; without tasks nothing costs.
    """

    def __init__(
        self, tasks: Iterable[Task] = (), paid: Callable[[Task], Mapping[str, float]] = lambda task: {}
    ) -> None:
        self._splits: defaultdict[Split, _Tally] = defaultdict(_Tally)
        for task in tasks:
            self._splits[task.split].add(paid(task))

    def loss(self, answer: str, task: Task) -> float:
        """What `answer` costs on a task that does not pay for it, 0 to 1. Fair where it is right on half of the
        split's tasks or fewer; beyond that it would have to cost more than the best answer earns."""
        return self._splits[task.split].loss(answer)


@dataclass(slots=True)
class _Tally:
    """The answers of one split: how many tasks there are, and what each answer earns on how many of them."""

    tasks: int = 0
    earned: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    paying: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, paid: Mapping[str, float]) -> None:
        self.tasks += 1
        for answer, value in paid.items():
            self.earned[answer] += value
            self.paying[answer] += 1

    def loss(self, answer: str) -> float:
        if answer not in self.paying:
            return 0.0
        others = self.tasks - self.paying[answer]
        return min(1.0, self.earned[answer] / others) if others else 1.0
