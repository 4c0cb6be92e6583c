"""The starting model of a run with adapters: the model in training, with its adapters switched off.

The one idea: adapters leave the weights that they were put into alone, so there is no need of a second model.
"""

from collections.abc import Sequence

from vertigym.learner.learner import Learner
from vertigym.learner.samples import TrainingSample
from vertigym.policies.lora import without_adapters


class AdaptersOff:
    """What `learner`'s model was before it was trained. Its time is counted by the learner's own clock."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def score(self, samples: Sequence[TrainingSample]) -> list[list[float]]:
        """As `Learner.score`."""
        with without_adapters(self._learner.model):
            return self._learner.score(samples)
