"""Episodes as training data: which tokens the policy wrote, and the reward of each.

The reward of an episode comes with its last token; with `turn_rewards`, that of an earlier turn comes with the
turn's last token. Tokens of the prompt and of observations are neither trained nor rewarded. An episode has
several samples where the chat template broke the prefix of its tokens.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from vertigym.core.errors import RunError
from vertigym.core.types import Score, Trajectory
from vertigym.learner.advantages import overlong
from vertigym.learner.config import PolicyConfig
from vertigym.learner.registry import EpisodeRewards
from vertigym.learner.samples import TokenColumns, TrainingSample


@dataclass(slots=True)
class ScoredEpisode:
    """A scored episode with at least one trained token. `index` is its place in the step, `group` that of its
    task; `rewards` has a number a trained token, `parts` the parts of the score that gdpo weighs."""

    index: int
    group: int
    samples: list[TrainingSample]
    rewards: list[float]
    parts: list[float]

    @property
    def trained(self) -> int:
        """How many tokens carry a loss."""
        return sum(sample.trained for sample in self.samples)


def scored_episode(
    trajectory: Trajectory, score: Score, config: PolicyConfig, *, index: int, group: int, max_tokens: int
) -> ScoredEpisode | None:
    """The episode, or None where it was not scored or the policy wrote nothing: it then enters no baseline and
    no loss.

    Raises:
        RunError: gdpo weighs a part that the score does not have.
    """
    samples = [
        TrainingSample(
            segment.token_ids,
            segment.loss_mask,
            TokenColumns(
                sampler_logp=[p for p, m in zip(segment.logprobs, segment.loss_mask, strict=True) if m]
            ),
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
    return ScoredEpisode(index, group, samples, rewards, _parts(score, config.parts))


def turn_ends(samples: Iterable[TrainingSample]) -> Iterator[int]:
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


def episode_rewards(episodes: Sequence[ScoredEpisode], groups: Sequence[int]) -> EpisodeRewards:
    """What `token_advantages` needs; `groups` gives each episode's number, 0 … G-1."""
    lengths = torch.tensor([episode.trained for episode in episodes])
    scored = any(episode.parts for episode in episodes)
    valued = bool(episodes) and episodes[0].samples[0].columns.old_value is not None
    return EpisodeRewards(
        rewards_T=torch.tensor([r for episode in episodes for r in episode.rewards], dtype=torch.float64),
        sequences_T=torch.arange(len(episodes)).repeat_interleave(lengths),
        groups_N=torch.tensor(groups),
        parts_NK=torch.tensor([p.parts for p in episodes], dtype=torch.float64) if scored else None,
        values_T=column(episodes, "old_value") if valued else None,
    )


def samples_of(episodes: Iterable[ScoredEpisode]) -> list[TrainingSample]:
    """Every sample, in order."""
    return list(chain.from_iterable(episode.samples for episode in episodes))


def column(episodes: Iterable[ScoredEpisode], name: str) -> Tensor:
    """`[T]` float64, a column of every trained token in order."""
    values = [value for sample in samples_of(episodes) for value in getattr(sample.columns, name)]
    return torch.tensor(values, dtype=torch.float64)


def set_column(episodes: Iterable[ScoredEpisode], name: str, values_T: Tensor) -> None:
    """Give every trained token its value."""
    samples = samples_of(episodes)
    parts = values_T.split([sample.trained for sample in samples])
    for sample, part in zip(samples, parts, strict=True):
        setattr(sample.columns, name, part.tolist())
