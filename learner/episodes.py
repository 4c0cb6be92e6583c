"""Episodes as training data: which tokens the policy wrote, and what each of them earned.

The reward of an episode comes with its last token; with `turn_rewards`, that of an earlier turn comes with the
turn's last token. Tokens of the prompt and of observations are no part of this: they are neither trained nor
paid. An episode has several samples where the chat template broke the prefix of its tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from vertigym.core.errors import RunError
from vertigym.core.types import Score, Trajectory
from vertigym.learner.advantages import overlong
from vertigym.learner.batch import Sample
from vertigym.learner.config import PolicyConfig
from vertigym.learner.objective import Earned


@dataclass(slots=True)
class Played:
    """A scored episode with at least one trained token. `index` is its place in the step, `group` its task's;
    `rewards` has a number a trained token, `parts` those of the score that gdpo weighs."""

    index: int
    group: int
    samples: list[Sample]
    rewards: list[float]
    parts: list[float]

    @property
    def trained(self) -> int:
        """How many tokens carry a loss."""
        return sum(sample.trained for sample in self.samples)


def played(
    trajectory: Trajectory, score: Score, config: PolicyConfig, *, index: int, group: int, max_tokens: int
) -> Played | None:
    """The episode, or None where it was not scored or the policy wrote nothing: it then enters no baseline and
    no loss.

    Raises:
        RunError: gdpo weighs a part that the score does not have.
    """
    samples = [
        Sample(
            segment.token_ids,
            segment.loss_mask,
            {"sampler_logp": [p for p, m in zip(segment.logprobs, segment.loss_mask, strict=True) if m]},
        )
        for segment in trajectory.segments
    ]
    if score.value is None or not samples:
        return None
    ends = list(turn_ends(samples))
    rewards = [0.0] * (ends[-1] + 1)
    rewards[-1] = score.value
    if config.turn_rewards:
        for turn, reward in enumerate(trajectory.turn_rewards[:-1]):
            rewards[ends[min(turn, len(ends) - 1)]] += reward
    if config.overlong:
        starts = [0, *(end + 1 for end in ends[:-1])]
        longest = max(end + 1 - start for start, end in zip(starts, ends, strict=True))
        rewards[-1] += float(overlong(torch.tensor(longest), limit=max_tokens, buffer=config.overlong))
    return Played(index, group, samples, rewards, _parts(score, config.parts))


def turn_ends(samples: Iterable[Sample]) -> Iterator[int]:
    """Where turns end: indices among the trained tokens of an episode. What the environment says always stands
    between two turns."""
    count = 0
    for sample in samples:
        for here, following in zip(sample.loss_mask, [*sample.loss_mask[1:], 0], strict=True):
            count += here
            if here and not following:
                yield count - 1


def _parts(score: Score, names: Iterable[str]) -> list[float]:
    """A part that a closed gate left out counts 0."""
    found = {name: score.parts.get(name, 0.0) for name in names}
    if found and not found.keys() & score.parts.keys():
        raise RunError(
            f"policy.parts names {', '.join(found)}, but the score has {', '.join(score.parts) or 'no parts'}"
        )
    return list(found.values())


def earned(plays: Sequence[Played], groups: Sequence[int]) -> Earned:
    """What `token_advantages` needs; `groups` gives each episode's number, 0 … G-1."""
    lengths = torch.tensor([play.trained for play in plays])
    scored = any(play.parts for play in plays)
    valued = bool(plays) and "old_value" in plays[0].samples[0].columns
    return Earned(
        rewards_T=torch.tensor([r for play in plays for r in play.rewards], dtype=torch.float64),
        sequences_T=torch.arange(len(plays)).repeat_interleave(lengths),
        groups_N=torch.tensor(groups),
        parts_NK=torch.tensor([p.parts for p in plays], dtype=torch.float64) if scored else None,
        values_T=column(plays, "old_value") if valued else None,
    )


def samples_of(plays: Iterable[Played]) -> list[Sample]:
    """Every sample, in order."""
    return list(chain.from_iterable(play.samples for play in plays))


def column(plays: Iterable[Played], name: str) -> Tensor:
    """`[T]` float64, a column of every trained token in order."""
    values = [value for sample in samples_of(plays) for value in sample.columns[name]]
    return torch.tensor(values, dtype=torch.float64)


def set_column(plays: Iterable[Played], name: str, values_T: Tensor) -> None:
    """Give every trained token its value."""
    samples = samples_of(plays)
    parts = values_T.split([sample.trained for sample in samples])
    for sample, part in zip(samples, parts, strict=True):
        sample.columns[name] = part.tolist()
