"""Losses and advantages by name: the function, its defaults, and what it needs of the config.

To add one, write a function (in `losses`, in `advantages`) and enter it here. One of your own needs no entry:
the config names it by its import path, `loss = "my.module:fn"`. It is a function, or a `PolicyLoss` or
`PolicyAdvantage` around one that also says its defaults and needs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from vertigym.core.errors import suggest
from vertigym.learner import advantages, losses

if TYPE_CHECKING:  # the config looks names up here
    from vertigym.learner.config import PolicyConfig


@dataclass(frozen=True, slots=True)
class LossInputs:
    """What a loss sees: `[T]` of the trained tokens, flat over a batch. Only `logp_T` has a gradient.

    Args:
        logp_T: log-probs under the policy in training.
        old_logp_T: those that the ratio compares with: the sampler's, or with `ratio_to = "trainer"` the
            trainer's before the step.
        sequences_T: numbers the sequence each token belongs to; a sequence is never split.
    """

    logp_T: Tensor
    old_logp_T: Tensor
    sampler_logp_T: Tensor
    advantage_T: Tensor
    sequences_T: Tensor


@dataclass(frozen=True, slots=True)
class EpisodeRewards:
    """Rewards of some scored episodes. `rewards_T` is the reward that came with each token (most are 0), so an
    episode's own is their sum; `parts_NK` are the parts of the scores (gdpo), `values_T` the critic's (gae)."""

    rewards_T: Tensor
    sequences_T: Tensor
    groups_N: Tensor
    parts_NK: Tensor | None = None
    values_T: Tensor | None = None

    def totals(self) -> Tensor:
        """One reward an episode, `[N]`."""
        zero_N = self.rewards_T.new_zeros(len(self.groups_N))
        return zero_N.index_add(0, self.sequences_T, self.rewards_T)

    def spread(self, advantage_N: Tensor) -> tuple[Tensor, None]:
        """One advantage an episode, for each of its tokens."""
        return advantage_N[self.sequences_T], None


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """A policy loss.

    Args:
        function: gives `(loss [T], clipped [T] bool)`; the gradient of a clipped token is exactly zero.
        tokenwise: a token's loss depends on its own log-prob alone: gradients may be taken inside the head.
        defaults: of the config's keys, where they differ from the usual ones.
        requires: keys that must have one value, and why.
        corrects_sampler: the loss is itself a correction for the sampler.
    """

    function: Callable[[LossInputs, "PolicyConfig"], tuple[Tensor, Tensor]]
    tokenwise: bool = False
    defaults: Mapping[str, Any] = field(default_factory=dict)
    requires: Mapping[str, tuple[Any, str]] = field(default_factory=dict)
    corrects_sampler: bool = False


@dataclass(frozen=True, slots=True)
class PolicyAdvantage:
    """An advantage.

    Args:
        function: gives `(advantages [T], returns [T] that a critic is to learn, or None)`.
        relative: it compares samples of one task, so that groups without variance carry no gradient.
        critic: it reads a critic's values.
        parts: it weighs the parts of the score that `policy.parts` names, not the score.
        nonnegative: rewards must not be negative.
    """

    function: Callable[[EpisodeRewards, "PolicyConfig"], tuple[Tensor, Tensor | None]]
    relative: bool = False
    critic: bool = False
    parts: bool = False
    nonnegative: bool = False


def _gdpo(rewards: EpisodeRewards, config: "PolicyConfig") -> tuple[Tensor, None]:
    assert rewards.parts_NK is not None
    weights_K = torch.tensor(list(config.parts.values()))
    return rewards.spread(advantages.gdpo(rewards.parts_NK, rewards.groups_N, weights_K))


def _gae(rewards: EpisodeRewards, config: "PolicyConfig") -> tuple[Tensor, Tensor]:
    assert rewards.values_T is not None
    found_T, returns_T = advantages.gae(
        rewards.rewards_T, rewards.values_T, rewards.sequences_T, gamma=config.gamma, lam=config.lam
    )
    return advantages.whiten(found_T) if config.whiten else found_T, returns_T


ADVANTAGES = {
    "grpo": PolicyAdvantage(
        lambda r, c: r.spread(advantages.grpo(r.totals(), r.groups_N, std_scale=c.std_scale)), relative=True
    ),
    "rloo": PolicyAdvantage(lambda r, _: r.spread(advantages.rloo(r.totals(), r.groups_N)), relative=True),
    "maxrl": PolicyAdvantage(
        lambda r, _: r.spread(advantages.maxrl(r.totals(), r.groups_N)), relative=True, nonnegative=True
    ),
    "gdpo": PolicyAdvantage(_gdpo, relative=True, parts=True),
    "reinforce++": PolicyAdvantage(
        lambda r, c: (advantages.reinforce_plus_plus(r.rewards_T, r.sequences_T, gamma=c.gamma), None)
    ),
    "gae": PolicyAdvantage(_gae, critic=True),
}

LOSSES = {
    "ppo_clip": PolicyLoss(
        lambda t, c: losses.ppo_clip(
            t.logp_T,
            t.old_logp_T,
            t.advantage_T,
            clip_low=c.clip_low,
            clip_high=c.clip_high,
            dual_clip=c.dual_clip,
        ),
        tokenwise=True,
    ),
    "gspo": PolicyLoss(
        lambda t, c: losses.gspo(
            t.logp_T, t.old_logp_T, t.advantage_T, t.sequences_T, clip_low=c.clip_low, clip_high=c.clip_high
        ),
        defaults={"clip_low": 3e-4, "clip_high": 4e-4, "normalizer": "sequence"},
        requires={"normalizer": ("sequence", "has one ratio a sequence, and a long one must not count more")},
    ),
    "cispo": PolicyLoss(
        lambda t, c: losses.cispo(
            t.logp_T, t.old_logp_T, t.advantage_T, clip_low=c.clip_low, clip_high=c.clip_high
        ),
        tokenwise=True,
    ),
    "dppo_tv": PolicyLoss(
        lambda t, c: losses.dppo_tv(
            t.logp_T, t.old_logp_T, t.advantage_T, clip_low=c.clip_low, clip_high=c.clip_high
        ),
        tokenwise=True,
        defaults={"clip_low": 0.2, "clip_high": 0.2},
        requires={"ratio_to": ("sampler", "bounds the distance from the sampler")},
        corrects_sampler=True,
    ),
    "reinforce": PolicyLoss(
        lambda t, _: losses.reinforce(t.logp_T, t.advantage_T),
        tokenwise=True,
        requires={"epochs": (1, "has no ratio, so a second pass over the same samples is biased")},
    ),
}

S = TypeVar("S", PolicyLoss, PolicyAdvantage)


def find_loss(name: str) -> PolicyLoss:
    """The loss called `name`, or the one at that import path.

    Raises:
        ValueError: there is none, or nothing can be imported from the path.
    """
    return _find("loss", name, LOSSES, PolicyLoss)


def find_advantage(name: str) -> PolicyAdvantage:
    """The advantage called `name`, or the one at that import path.

    Raises:
        ValueError: there is none, or nothing can be imported from the path.
    """
    return _find("advantage", name, ADVANTAGES, PolicyAdvantage)


def _find(kind: str, name: str, known: Mapping[str, S], entry: type[S]) -> S:
    if name in known:
        return known[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ValueError(
            f'unknown {kind} {name!r} (one of your own has a path: "my.module:fn"){suggest(name, known)}'
        )
    try:
        found = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{kind} {name!r} cannot be imported ({error}): is it on PYTHONPATH?") from None
    return found if isinstance(found, entry) else entry(found)
